"""Does pre-training help where labels are few? The protocol of docs/EVIDENCE.md, as one command that can be stopped.

    python benchmarks/evidence.py --nih FOLDER --work FOLDER --budget 2h [--device auto] [--msd FOLDER] [--nodules]
    python benchmarks/evidence.py --report [--write]

Each cell of the protocol is a run or two of ``main.py``. Its result is a small file in ``benchmarks/evidence``, written
as soon as it is known. When the budget ends, runs save and end, and what is left is listed; the same command goes on
with it. ``--report`` prints the tables of what is there, and what is missing; ``--write`` puts them and the figure into
docs/EVIDENCE.md and docs/EVIDENCE_TABLES.md, and the curves into docs/RECIPES.md.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.evidence_cells import Failed, Machine, Unfinished, compute, is_kept, load_results
from benchmarks.evidence_data import ROOT, SCANS_LABELLED, prepare_hippocampus, prepare_nih, prepare_nodules
from benchmarks.evidence_protocol import (
    ALL_DRAWS,
    ARMS,
    MORE_DRAWS,
    Cell,
    Task,
    hippocampus,
    nih,
    nodules,
    plan,
)
from utils.cli import Parser
from utils.cores import available_cores
from utils.errors import UserError, run_cli
from utils.files import write_text

RESULTS = ROOT / "benchmarks" / "evidence"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
ON_A_GPU = 9  # cells at a time: those of 64 x 64 pixels leave most of a card idle


def seconds_of(text: str) -> float:
    """``2h``, ``90m``, ``1h30m`` -> seconds. argparse.ArgumentTypeError for anything else."""
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        raise argparse.ArgumentTypeError(f"{text}: give a time such as 90m, 2h or 1h30m")
    return sum(float(number) * UNITS[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)([smhd])", text))


def left_over(tasks: Sequence[Task], arms: Sequence[str], machine: Machine) -> list[Cell]:
    """The cells to compute: those without a result, and pre-trainings whose weights these need and are not here."""
    results = load_results(machine.results)
    cells = plan(tasks, arms, results)
    missing = [cell for cell in cells if not is_kept(cell, results)]
    wanted = {cell.start for cell in missing} - {""}
    lost = {name for name in wanted if machine.weights(name) is None}
    return [cell for cell in cells if cell in missing or cell.name in lost]


def compute_all(
    tasks: Sequence[Task], arms: Sequence[str], machine: Machine, jobs: int, seconds: float
) -> tuple[list[Cell], dict[str, str]]:
    """Compute cells, ``jobs`` at a time, until none is left or the time is up; -> what is left, and what failed."""
    end, failed = time.monotonic() + seconds, dict[str, str]()
    by_name = {task.name: task for task in tasks}
    running: dict[Future[dict[str, Any]], Cell] = {}
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while time.monotonic() < end:
                left = left_over(tasks, arms, machine)
                waiting, busy = {cell.name for cell in left}, {cell.name for cell in running.values()}
                for cell in left:
                    ready = cell.runs and not waiting & {*cell.needs, cell.start}
                    if len(running) < jobs and ready and cell.name not in busy | failed.keys():
                        running[pool.submit(compute, cell, by_name[cell.task], machine)] = cell
                if not running:
                    return left, failed
                for future in wait(running, min(3600, max(0, end - time.monotonic())), FIRST_COMPLETED).done:
                    _tell(running.pop(future), future, failed, len(left) - 1)
            print("the budget is used up: runs save and end", flush=True)
        finally:
            machine.end()
    for future, cell in running.items():
        _tell(cell, future, failed)
    return left_over(tasks, arms, machine), failed


def _tell(cell: Cell, future: Future[dict[str, Any]], failed: dict[str, str], left: int | None = None) -> None:
    try:
        result = future.result()
    except Unfinished:
        print(f"{cell.name}: stopped, to go on with", flush=True)
    except Failed as error:
        failed[cell.name] = str(error)
        print(f"{cell.name}: {error}", flush=True)
    else:
        shown = result.get("auroc") or {name: result[name] for name in ("tried", "valid") if name in result}
        words = ", ".join(f"{name} {value}" for name, value in shown.items())
        more = "" if left is None else f"; {left} left"
        print(f"{cell.name}: {words}{', ' * bool(words)}{result['minutes']} min{more}", flush=True)


def say_left(left: Sequence[Cell], failed: dict[str, str]) -> None:
    """What is left, by task, arm and kind."""
    for name, why in failed.items():
        print(f"failed: {name}: {why}")
    counts = Counter((cell.task, cell.facts["arm"], cell.kind) for cell in left)
    print(f"{len(left)} cells are left" + (", by task, arm and kind:" if left else ""))
    for words, count in counts.items():
        print(f"  {' '.join(words)}: {count}")


def prepared(work: Path, name: str, source: Path | None, prepare: Callable[[], None], newest: str = "") -> None:
    """Prepare a task's data, once. UserError if its ``source`` is not there, or another one than before.

    ``newest``: a file that an earlier version did not write; without it, the data are prepared again.
    """
    own = work / name
    if source and not source.is_dir():
        raise UserError(f"{source}: no such folder")
    if (own / "prepared").exists():
        former = (own / "prepared").read_text(encoding="utf-8")
        if source and former and former != str(source):
            raise UserError(f"--work {work} was begun with the data in {former}, not {source}; give another --work")
        if (own / newest).exists():
            return
    print(f"preparing {name}", flush=True)
    made = [folder for folder in (own, work) if not folder.exists()]
    own.mkdir(parents=True, exist_ok=True)
    try:
        prepare()
    except UserError:
        for folder in made:
            with suppress(OSError):  # something is in it
                folder.rmdir()
        raise
    write_text(own / "prepared", str(source or ""))


def tasks_of(options: argparse.Namespace, work: Path, on_gpu: bool) -> list[Task]:
    """The tasks whose data are named, prepared."""
    found, newest = [], f"draw{MORE_DRAWS[-1]}"
    if options.nih:
        source = options.nih.resolve()
        prepare = partial(prepare_nih, source, work / "nih", options.results, ALL_DRAWS)
        prepared(work, "nih", source, prepare, f"{newest}.txt")
        found.append(nih(work, narrow=options.narrow))
    if options.nodules:
        prepare = partial(prepare_nodules, work / "nodules", options.results, ALL_DRAWS)
        prepared(work, "nodules", None, prepare, f"labelled{min(SCANS_LABELLED)}_{newest}")
        found.append(nodules(work, on_gpu, options.narrow))
    if options.msd:
        scans, own = options.msd.resolve(), work / "hippocampus"
        prepared(work, "hippocampus", scans, lambda: prepare_hippocampus(scans, own, options.results))
        found.append(hippocampus(work, on_gpu, options.narrow))
    if not found:
        raise UserError("there is nothing to compute: give --nih FOLDER, --msd FOLDER or --nodules")
    return found


def at_least_one(text: str) -> int:
    """A number of 1 and more. argparse.ArgumentTypeError for anything else."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number of at least 1")
    return int(text)


