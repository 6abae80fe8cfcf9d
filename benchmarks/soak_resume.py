"""Kill small runs a hundred times with SIGKILL, resume each time, and compare with runs that never stopped.

    python benchmarks/soak_resume.py [--kills 100]

Three kinds of run: 2D in float32 that keeps its best state, 3D in bf16 with a network of half the width, and 2D in two
processes. A kill falls before
the first save; inside the write of last.pt (its temporary file is there), of metrics.jsonl (a row is there that no
checkpoint knows of, and is cut in half) or of best.pt (its temporary link is there); between the save of last.pt and
the link of best.pt; or between writes. What fell elsewhere is counted where it fell, and tried again. A run that ends
is compared, and the next kills hit a new one. After each kill every file in the folder is read. At the end the weights,
queue, optimizer and best.pt must have the same bits as those of the run that never stopped, and metrics.jsonl the same
rows. About 20 minutes on two idle cores for a hundred kills.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

if __package__ in (None, ""):  # run as a script, from any folder: imports start at the project's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.soak_runs import (
    BEST,
    BETWEEN,
    BY_ITSELF,
    DIE_AT,
    FAMILIES,
    FIRST,
    LAST,
    LINK,
    ROW,
    Family,
    Run,
    die_at,
    write_data,
)
from utils import torch_file

TIMINGS = ("images_per_s", "data_wait", "memory_gb")  # columns of the log that tell nothing of the state
PARTS = ("model", "model_ema", "contrast", "optimizer", "epoch", "step", "torch_rng", "best", "best_epoch")


def it_is_time(run: Run, kind: str, rows: int, fraction: float, whole: int) -> bool:
    """Whether a kill would fall there now; ``rows``: of the log at least, ``fraction`` of a checkpoint of ``whole``."""
    if kind == FIRST:
        return not run.half()
    if kind in BY_ITSELF or run.rows() < rows:
        return False
    half = run.half()
    return half > fraction * whole if kind == LAST else not half


def where_it_fell(run: Run, kind: str) -> str:
    """Where the kill has fallen, as the folder shows."""
    if kind in BY_ITSELF:
        return kind
    if run.half():
        return LAST
    if not (run.output / "last.pt").exists():
        return FIRST
    if kind == ROW and run.saved_steps() < run.rows():
        log = run.output / "metrics.jsonl"
        text = log.read_bytes()
        log.write_bytes(text[: -max(2, len(text.splitlines()[-1]) // 2)])
        return ROW
    return BETWEEN


def kill_once(run: Run, kind: str, rng: np.random.Generator) -> str | None:
    """Go on with the run and kill it when it is time; -> where it fell, None if the run came to its end before."""
    former, rows = run.begun(), run.rows() + int(rng.integers(1, 3))
    last = run.output / "last.pt"
    whole = last.stat().st_size if last.exists() else 0
    delay = rng.uniform(0, 0.5) if kind == BETWEEN else 0
    fraction = rng.uniform(0, 0.9)
    run.start(BY_ITSELF.get(kind, ""))
    while run.process.poll() is None:
        if run.begun() != former and it_is_time(run, kind, rows, fraction, whole):
            time.sleep(delay)
            run.kill(saving=kind == LAST)
            return where_it_fell(run, kind) if run.process.returncode else None
        time.sleep(0.0005)
    if run.process.returncode == -signal.SIGKILL:
        return where_it_fell(run, kind)
    run.finish()
    return None


def read_all(output: Path) -> int:
    """Read every file but temporary ones; an unreadable one raises. -> their number"""
    paths = [path for path in output.rglob("*") if path.is_file() and not path.name.startswith(".")]
    for path in paths:
        if path.suffix == ".pt":
            torch_file.check(path)
            torch.load(path, weights_only=True)
        elif path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
        elif path.name == "run.json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n"):  # the last row may be half a row
                    json.loads(line)
    return len(paths)


def differing(a: Any, b: Any, where: str) -> list[str]:
    """Where two nested containers differ in any bit."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict):
        return [f for k in a for f in differing(a[k], b[k], f"{where}.{k}")] if a.keys() == b.keys() else [where]
    if isinstance(a, list):
        return [f for i, (x, y) in enumerate(zip(a, b, strict=True)) for f in differing(x, y, f"{where}[{i}]")]
    return [] if a == b else [where]


