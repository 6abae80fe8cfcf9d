"""Whether the composed upsampling and the recomputation of normalised maps pay: our step with and without them.

    python benchmarks/forms.py [--dims 2|3] [--size 64x64x32] [--batch N] [--repeats N] [--precision bfloat16]
                               [--clock cpu] [--device cuda]

A process for each combination, by turns, after a step each to warm up. The ratio of times is to the step with both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.step import BATCH, CLOCKS, SIZES, Case, Measured, size_of, work
from benchmarks.table import machine
from models.forms import FORMS, Forms

WAYS = {
    "both": Forms(),
    "no composed upsampling": Forms(composed=False),
    "no recomputation": Forms(recomputed=False),
    "neither": Forms(composed=False, recomputed=False),
}


def start(case: Case, forms: Forms) -> subprocess.Popen[str]:
    """A process that takes a step for each line."""
    command = [sys.executable, __file__, "--worker", json.dumps([case, asdict(forms)])]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)


def ask(process: subprocess.Popen[str]) -> Measured:
    """One step of it."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("step\n")
    return Measured(*json.loads(process.stdout.readline()))


def measure(case: Case, repeats: int) -> dict[str, list[Measured]]:
    """All ways by turns."""
    with ExitStack() as stack:
        processes = {way: stack.enter_context(start(case, forms)) for way, forms in WAYS.items()}
        rounds = [{way: ask(process) for way, process in processes.items()} for _ in range(repeats + 1)]
    return {way: [each[way] for each in rounds[1:]] for way in WAYS}


def show(found: dict[str, list[Measured]], clock: str) -> None:
    """Rows of a table in Markdown."""
    print("| | ms | ratio min / median / max | peak MB |")
    print("|---|---|---|---|")
    both = [measured.milliseconds[clock] for measured in found["both"]]
    for way, steps in found.items():
        times = [measured.milliseconds[clock] for measured in steps]
        ratios = [time / of_both for time, of_both in zip(times, both, strict=True)]
        spread = f"{min(ratios):.2f} / {median(ratios):.2f} / {max(ratios):.2f}"
        print(f"| {way} | {median(times):.0f} | {spread} | {steps[-1].peak_mb:.0f} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, choices=list(SIZES), default=3)
    parser.add_argument("--size", type=size_of, default=(), help="of an image, such as 64x64x32")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: for a machine in use")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options: Any = parser.parse_args()
    if options.worker:
        case, forms = json.loads(options.worker)
        FORMS.composed, FORMS.recomputed = forms["composed"], forms["recomputed"]
        work(Case(*case))
        return 0
    batch, size = options.batch or BATCH[options.dims], options.size or SIZES[options.dims]
    case = Case("ours", options.precision, options.dims, batch, size, options.device, options.clock)
    print(f"{machine()}\n{options.dims}D, {'x'.join(map(str, size))}, batch {batch}, {options.precision}\n")
    show(measure(case, options.repeats), options.clock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
