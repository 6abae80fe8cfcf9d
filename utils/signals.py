"""Signals that ask a process to stop are noted, answered at once, and obeyed at the next safe moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType

# SLURM warns with USR1 where a job script asks it to; HUP says that the terminal is gone.
# Windows has neither.
STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name))
HANGUP = getattr(signal, "SIGHUP", None)
STDERR = 2


class Stopped(Exception):
    """The run was asked to stop and did so in good order; ``status`` is 128 + the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.status = 128 + signum


class StoppedAtOnce(KeyboardInterrupt):
    """A second signal asked to stop: nothing more is done. ``status`` as of :class:`Stopped`."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.status = 128 + signum


def heeded() -> list[signal.Signals]:
    """The signals that ask this process to stop: all, but HUP where it is ignored, as nohup asks for."""
    return [signum for signum in STOPPING if signum != HANGUP or signal.getsignal(signum) != signal.SIG_IGN]


class StopRequest:
    """While entered, notes the first signal that asks to stop; a second one raises :class:`StoppedAtOnce`.

    HUP is never taken for a second one: the kernel and the shell both send it when a terminal goes, and nobody is there
    who could have changed his mind.

    ``once``: further ones are ignored. Of several processes that train together each can get a signal twice, from a
    launcher and from a cluster's scheduler.
    ``answer``: what is said when the first one comes, since the safe moment may be half a minute away; empty: nothing.
    ``again``: what a second one does.
    """

    def __init__(self, once: bool = False, answer: str = "", again: str = "to stop without saving") -> None:
        self.signum: int | None = None
        self._answered = False
        self._once, self._answer, self._again = once, answer, again
        self._former: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> StopRequest:
        for signum in heeded():
            self._former[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put_back()

    @contextmanager
    def answering(self, answer: str, again: str | None = None) -> Iterator[None]:
        """Inside, another ``answer``, if there is one at all, and what a second signal does ``again``."""
        former = self._answer, self._again
        if self._answer:
            self._answer, self._again = answer, again or self._again
        try:
            yield
        finally:
            self._answer, self._again = former

    def _put_back(self) -> None:
        for signum, handler in self._former.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None and not self._once and signum != HANGUP:
            self._stop_at_once(signum, frame)  # the first one came in the same instant, and was noted amid this call
        self.signum = signum
        for other in self._former:
            ignored = self._once or other == HANGUP
            signal.signal(other, signal.SIG_IGN if ignored else self._stop_at_once)
        self._tell()

    def _tell(self) -> None:
        if self._answer and self.signum is not None and not self._answered:
            again = "" if self._once else f"; again {self._again}"
            _write(f"{signal.Signals(self.signum).name}: {self._answer}{again}")
            self._answered = True

    def _stop_at_once(self, signum: int, frame: FrameType | None) -> None:
        self._put_back()  # should even this take long, a third one has its usual effect
        self._tell()  # it came before the first one was answered
        raise StoppedAtOnce(signum)


def _write(line: str) -> None:
    """To standard error past Python's buffers and tqdm's locks, which the code that was interrupted may hold."""
    above = "\n" if os.isatty(STDERR) else ""  # the cursor may stand behind a progress line
    with suppress(OSError):  # nobody listens any more
        os.write(STDERR, f"{above}{line}\n".encode())


def ignore_stop_signals() -> None:
    """For worker processes: a terminal and SLURM signal the whole group, but the main process decides."""
    for signum in STOPPING:
        signal.signal(signum, signal.SIG_IGN)
