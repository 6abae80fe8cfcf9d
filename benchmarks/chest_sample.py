"""How fast one core makes an X-ray sample: all views, all augmentations, reading included.

    python benchmarks/chest_sample.py [FOLDER OF IMAGES] [--quick]

Without a folder it makes its own images, of the size and about the compression of ChestX-ray14's.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.literal import chest_sample as literal
from benchmarks.literal import chest_sample_v2 as literal_v2
from benchmarks.table import HEADER, Row, show
from datasets.loader import PairDataset
from datasets.xray.chest import ChestPairs
from datasets.xray.chest_v2 import ChestViews
from datasets.xray.files import ALL_IMAGES, find_chest
from preprocess import chest_store

FILES = 16


def rows(quick: bool, folder: Path | None = None) -> list[Row]:
    """The ways take turns, so that whatever else the machine does meets all of them."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        data = folder or make_images(Path(temporary) / "images")
        files = find_chest(data, ALL_IMAGES)[:FILES]
        (Path(temporary) / "list.txt").write_text("\n".join(Path(file).name for file in files))
        store = make_store(data, Path(temporary))
        stored = find_chest(store, ALL_IMAGES)
        ways: dict[str, tuple[Callable[[Path], object], PairDataset]] = {
            "2D sample from PNG": (literal.sample, ChestPairs(files, 0)),
            "2D sample from a store": (literal.sample, ChestPairs(stored, 0)),
            # The device's part does not count: this is what a core has left to do.
            "... last steps on the device": (literal.sample, ChestPairs(stored, 0, augmented=False)),
            "2D sample of pcrlv2, from PNG": (literal_v2.sample, ChestViews(files, 0)),
            "... from a store": (literal_v2.sample, ChestViews(stored, 0)),
        }
        result = [Row(what, [], []) for what in ways]
        for repeat in range(5 if quick else 20):
            keys = [(repeat, index) for index in range(len(files))]
            for row, (literally, dataset) in zip(result, ways.values(), strict=True):
                row.literal_ms.append(_milliseconds(literally, [Path(file) for file in files]))
                row.ours_ms.append(_milliseconds(dataset.__getitem__, keys))
    return result


def make_images(folder: Path) -> Path:
    """Write images of 1024 x 1024 pixels with large shapes and a little noise, 0.35 MB each like X-rays."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:1024j, -1:1:1024j]
    for number in range(FILES):
        lungs = np.hypot(abs(x) - 0.45, 0.6 * y - rng.uniform(-0.1, 0.1)) < 0.3
        shape = 160 + 60 * np.cos(2 * x) * np.cos(y) - 90 * lungs + 15 * np.sin(30 * y + x**2) * lungs
        pixels = np.clip(shape + rng.normal(0, 1.2, shape.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:08d}_000.png")
    return folder


def make_store(data: Path, temporary: Path) -> Path:
    """A store of the listed images, made without a word."""
    store, listed = temporary / "store", temporary / "list.txt"
    with contextlib.redirect_stdout(io.StringIO()):
        flags = ["--data", data, "--save", store, "--train_list", listed, "--workers", 1]
        chest_store.main([str(word) for word in flags])
    return store


def _milliseconds(make: Callable[..., object], items: Sequence[object]) -> float:
    """The time that a core is busy with one item, whatever else runs on the machine."""
    start = time.process_time()
    for item in items:
        make(item)
    return (time.process_time() - start) / len(items) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="of X-rays")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    print(HEADER)
    show(rows(options.quick, *([options.folder] if options.folder else [])))


if __name__ == "__main__":
    main()
