"""How fast one core turns a scan into pairs.

    python benchmarks/luna_pre.py [--quick] [--scan FILE]

Without ``--scan`` a synthetic thorax of 512 x 512 x 133 voxels stands in for a scan of LUNA16.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.literal import luna_pre as literal
from benchmarks.table import HEADER, Row, show
from preprocess.jobs.pairs import PairJob, PairOptions, make_pairs
from preprocess.jobs.parallel import fresh_processes
from preprocess.volumes.crops import PUBLISHED_CROP, Window, draw_pairs, feasible_boxes
from preprocess.volumes.files import Scan
from preprocess.volumes.volume import read_image, resample, shape_at_1mm

PAIRS = 16


def rows(quick: bool, scan: Path | None = None) -> list[Row]:
    """Three rows: a pair, from the resampled scan on; a whole scan against reading and resampling it; the latter.

    They are measured in a fresh process of one thread, as luna_pre's workers are. In each repeat the two
    ways take turns, so that whatever else the machine does meets both; their seed is the repeat's number.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = scan or write_thorax(Path(folder) / "thorax.mhd")
        with fresh_processes(1) as process:
            return process.submit(_measure, file, Path(folder), 3 if quick else 10).result()


def _measure(file: Path, folder: Path, repeats: int) -> list[Row]:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    scan = Scan(0, "scan", (file,))
    pair = Row("a pair, scan read and resampled", [], [])
    whole = Row(f"a scan: read, resampled, {PAIRS} pairs written", [], [])
    reading = Row("reading and resampling a scan", [], [])
    _ours(scan, seed=0)  # compiles what is compiled, once and for all
    for seed in range(repeats):
        started = time.perf_counter()
        hu = literal.read_and_resample(file)
        read = time.perf_counter()
        unit, rng = literal.scale_hu(hu), np.random.default_rng(seed)
        for _ in range(PAIRS):
            literal.draw_pair(unit, rng)
        made = time.perf_counter()
        reading.literal_ms.append((read - started) * 1e3)
        whole.literal_ms.append((made - started) * 1e3)
        pair.literal_ms.append((made - read) * 1e3 / PAIRS)

        for row, milliseconds in zip((reading, pair), _ours(scan, seed), strict=True):
            row.ours_ms.append(milliseconds)

        options = PairOptions(
            PUBLISHED_CROP, PUBLISHED_CROP, PAIRS, seed, hu_min=-1000, hu_max=1000, percentiles=None, dtype="float32"
        )
        started = time.perf_counter()
        outcome = make_pairs(PairJob(scan, options, folder / str(seed)))
        whole.ours_ms.append((time.perf_counter() - started) * 1e3)
        assert outcome.pairs == PAIRS, outcome.problem
    return [pair, whole, reading]


def _ours(scan: Scan, seed: int) -> tuple[float, float]:
    """Milliseconds to read and resample a scan, and for each of its pairs from there on."""
    started = time.perf_counter()
    image = read_image(scan)
    boxes = feasible_boxes(shape_at_1mm(image))
    origin, end = boxes.region()
    part = resample(image, origin, end)
    read = time.perf_counter()
    window, rng = Window(-1000, 1000, -150), np.random.default_rng(seed)
    made = sum(1 for _ in draw_pairs(part, origin, boxes, PUBLISHED_CROP, window, PAIRS, rng))
    assert made == PAIRS, "the scan gives too few pairs to time"
    return (read - started) * 1e3, (time.perf_counter() - read) * 1e3 / PAIRS


def write_thorax(file: Path) -> Path:
    """An elliptic body with two lungs and noise, with the size and spacing of a scan of LUNA16."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    body = x**2 / 0.85**2 + y**2 / 0.65**2 < 1
    lungs = (np.abs(x) - 0.4) ** 2 / 0.3**2 + y**2 / 0.5**2 < 1
    plane = np.where(lungs, -850, np.where(body, 40, -1000)).astype(np.int16)
    voxels = plane + rng.normal(0, 25, (133, 512, 512)).astype(np.int16)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.7, 0.7, 2.5))
    sitk.WriteImage(image, str(file))
    return file


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--scan", type=Path, help="a scan, such as one of LUNA16's .mhd")
    options = parser.parse_args()
    print(HEADER)
    measured = rows(options.quick, options.scan)
    show(measured)
    _, whole, reading = measured
    share = [ours / plain for ours, plain in zip(whole.ours_ms, reading.literal_ms, strict=True)]
    print(f"our whole scan takes {median(share):.2f} x SimpleITK's time to read and resample it, ", end="")
    own = [ours / read for ours, read in zip(whole.ours_ms, reading.ours_ms, strict=True)]
    print(f"{median(own):.2f} x our own")


if __name__ == "__main__":
    main()
