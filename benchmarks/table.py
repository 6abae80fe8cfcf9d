"""What every benchmark prints: rows of ratios, measured by turns in one run."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata
from statistics import median
from typing import NamedTuple

HEADER = f"{'':46} {'literal ms':>11} {'ours ms':>9}   ratio: {'min':>6} {'median':>6} {'max':>6}"


class Row(NamedTuple):
    """Milliseconds of the literal way and of ours, and literal / ours in each repeat."""

    what: str
    literal_ms: list[float]
    ours_ms: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times as fast ours is."""
        return [slow / fast for slow, fast in zip(self.literal_ms, self.ours_ms, strict=True)]


def show(rows: Sequence[Row]) -> None:
    """Print a line a row."""
    for row in rows:
        low, middle, high = min(row.ratios), median(row.ratios), max(row.ratios)
        print(
            f"{row.what:46} {median(row.literal_ms):11.1f} {median(row.ours_ms):9.2f}          "
            f"{low:6.1f} {middle:6.1f} {high:6.1f}",
            flush=True,
        )


def machine() -> str:
    """Processor, cores and versions, in one line."""
    import torch

    names = ("torch", "torchvision", "numpy", "numba", "SimpleITK", "scikit-image", "torchio")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return f"{_processor()}, {torch.get_num_threads()} threads; Python {platform.python_version()}, {versions}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
