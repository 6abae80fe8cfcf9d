"""How far a command is: a bar in a terminal, a line every 30 seconds in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from utils.console import muted, say
from utils.text import counted

LOG_EVERY_S = 30.0
REDRAWN_S = 3.0  # a bar in a terminal, also while nothing gets done
SHORT_S = 2.0  # that work takes of which nothing is shown in a terminal, where most of its kind takes less
BAR = "[{bar:10}] {n_fmt}/{total_fmt} {unit}, {elapsed}, {remaining} left"  # as training's line has it

STYLE: dict[str, Any] = {"dynamic_ncols": True, "nrows": 24, "mininterval": 0.5, "leave": False, "position": 0}


class Steps:
    """Counts what is done. ``say``: one line that tells it."""

    def __init__(self, total: int, unit: str, done: str, bar: tqdm[None] | None) -> None:
        self.total, self.unit, self.done = total, unit, done
        self.count, self.started, self.bar = 0, time.monotonic(), bar

    def update(self, steps: int = 1) -> None:
        """So many more are done."""
        self.count += steps
        if self.bar is not None:
            self.bar.update(steps)

    def line(self) -> str:
        """How many are done, for how long it has run, and how long it will."""
        passed = time.monotonic() - self.started
        words = f"{self.count} of {counted(self.total, self.unit)} {self.done}, {_clock(passed)}"
        if not self.count:
            return words
        return f"{words}; about {_clock(passed / self.count * (self.total - self.count))} left"


@contextmanager
def progress(total: int, unit: str, done: str = "done", delay_s: float = 0.0) -> Iterator[Steps]:
    """Show how many of ``total`` are ``done`` while the block runs, which calls ``update``.

    In a terminal a bar that goes when it is full, in the place of the line of a training, if there is one. Elsewhere a
    line every ``LOG_EVERY_S`` seconds. Both also while nothing gets done: what stands still looks like a command that
    hangs. ``delay_s``: seconds before the bar is drawn, of work that is mostly short. Of several processes one speaks.
    """
    if sys.stderr.isatty() and not muted():
        units = counted(total, unit).partition(" ")[2]
        bar = tqdm(total=total, unit=units, delay=delay_s, bar_format=BAR, ascii=" #", **STYLE)
        with bar, _repeating(bar.refresh, REDRAWN_S):
            yield Steps(total, unit, done, bar)
        return
    steps = Steps(total, unit, done, None)
    with _repeating(lambda: say(steps.line()), LOG_EVERY_S):
        yield steps


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say ``what`` is being done, and for how long, while the block runs.

    In a terminal on a line that goes, if it takes longer than ``SHORT_S``; elsewhere every ``LOG_EVERY_S`` seconds.
    """
    started = time.monotonic()
    if sys.stderr.isatty() and not muted():
        with tqdm(desc=what, delay=SHORT_S, bar_format="{desc}: {elapsed}", **STYLE) as bar:
            with _repeating(bar.refresh, REDRAWN_S):
                yield
            if time.monotonic() - started > REDRAWN_S:
                bar.clear()  # tqdm itself clears a bar that was updated
        return
    with _repeating(lambda: say(f"{what}: {_clock(time.monotonic() - started)}"), LOG_EVERY_S):
        yield


@contextmanager
def _repeating(tell: Callable[[], object], every_s: float) -> Iterator[None]:
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every_s):
            tell()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
