"""Kill a small run twenty times with SIGKILL, resume it each time, and compare it with one that never stopped.

    python benchmarks/soak_resume.py [--kills 20]

Half of the kills hit a run in float32, half one in bf16. Of each ten, three fall before the first save, four inside
the write of a checkpoint, three in between. After each kill every checkpoint in the folder is read. The final
weights, queue and optimizer must have the same bits as those of the uninterrupted run, and so must the loss
columns of metrics.jsonl.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
EPOCHS, SAMPLES, BATCH = 6, 6, 2
STEPS = EPOCHS * SAMPLES // BATCH
TIMINGS = ("samples_per_s", "data_wait")


def write_pairs(folder: Path) -> None:
    """Six pairs of 16 x 16 x 16 voxels."""
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


def kill_at(process: subprocess.Popen[bytes], output: Path, kind: str, step: int) -> str:
    """Wait for the moment and kill; -> what was killed."""
    while process.poll() is None:
        writing = any(output.glob(".last.pt.*.tmp"))
        early = kind == "before the first save" and (output / "run.json").exists()
        if early or (steps_done(output) >= step and (writing or kind == "between")):
            break
        time.sleep(0.001)
    process.kill()
    process.wait()
    return f"{kind}, {steps_done(output)} steps logged"


def read_all(output: Path) -> int:
    """Read every checkpoint; an unreadable one raises."""
    paths = list(output.glob("*.pt"))
    for path in paths:
        torch.load(path, weights_only=True)
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


def soak(data: Path, folder: Path, amp: str, kills: int) -> bool:
    """One precision: the uninterrupted run, the killed one, the comparison."""
    reference, output = folder / f"reference_{amp}", folder / f"killed_{amp}"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(command(data, reference, amp), check=True, **quiet)
    for number in range(kills):
        kind = "before the first save" if number < 3 else "inside a write" if number % 2 else "between"
        step = max(1, (number - 2) * STEPS // kills)
        what = kill_at(subprocess.Popen(command(data, output, amp), **quiet), output, kind, step)
        print(f"{amp:6}  kill {number + 1:2}: {what}; {read_all(output)} checkpoints there, all readable", flush=True)
    subprocess.run(command(data, output, amp), check=True, **quiet)
    (ours, our_rows), (expected, expected_rows) = final(output), final(reference)
    parts = ("model", "model_ema", "contrast", "optimizer", "epoch", "torch_rng")
    wrong = [where for part in parts for where in differing(ours[part], expected[part], part)]
    wrong += [] if our_rows == expected_rows else ["metrics.jsonl"]
    print(f"{amp:6}  after {kills} kills: {'the same bits' if not wrong else 'DIFFERENT in ' + ', '.join(wrong[:5])}")
    return not wrong


def main() -> int:
    """Soak both precisions; exit status 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    kills = parser.parse_args().kills
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder / "data")
        good = [soak(folder / "data", folder, amp, kills // 2) for amp in ("off", "native")]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
