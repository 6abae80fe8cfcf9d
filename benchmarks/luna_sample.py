"""How fast one core makes a LUNA16 sample: both views, all augmentations, reading included."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
if __name__ == "__main__":  # before anything is imported that may be missing
    from utils.requirements import say_missing_packages

    say_missing_packages()

from benchmarks.literal import luna_sample as literal
from benchmarks.table import HEADER, Row, show
from datasets.ct.luna import LunaPairs

SHAPE = (2, 64, 64, 32)
FILES = 8


def rows(quick: bool) -> list[Row]:
    """The two ways take turns, so that whatever else the machine does meets both."""
    torch.set_num_threads(1)
    repeats = 5 if quick else 20
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"scan_img_{number}.npy" for number in range(FILES)]
        for file in files:
            np.save(file, rng.random(SHAPE, dtype=np.float32))
        dataset = LunaPairs(files, seed=0)

        def literally(number: int) -> object:
            return literal.sample(files[number % FILES], rng)

        def ours(number: int) -> object:
            return dataset[(number // FILES, number % FILES)]

        row = Row("3D sample, all augmentations", [], [])
        for repeat in range(repeats):
            row.literal_ms.append(_milliseconds(literally, range(8 * repeat, 8 * repeat + 8)))
            row.ours_ms.append(_milliseconds(ours, range(64 * repeat, 64 * repeat + 64)))
    return [row]


def _milliseconds(make: Callable[[int], object], numbers: range) -> float:
    """The mean time of a sample: over many of them, since which steps one goes through is random."""
    start = time.perf_counter()
    for number in numbers:
        make(number)
    return (time.perf_counter() - start) / len(numbers) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    print(HEADER)
    show(rows(options.quick))


if __name__ == "__main__":
    main()
