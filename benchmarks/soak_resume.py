"""Kill a small run twenty times with SIGKILL, resume it each time, and compare it with one that never stopped.

    python benchmarks/soak_resume.py [--kills 20]

Half of the kills hit a run in float32, half one in bf16. Of each ten, three fall before the first save, four inside
the write of a checkpoint (its temporary file is left behind: a kill that came too late does not count), three in
between. After each kill every file in the folder is read. The final weights, queue and optimizer must have the same
bits as those of the uninterrupted run, and so must the loss columns of metrics.jsonl.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

if __package__ in (None, ""):  # run as a script, from any folder: imports start at the project's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils import torch_file

ROOT = Path(__file__).resolve().parents[1]
EPOCHS, SAMPLES, BATCH = 3, 4, 2
STEPS = EPOCHS * SAMPLES // BATCH
TIMINGS = ("images_per_s", "data_wait", "memory_gb")
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def write_pairs(folder: Path) -> None:
    """Four pairs of 16 x 16 x 16 voxels."""
    rng = np.random.default_rng(0)
    (folder / "subset0").mkdir(parents=True)
    for k in range(SAMPLES):
        np.save(folder / "subset0" / f"1.2.{k}_img_0.npy", rng.random((2, 16, 16, 16), dtype=np.float32))


def command(data: Path, output: Path, amp: str) -> list[str]:
    """A run that saves at every step, as a child process."""
    flags = f"--b {BATCH} --epochs {EPOCHS} --ratio 1.0 --workers 2 --log_every 1 --save_minutes 0 --resume auto"
    paths = ["--data", str(data), "--output", str(output)]
    return [sys.executable, str(ROOT / "main.py"), *paths, *flags.split(), "--amp", amp]


def steps_done(output: Path) -> int:
    """Rows in the log."""
    log = output / "metrics.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def started(output: Path) -> int:
    """When the latest run wrote ``run.json``, which is before its first step; 0 for never."""
    record = output / "run.json"
    return record.stat().st_mtime_ns if record.exists() else 0


def halves(output: Path) -> set[str]:
    """The checkpoints under way."""
    return {path.name for path in output.glob(".last.pt.*.tmp")}


def kill_once(run: list[str], output: Path, kind: str, step: int) -> bool:
    """Start the run, kill it when it is time; -> whether the kill fell where it should."""
    former = started(output)
    process = subprocess.Popen(run, **QUIET)
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"the run ended, with status {process.returncode}, before it could be killed")
        if started(output) != former:  # it holds the folder and has swept it
            if kind == "before the first save":
                break
            if steps_done(output) >= step and bool(halves(output)) == (kind == "inside a write"):
                break
        time.sleep(0.001)
    process.kill()
    process.wait()
    if kind == "before the first save":
        return not (output / "last.pt").exists()
    return bool(halves(output)) == (kind == "inside a write")


def read_all(output: Path) -> int:
    """Read every file but temporary ones; an unreadable one raises."""
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


def final(output: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The last checkpoint and the log without its timings."""
    checkpoint = torch.load(output / f"pcrl_luna_pretask_1.0_{EPOCHS}.pt", weights_only=True)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return checkpoint, [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows]


def differing(a: Any, b: Any, where: str) -> list[str]:
    """Where two nested containers differ in any bit."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict):
        return [f for k in a for f in differing(a[k], b[k], f"{where}.{k}")] if a.keys() == b.keys() else [where]
    if isinstance(a, list):
        return [f for i, (x, y) in enumerate(zip(a, b, strict=True)) for f in differing(x, y, f"{where}[{i}]")]
    return [] if a == b else [where]


def soak(data: Path, folder: Path, amp: str, kills: int) -> Counter[str]:
    """One precision: the uninterrupted run, the killed one, the comparison; -> kills by kind, and differences."""
    reference, output = folder / f"reference_{amp}", folder / f"killed_{amp}"
    subprocess.run(command(data, reference, amp), check=True, **QUIET)
    counts: Counter[str] = Counter()
    for number in range(kills):
        kind = "before the first save" if number < 3 else "inside a write" if number % 2 else "between"
        step = max(1, (number - 2) * (STEPS - 2) // kills)
        while not kill_once(command(data, output, amp), output, kind, step):
            counts["late"] += 1
            print(f"{amp:6}  a kill meant to fall {kind} fell elsewhere; {read_all(output)} files, all readable")
        counts[kind] += 1
        where = f"{kind}, {steps_done(output)} steps logged"
        print(f"{amp:6}  kill {number + 1:2}: {where}; {read_all(output)} files there, all readable", flush=True)
    subprocess.run(command(data, output, amp), check=True, **QUIET)
    read_all(output)
    (ours, our_rows), (expected, expected_rows) = final(output), final(reference)
    parts = ("model", "model_ema", "contrast", "optimizer", "epoch", "torch_rng")
    wrong = [where for part in parts for where in differing(ours[part], expected[part], part)]
    wrong += [] if our_rows == expected_rows else ["metrics.jsonl"]
    print(f"{amp:6}  after {kills} kills: {'the same bits' if not wrong else 'DIFFERENT in ' + ', '.join(wrong[:5])}")
    counts["different"] = len(wrong)
    return counts


def main() -> int:
    """Soak both precisions; exit status 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    kills = parser.parse_args().kills
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder / "data")
        started_at = time.monotonic()
        counts = soak(folder / "data", folder, "off", kills // 2) + soak(folder / "data", folder, "native", kills // 2)
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in ("before the first save", "inside a write", "between"))
    print(f"{kinds}; {counts['late']} more elsewhere; {time.monotonic() - started_at:.0f} s")
    return 1 if counts["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
