"""One calm line of progress: redrawn in a terminal; now and then a plain line in a log file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from datetime import timedelta

from tqdm import tqdm

from utils.console import say

PLAIN_INTERVAL_S = 30.0  # between lines where there is no terminal
WIDE = 125  # columns; a narrower terminal has no room for the bar beside the numbers


def short(value: float) -> str:
    """Three digits that mean something: 7.31, 0.0558, 1.2e-05."""
    return f"{value:.3g}"


def shown(values: Mapping[str, float], between: str = ", ") -> str:
    """``loss 7.31, contrast 7.26``."""
    return between.join(f"{name} {short(value)}" for name, value in values.items())


def _columns() -> int:
    """Of the terminal that the line is drawn on."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):  # there is none
        return 0


class Progress:
    """The line of a run of ``epochs`` with ``steps`` each."""

    def __init__(self, epochs: int, steps: int) -> None:
        self.epochs, self.steps = epochs, steps
        self._word, bar = ("epoch", "|{bar:10}| ") if _columns() >= WIDE else ("ep", "")
        # Where there is no terminal tqdm is silent, and no control character is written.
        self._bar = tqdm(
            total=steps,
            leave=False,
            dynamic_ncols=True,
            disable=None,
            bar_format="{desc} " + bar + "{n_fmt}/{total_fmt}{postfix}",
        )
        self._last_line = time.monotonic()

    def step(self, epoch: int, step: int, values: Mapping[str, float], more: str, seconds_left: float) -> None:
        """``epoch`` from 0, ``step`` of it done; ``values``: to show; ``more``: learning rate, speed, memory."""
        left = f"{timedelta(seconds=round(seconds_left))} left"
        if not self._bar.disable:
            self._bar.set_description_str(f"{self._word} {epoch + 1}/{self.epochs}", refresh=False)
            self._bar.set_postfix_str(f"{left}, {shown(values, ' ')}, {more}", refresh=False)
            self._bar.update(step - self._bar.n)
        elif time.monotonic() - self._last_line > PLAIN_INTERVAL_S:
            self._last_line = time.monotonic()
            say(f"epoch {epoch + 1}/{self.epochs}, step {step}/{self.steps}: {shown(values)}, {more}, {left}")

    def epoch_end(self) -> None:
        """The next epoch starts at 0."""
        self._last_line = time.monotonic()
        if not self._bar.disable:
            self._bar.reset()

    def close(self) -> None:
        """Leave the line."""
        self._bar.close()
