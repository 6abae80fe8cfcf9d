"""All benchmarks in one table, each against its literal baseline, which takes turns with it in the same run.

    python benchmarks/run.py [--quick] [--scan FILE] [--xrays FOLDER] [--clock cpu] [--only WORD]

Needs requirements-dev.txt, and no data: a synthetic scan and synthetic X-rays stand in for real ones. ``--quick`` takes
about 3 minutes on two idle cores, all of it about half an hour.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
if __name__ == "__main__":  # before anything is imported that may be missing
    from utils.requirements import say_missing_packages

    say_missing_packages()

from benchmarks import chest_sample, luna_pre, luna_sample, step
from benchmarks.roofline import measure_peak, show_roofline
from benchmarks.table import HEADER, Row, machine, show
from datasets.xray.files import find_chest
from preprocess.jobs.pairs import PairJob, PairOptions, make_pairs
from preprocess.jobs.parallel import fresh_processes
from preprocess.volumes.files import Scan

LISTED = 112_120  # images of ChestX-ray14


def scaling(quick: bool, scan: Path | None) -> list[Row]:
    """Scans by one worker of luna_pre against as many by two, once all have started and compiled."""
    row = Row("luna_pre: a scan, --workers 1 against 2", [], [])
    scans = 4
    with tempfile.TemporaryDirectory() as folder:
        file = scan or luna_pre.write_thorax(Path(folder) / "thorax.mhd")
        options = PairOptions((64, 64, 32), (64, 64, 32), luna_pre.PAIRS, 0, -1000, 1000, None, "float32")
        with fresh_processes(1) as one, fresh_processes(2) as two:
            for repeat in range(2 if quick else 5):
                for workers, pool, times in ((1, one, row.literal_ms), (2, two, row.ours_ms)):
                    jobs = [
                        PairJob(Scan(0, f"scan{number}", (file,)), options, Path(folder) / f"{repeat}_{workers}")
                        for number in range(scans)
                    ]
                    started = time.perf_counter()
                    list(pool.map(make_pairs, jobs))
                    times.append((time.perf_counter() - started) * 1e3 / scans)
    return [Row(row.what, row.literal_ms[1:], row.ours_ms[1:])]  # the first one compiled


def start_of_chest() -> None:
    """Print how long it takes to find the images of ChestX-ray14's size by their list."""
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{number // 4:08d}_{number % 4:03d}.png" for number in range(LISTED)]
        images = Path(folder) / "images"
        images.mkdir()
        for name in names:
            (images / name).touch()
        listed = Path(folder) / "list.txt"
        listed.write_text("\n".join(names))
        started = time.perf_counter()
        assert len(find_chest(Path(folder), str(listed))) == LISTED
        print(f"\nfinding {LISTED} listed X-rays: {time.perf_counter() - started:.2f} s", flush=True)


def steps(quick: bool, clock: str) -> None:
    """Print speed, memory and roofline of the training step, and how well it agrees."""
    results = []
    for model, dims in itertools.product(step.TERMS, step.SIZES):
        batch, repeats, size = step.effort(dims, quick)
        found = step.measure(dims, batch, repeats, clock=clock, size=size, model=model)
        show([row for result in found for row in result.rows])
        results += found
    step.show_memory(results)
    show_roofline(
        measure_peak(),
        [
            (row.what, result.precision, median(row.ours_ms), result.ours.gflop, result.ours.gigabytes)
            for result in results
            for row in result.rows
        ],
    )
    if quick:
        print("\nwhether the losses agree is not looked at with --quick; benchmarks/step.py --agreement 50")
        return
    print(
        "\nrelative difference of each loss from the literal float32 step's, same seed: of the means (worst step)",
        flush=True,
    )
    for model, dims in itertools.product(step.TERMS, step.SIZES):
        step.agreement(dims, 50, model=model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--scan", type=Path, help="a CT scan in place of the synthetic one")
    parser.add_argument("--xrays", type=Path, help="a folder of X-rays in place of synthetic ones")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="of the step; cpu: a machine in use")
    parser.add_argument("--only", default="", help="the part whose name has this word")
    options: Any = parser.parse_args()
    quick = options.quick
    parts: dict[str, Callable[[], None]] = {
        "luna_pre": lambda: show(luna_pre.rows(quick, options.scan)),
        "luna_workers": lambda: show(scaling(quick, options.scan)),
        "luna_sample": lambda: show(luna_sample.rows(quick)),
        "chest_sample": lambda: show(chest_sample.rows(quick, options.xrays)),
        "step": lambda: steps(quick, options.clock),
        "chest_start": start_of_chest,
    }
    threads = torch.get_num_threads()
    print(machine())
    print(HEADER)
    for name, part in parts.items():
        if options.only in name:
            torch.set_num_threads(threads)  # some parts measure a single core
            started = time.perf_counter()
            part()
            print(f"({name}: {time.perf_counter() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
