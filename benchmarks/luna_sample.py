"""How fast one core makes a LUNA16 sample: all views, all augmentations, reading included."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
if __name__ == "__main__":  # before anything is imported that may be missing
    from utils.requirements import say_missing_packages

    say_missing_packages()

from benchmarks.literal import luna_sample as literal
from benchmarks.literal import luna_sample_v2 as literal_v2
from benchmarks.table import HEADER, Row, show
from datasets.ct.luna import LunaPairs
from datasets.ct.luna_v2 import LunaViews, local_file
from datasets.loader import PairDataset

SHAPE, LOCAL_SHAPE = (2, 64, 64, 32), (6, 16, 16, 16)
FILES = 8


def rows(quick: bool) -> list[Row]:
    """The ways take turns, so that whatever else the machine does meets all of them."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        pairs = [Path(folder) / f"scan_img_{number}.npy" for number in range(FILES)]
        views = [Path(folder) / f"scan_global_{number}.npy" for number in range(FILES)]
        for pair, view in zip(pairs, views, strict=True):
            np.save(pair, rng.random(SHAPE, dtype=np.float32))
            np.save(view, rng.random(SHAPE, dtype=np.float32))
            np.save(local_file(str(view)), rng.random(LOCAL_SHAPE, dtype=np.float32))
        ways: list[tuple[str, Callable[[int], object], PairDataset]] = [
            ("3D sample, all augmentations", lambda n: literal.sample(pairs[n], rng), LunaPairs(pairs, seed=0)),
            ("3D sample of pcrlv2", lambda n: literal_v2.sample(views[n]), LunaViews([str(v) for v in views], seed=0)),
        ]
        result = [Row(what, [], []) for what, _, _ in ways]
        for repeat in range(5 if quick else 20):
            for row, (_, literally, dataset) in zip(result, ways, strict=True):
                row.literal_ms.append(_milliseconds(literally, range(FILES)))
                keys = [(2 * repeat + half, number) for half in range(2) for number in range(FILES)]
                row.ours_ms.append(_milliseconds(dataset.__getitem__, keys))
    return result


def _milliseconds(make: Callable[[Any], object], items: Sequence[Any]) -> float:
    """The mean processor time of a sample: over many of them, since which steps one goes through is random."""
    start = time.process_time()
    for item in items:
        make(item)
    return (time.process_time() - start) / len(items) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    print(HEADER)
    show(rows(options.quick))


if __name__ == "__main__":
    main()
