"""Signals that ask a process to stop are noted, and answered at the next safe moment."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # SLURM warns with USR1 where a job script asks it to


class Stopped(Exception):
    """The run was asked to stop and did so in good order; ``status`` is 128 + the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.status = 128 + signum


class StopRequest:
    """While entered, notes the first signal that asks to stop; a second one has its usual effect.

    ``once``: further ones are ignored. Of several processes that train together each can get a signal twice, from a
    launcher and from a cluster's scheduler.
    """

    def __init__(self, once: bool = False) -> None:
        self.signum: int | None = None
        self._once = once
        self._former: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> StopRequest:
        for signum in STOPPING:
            self._former[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._former.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        for other in STOPPING:
            signal.signal(other, signal.SIG_IGN if self._once else self._former.get(other, signal.SIG_DFL))


def ignore_stop_signals() -> None:
    """For worker processes: a terminal and SLURM signal the whole group, but the main process decides."""
    for signum in STOPPING:
        signal.signal(signum, signal.SIG_IGN)
