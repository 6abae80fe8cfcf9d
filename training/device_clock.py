"""How long a device had nothing to do because the next batch was not there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

EVENT = partial(torch.cuda.Event, enable_timing=True)


class DeviceClock:
    """Marks in a GPU's stream where batches arrive and steps end that the host launches without waiting for them.

    While the host waits for a batch, the GPU may still compute the step before: only the rest of that time is lost.
    ``event``: makes a mark, as ``torch.cuda.Event``; None: the host waits for each step.
    """

    def __init__(self, event: Callable[[], Any] | None) -> None:
        self._event = event
        self._before: Any = None  # the end of the step before the last one
        self._began: Any = None
        self._ended: Any = None

    def begin(self) -> None:
        """The batch of the next step is there; what prepares it on the device is no waiting."""
        if not self._event:
            return
        self._before, self._began = self._ended, self._event()
        self._began.record()

    def end(self) -> None:
        """All of the step is launched."""
        if not self._event:
            return
        self._ended = self._event()
        self._ended.record()

    def forget(self) -> None:
        """The last step was one for which the host waited."""
        self._before = self._began = self._ended = None

    def idle(self, seconds: float) -> Callable[[], float]:
        """For how many of the ``seconds`` that the host waited before the last launch the device had nothing to do.

        To be called once the step before that launch was read: then it waits for nothing.
        """
        before, began = self._before, self._began
        if before is None:
            return lambda: seconds

        def measured() -> float:
            began.synchronize()
            return min(seconds, before.elapsed_time(began) / 1000)

        return measured
