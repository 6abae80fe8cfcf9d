"""How far a command is: a bar in a terminal, a line every 30 seconds in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from utils.console import say
from utils.text import counted

LOG_EVERY_S = 30.0
BAR = "[{bar:10}] {n_fmt}/{total_fmt} {unit}, {elapsed}, {remaining} left"  # as training's line has it


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
def progress(total: int, unit: str, done: str = "done") -> Iterator[Steps]:
    """Show how many of ``total`` are ``done`` while the block runs, which calls ``update``.

    In a terminal a bar that goes when it is full. Elsewhere a line every ``LOG_EVERY_S`` seconds, also while nothing
    gets done: a log that stands still looks like a command that hangs.
    """
    if sys.stderr.isatty():
        style = {"bar_format": BAR, "ascii": " #", "dynamic_ncols": True, "mininterval": 0.5, "leave": False}
        with tqdm(total=total, unit=counted(total, unit).partition(" ")[2], **style) as bar:
            yield Steps(total, unit, done, bar)
        return
    steps = Steps(total, unit, done, None)
    with _telling(steps.line):
        yield steps


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say ``what`` is being done, every ``LOG_EVERY_S`` seconds while the block runs."""
    started = time.monotonic()
    with _telling(lambda: f"{what}: {_clock(time.monotonic() - started)}"):
        yield


@contextmanager
def _telling(line: Callable[[], str]) -> Iterator[None]:
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(LOG_EVERY_S):
            say(line())

    thread = threading.Thread(target=tell, daemon=True)
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
