"""Does pre-training help where labels are few? The same budget from scratch, with PCRL, and with parts of it left out.

    python benchmarks/evidence.py --work FOLDER [--msd FOLDER] [--chest14 FOLDER] [--task NAME] [--jobs 2] [--minutes M]
    python benchmarks/evidence.py --report

Each cell of the grid is one run of ``main.py`` in ``--work``, with one thread. Its result is kept in
``benchmarks/results/evidence/<cell>.json`` and not computed again unless its command changes, so that the grid can be
stopped at any time and gone on with. ``--report`` prints the tables and draws ``docs/images/evidence_*.png`` from
what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.evidence_grid import ROOT, Cell, Task, chest14, hippocampus, ordered, xrays
from benchmarks.evidence_report import RESULTS, report
from benchmarks.roofline import has_bf16
from training.reporting.curves import read_rows
from utils.files import write_text

OF_THE_MACHINE = {"images_per_s", "data_wait", "memory_gb"}


def command_of(cell: Cell, work: Path) -> list[str]:
    """The flags, but for where things lie and for --amp, so that a cell has the same command on every machine."""
    start = ["--weight", cell.start.name] if cell.start else []
    return [word.replace(str(work), "WORK") for word in (*cell.flags, *start)]


def is_kept(cell: Cell, work: Path) -> bool:
    """Whether the cell's result is there, by the same command."""
    try:
        kept = json.loads((RESULTS / f"{cell.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return kept["command"] == command_of(cell, work)


def to_compute(cells: Iterable[Cell], work: Path) -> list[Cell]:
    """Those without a result, and the pre-trainings whose weights these start from and are no longer in ``work``."""
    cells = list(cells)
    missing = [cell for cell in cells if not is_kept(cell, work)]
    needed = {cell.start for cell in missing}
    return [cell for cell in cells if cell in missing or (cell in needed and not weights(cell, work))]


def weights(cell: Cell, work: Path) -> Path | None:
    """The last checkpoint of a run of pre-training that came to its end."""
    epochs = cell.flags[cell.flags.index("--epochs") + 1]
    found = list((work / "runs" / cell.name).glob(f"pcrl_*_pretask_*_{epochs}.pt"))
    return found[0] if found else None


def compute(cell: Cell, work: Path, task: Task, amp: str) -> str:
    """Run the cell and keep its result; -> a line that says so. CalledProcessError if the run fails."""
    output = work / "runs" / cell.name
    start = weights(cell.start, work) if cell.start else None
    if cell.start and not start:
        raise RuntimeError(f"{cell.name}: {cell.start.name} has left no weights; it must come to its end first")
    flags = [*cell.flags, "--amp", amp, "--output", str(output), "--resume", "auto"]
    flags += ["--weight", str(start)] if start else []
    started = time.monotonic()
    RESULTS.mkdir(parents=True, exist_ok=True)
    (work / "runs").mkdir(parents=True, exist_ok=True)
    with open(work / "runs" / f"{cell.name}.log", "w", encoding="utf-8") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, str(ROOT / "main.py"), *flags], check=True, stdout=log, stderr=log, env=environment
        )
    seconds = time.monotonic() - started
    rows = read_rows(output / "metrics.jsonl")
    result: dict[str, Any] = {"task": cell.task, "arm": cell.arm, "labels": cell.labels, "seed": cell.seed}
    if cell.pretrains:
        result["rows"] = [
            {name: float(f"{value:.4g}") for name, value in row.items() if name not in OF_THE_MACHINE} for row in rows
        ]
        score = result["rows"][-1]["loss"]
    else:
        found = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
        score = result["score"] = round(found[task.metric[0]], 5)
        key = "val_dice" if task.metric[1] == "Dice" else "val_auroc"
        result["curve"] = [[row["step"], round(row[key], 5)] for row in rows if key in row]
        for checkpoint in output.glob("*.pt"):
            checkpoint.unlink()
    result |= {"command": command_of(cell, work), "amp": amp, "minutes": round(seconds / 60, 2)}
    write_text(RESULTS / f"{cell.name}.json", json.dumps(result) + "\n")
    return f"{cell.name}: {score:.4f}, {seconds / 60:.1f} min"


def compute_grid(tasks: list[Task], work: Path, jobs: int, minutes: float) -> None:
    """Compute what is missing, ``jobs`` cells at a time; no cell is begun after ``minutes``."""
    by_name = {task.name: task for task in tasks}
    for task in tasks:
        marker = work / task.name / "prepared"
        if not marker.exists():
            print(f"preparing {task.name}", flush=True)
            (work / task.name).mkdir(parents=True, exist_ok=True)
            task.prepare(work)
            write_text(marker, "")
    missing = to_compute(ordered(tasks), work)
    amp = "native" if has_bf16() else "off"
    print(f"{len(missing)} cells to compute, with --amp {amp}", flush=True)
    end = time.monotonic() + 60 * minutes
    running: dict[Future[str], Cell] = {}
    with ThreadPoolExecutor(jobs) as pool:
        while missing or running:
            waiting = {*missing, *running.values()}
            for cell in list(missing):
                if len(running) < jobs and time.monotonic() < end and cell.start not in waiting:
                    missing.remove(cell)
                    running[pool.submit(compute, cell, work, by_name[cell.task], amp)] = cell
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                print(future.result(), flush=True)
                running.pop(future)
    print(f"{len(missing)} cells are left", flush=True)


def main() -> None:
    """Compute and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for data, runs and weights (some GB)")
    parser.add_argument("--msd", type=Path, help="Task04_Hippocampus of the Medical Segmentation Decathlon")
    parser.add_argument("--chest14", type=Path, help="real X-rays: images/ and labels.txt")
    parser.add_argument("--task", choices=("hippocampus", "xrays", "chest14"), help="this one alone")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each (2)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after these, begin no more runs")
    parser.add_argument("--report", action="store_true", help="compute nothing")
    options = parser.parse_args()
    if not options.report:
        if not options.work:
            parser.error("--work: name a folder")
        work = options.work.resolve()
        tasks = [hippocampus(options.msd.resolve(), work)] if options.msd else []
        tasks += [xrays(work)]
        tasks += [chest14(options.chest14.resolve(), work)] if options.chest14 else []
        compute_grid([task for task in tasks if options.task in (None, task.name)], work, options.jobs, options.minutes)
    report()


if __name__ == "__main__":
    main()