def parser() -> Parser:
    """Of the command."""
    made = Parser(description=__doc__)
    made.add_argument("--nih", type=Path, metavar="FOLDER", help="X-rays: images_64/, labels.txt and classes.txt")
    made.add_argument(
        "--msd", type=Path, metavar="FOLDER", help="Task04_Hippocampus of the Decathlon: imagesTr/, labelsTr/"
    )
    made.add_argument("--nodules", action="store_true", help="nodules in CT phantoms, which are made in --work")
    made.add_argument("--work", type=Path, metavar="FOLDER", help="for data, runs and weights (10 GB); needed to go on")
    made.add_argument(
        "--budget", type=seconds_of, default=float("inf"), metavar="TIME", help="90m, 2h (default: no end)"
    )
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    made.add_argument("--jobs", type=at_least_one, metavar="N", help=f"cells at a time (a GPU: {ON_A_GPU}; else 2)")
    made.add_argument(
        "--narrow", type=int, choices=(1, 2, 4, 8), default=1, help="divide the channels; reported by itself"
    )
    made.add_argument("--arms", default=",".join(ARMS), help=f"some of {','.join(ARMS)}")
    made.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="default: benchmarks/evidence")
    made.add_argument("--report", action="store_true", help="compute nothing, print what is there")
    made.add_argument("--write", action="store_true", help="with --report: into the pages of docs/, and the figure")
    return made


def machine_of(options: argparse.Namespace, work: Path) -> Machine:
    """The GPU, if there is one and it is wanted, or the processor; in bf16 where it has that."""
    import torch  # late: --report needs none

    from benchmarks.roofline import has_bf16

    gpu = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    if gpu and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU here")
    return Machine(work, options.results, gpu, "native" if gpu or has_bf16() else "off")


def main() -> int:
    """Compute, or report."""
    options = parser().parse()
    arms = options.arms.split(",")
    if unknown := set(arms) - ARMS.keys():
        raise UserError(f"--arms {', '.join(sorted(unknown))}: not known; choose from {', '.join(ARMS)}")
    if options.report:
        from benchmarks.evidence_report import report

        if not options.results.is_dir():
            raise UserError(f"--results {options.results}: no such folder")
        report(options.results, write=options.write)
        return 0
    if options.write:
        raise UserError("--write goes with --report")
    if not options.work:
        raise UserError("--work: name a folder for data, runs and weights")
    if options.narrow > 1 and "imagenet" in arms:
        print("imagenet is left out: its weights do not fit networks of --narrow", flush=True)
    begin, work = time.monotonic(), options.work.resolve()
    machine = machine_of(options, work)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _interrupt)
    jobs = options.jobs or (max(1, min(ON_A_GPU, available_cores() - 1)) if machine.gpu else min(2, available_cores()))
    try:
        tasks = tasks_of(options, work, machine.gpu)
        print(f"{jobs} cells at a time, {'GPU' if machine.gpu else 'CPU'}, --amp {machine.amp}", flush=True)
        left, failed = compute_all(tasks, arms, machine, jobs, options.budget - (time.monotonic() - begin))
    except KeyboardInterrupt:
        print("stopped; the same command goes on")
        return 130
    say_left(left, failed)
    return 1 if failed else 0


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    run_cli(main)
