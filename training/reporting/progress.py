"""One calm line of progress: redrawn in a terminal; now and then a plain line in a log file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TextIO

from tqdm import tqdm

from utils.console import say

PLAIN_INTERVAL_S = 30.0  # between lines where there is no terminal
BAR = 10  # characters
WIDEST = 100  # columns of a line in a log, so that two terminals fit side by side
CUT = 5  # letters of a term's name in a narrow terminal
INERTIA = 0.9  # of the pace: how much of it is left after a step


def short(value: float) -> str:
    """Three digits that mean something: 7.31, 0.0558, 1.2e-05."""
    return f"{value:.3g}"


def shown(values: Mapping[str, float], between: str = ", ") -> str:
    """``loss 7.31, contrast 7.26``."""
    return between.join(f"{name} {short(value)}" for name, value in values.items())


def rate(lr: float) -> str:
    """A learning rate: 1.0e-3."""
    digits, exponent = f"{lr:.1e}".split("e")
    return f"{digits}e{int(exponent)}"


def speed(images_per_s: float) -> str:
    """``512 images/s``."""
    return f"{short(images_per_s)} images/s"


def clock(seconds: float) -> str:
    """``1:05:21``."""
    return str(timedelta(seconds=round(seconds)))


class Throughput:
    """Seconds of a step and images a second of late; the first step, which compiles and fills caches, counts little."""

    def __init__(self) -> None:
        self._steps, self._samples, self._seconds = 0, 0.0, 0.0

    def add(self, samples: int, seconds: float) -> None:
        """Take in a step."""
        self._steps += 1
        kept = 0.0 if self._steps <= 2 else min(INERTIA, 1 - 1 / (self._steps - 1))
        self._samples = kept * self._samples + (1 - kept) * samples
        self._seconds = kept * self._seconds + (1 - kept) * seconds

    def images_per_s(self) -> float:
        return self._samples / self._seconds

    def seconds(self, steps: int) -> float:
        """That so many steps will take."""
        return steps * self._seconds


@dataclass(frozen=True)
class ProgressState:
    """Where a run is. ``epoch``: from 1. ``step``: done in it. ``values``: the losses to show."""

    epoch: int
    epochs: int
    step: int
    steps: int
    values: Mapping[str, float]
    lr: float
    images_per_s: float
    memory_gb: float
    seconds_left: float

    @property
    def memory(self) -> str:
        return f"{self.memory_gb:.1f} GB"

    @property
    def left(self) -> str:
        return clock(self.seconds_left)


def layouts(now: ProgressState) -> Iterator[str]:
    """The line in a terminal, from the widest form to the narrowest."""
    filled = BAR * now.step // now.steps
    epochs, bar, steps = f"{now.epoch}/{now.epochs}", f"[{'#' * filled:{BAR}}]", f"{now.step}/{now.steps}"
    terms, cut_terms = shown(now.values, " "), shown(cut(now.values), " ")
    lr, left, fast = f"lr {rate(now.lr)}", f"{now.left} left", f"{short(now.images_per_s)}/s"
    yield f"epoch {epochs} {bar} {steps} {terms} {lr} {speed(now.images_per_s)} {now.memory} {left}"
    yield f"epoch {epochs} {steps} {terms} {lr} {speed(now.images_per_s)} {now.memory} {left}"
    yield f"epoch {epochs} {steps} {cut_terms} {lr} {speed(now.images_per_s)} {now.memory} {left}"
    yield f"ep {epochs} {steps} {cut_terms} {lr} {fast} {now.memory} {left}"
    yield f"{epochs} {steps} {cut_terms} {lr} {fast} {now.memory} {now.left}"
    yield f"{epochs} {steps} {cut_terms} {fast} {now.left}"
    yield f"{epochs} {steps} {now.left}"


def cut(values: Mapping[str, float]) -> dict[str, float]:
    """The values under the first letters of their names."""
    return {name[:CUT]: value for name, value in values.items()}


def log_line(
    epoch: str, values: Mapping[str, float], images_per_s: float, left: float | None, columns: int = WIDEST
) -> str:
    """A line of a log, at most so many columns: ``epoch 3/240: loss 7.31, 512 images/s, 1:05:21 left``.

    ``left``: seconds; None: the end is there.
    If the line is too long, it loses the speed, then the last terms, then ends of names.
    """
    fast, end = [speed(images_per_s)], [] if left is None else [f"{clock(left)} left"]
    few = dict(list(cut(values).items())[:2])
    fewer = [dict(list(values.items())[:count]) for count in range(len(values), 2, -1)]
    line = ""
    for terms, rest in ((values, fast + end), *((some, end) for some in fewer), (cut(values), end), (few, end)):
        line = f"epoch {epoch}: {', '.join([*([shown(terms)] if terms else []), *rest])}"
        if len(line) <= columns:
            break
    return line[:columns]


def widest() -> int:
    """The columns that a line has: ``WIDEST``, in a narrower terminal those that it has."""
    return min(WIDEST, _columns(sys.stdout)) if sys.stdout.isatty() else WIDEST


def fitted(now: ProgressState, columns: int) -> str:
    """The widest form that a terminal of ``columns`` has room for."""
    line = ""
    for line in layouts(now):
        if len(line) < columns:
            return line
    return line[: max(columns - 1, 0)]


def _columns(stream: TextIO) -> int:
    """Of the terminal that the line is drawn on."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80  # some pseudo-terminals say 0
    except (OSError, ValueError):  # there is none
        return 80


class Progress:
    """The line of a run."""

    def __init__(self) -> None:
        # Where there is no terminal tqdm is silent, and no control character is written.
        # nrows: else it is silent in pseudo-terminals that say they have no rows, such as those of containers.
        self._bar = tqdm(desc="waiting for the first batch", leave=False, disable=None, nrows=24, bar_format="{desc}")
        self._last_line = time.monotonic()
        self._waiting = True

    def fetched(self) -> None:
        """A batch is there. Said of the first one: its step may take long, which has nothing to do with the data."""
        if self._waiting:
            self._waiting = False
            self._bar.set_description_str("first step under way")

    def step(self, now: ProgressState) -> None:
        """A step was done."""
        if not self._bar.disable:
            self._bar.set_description_str(fitted(now, _columns(sys.stderr)), refresh=False)
            self._bar.update()
        elif now.step < now.steps and time.monotonic() - self._last_line > PLAIN_INTERVAL_S:  # else epoch's follows
            self._last_line = time.monotonic()
            where = f"{now.epoch}/{now.epochs}, step {now.step}/{now.steps}"
            say(log_line(where, now.values, now.images_per_s, now.seconds_left))

    def epoch_end(self) -> None:
        """The epoch's own line was said: a full bar would look as if it went on."""
        self._last_line = time.monotonic()
        self._bar.set_description_str("")

    def close(self) -> None:
        """Take the line away."""
        self._bar.close()
