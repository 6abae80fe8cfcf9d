"""How long a device had nothing to do because the next batch was not there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

EVENT = partial(torch.cuda.Event, enable_timing=True)


class DeviceClock:
    """Marks in a GPU's stream where steps begin and end that the host launches without waiting for them.

    While the host waits for a batch, the GPU may still compute the step before: only the rest of that time is lost.
    ``event``: makes a mark, as ``torch.cuda.Event``.
    """

    def __init__(self, event: Callable[[], Any] = EVENT) -> None:
        self._event = event
        self._before: Any = None  # the end of the step before the last one
        self._began: Any = None
        self._ended: Any = None

    def begin(self) -> None:
        """A step is about to be launched."""
        self._before, self._began = self._ended, self._event()
        self._began.record()

    def end(self) -> None:
        """All of the step is launched."""
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