def different(output: Path, reference: Path, family: Family) -> list[str]:
    """In what a killed run that has ended differs from one that never stopped."""
    wrong = []
    for name in (family.final, *(["best.pt"] if (reference / "best.pt").exists() else [])):
        if not (output / name).exists():
            return [f"no {name}"]
        ours, expected = (torch.load(folder / name, weights_only=True) for folder in (output, reference))
        parts = [*PARTS, *(["rank_buffers"] if family.processes > 1 else [])]
        wrong += [f"{name}: {where}" for part in parts for where in differing(ours[part], expected[part], part)]
    ours_rows, expected_rows = (
        [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in log.read_text().splitlines()]
        for log in (output / "metrics.jsonl", reference / "metrics.jsonl")
    )
    return wrong + ([] if ours_rows == expected_rows else ["metrics.jsonl"])


@dataclass
class Result:
    """Of a family: how many kills fell where, how many ended runs were compared, and what differed."""

    family: Family
    fell: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    wrong: list[str] = field(default_factory=list)


def next_kind(pending: Counter[str], fresh: bool) -> str | None:
    """What to try next: before the first save only a run without one can be killed."""
    wanted = [kind for kind, count in pending.items() if count > 0 and (fresh or kind != FIRST)]
    if fresh and FIRST in wanted:
        return FIRST
    return max(wanted, key=lambda kind: pending[kind], default=None)


def soak(family: Family, data: Path, folder: Path, kills: int, seed: int) -> Result:
    """Kill runs of a family until each kind has had its share of ``kills``, and compare those that come to an end."""
    rng, result = np.random.default_rng(seed), Result(family)
    reference = Run(family, data, folder / "reference")
    reference.start()
    reference.finish()
    pending = Counter({kind: max(1, round(count * kills / 100)) for kind, count in family.kills.items()})
    while +pending:
        run = Run(family, data, folder / f"killed_{result.compared}")
        ended = False
        while not ended and (kind := next_kind(pending, fresh=not (run.output / "last.pt").exists())):
            fell = kill_once(run, kind, rng)
            ended = fell is None
            files = read_all(run.output)
            if fell:
                pending[fell] -= 1
                result.fell[fell] += 1
                number = f"kill {sum(result.fell.values())}"
                print(f"{family.name:16} {number:9} {fell}; {files} files there, all readable", flush=True)
        if not ended:
            run.start()
            run.finish()
            read_all(run.output)
        found = different(run.output, reference.output, family)
        result.compared += 1
        result.wrong += found
        print(
            f"{family.name:16} ended: {'the same bits' if not found else 'DIFFERENT: ' + ', '.join(found[:5])}",
            flush=True,
        )
        shutil.rmtree(run.output)
    return result


def tell(results: Sequence[Result], seconds: float) -> bool:
    """Print how many kills fell where, and the verdict; -> whether all is well."""
    kinds = (FIRST, LAST, ROW, BEST, LINK, BETWEEN)
    print(f"\n{'kills':32}" + "".join(f"{result.family.name:>18}" for result in results) + f"{'all':>6}")
    for kind in kinds:
        counts = [result.fell[kind] for result in results]
        print(f"{kind:32}" + "".join(f"{count:18}" for count in counts) + f"{sum(counts):6}")
    totals = [sum(result.fell.values()) for result in results]
    print(f"{'all':32}" + "".join(f"{total:18}" for total in totals) + f"{sum(totals):6}")
    print(f"{'runs that ended, compared':32}" + "".join(f"{result.compared:18}" for result in results))
    wrong = [f"{result.family.name}: {where}" for result in results for where in result.wrong]
    verdict = "the same bits as runs that never stopped" if not wrong else f"DIFFERENT: {'; '.join(wrong[:10])}"
    print(f"\nafter {sum(totals)} kills with SIGKILL, in {seconds / 60:.0f} minutes: {verdict}")
    return not wrong


def main() -> int:
    """Soak all families, two at a time; exit status 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="about so many, a part of each kind (default: 100)")
    parser.add_argument("--only", default="", help="families whose names begin so")
    arguments = parser.parse_args()
    families = [family for family in FAMILIES if family.name.startswith(arguments.only)]
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        write_data(Path(name) / "data")
        jobs = []
        for seed, family in enumerate(families):
            folder = Path(name) / str(seed)
            folder.mkdir()
            jobs.append(pool.submit(soak, family, Path(name) / "data", folder, arguments.kills, seed))
        results = [job.result() for job in jobs]
    return 0 if tell(results, time.monotonic() - started_at) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == [DIE_AT]:
        die_at(sys.argv[2])
    sys.exit(main())
