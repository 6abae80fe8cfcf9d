"""Does the demo's pre-training raise a probe? Pre-trains with several seeds, and probes before and after.

python -m benchmarks.demo_probe --data FOLDER [--seeds 5] [--epochs 40] [-- FLAGS of main.py, as --model pcrlv2]

FOLDER has X-rays and labels as preprocess/phantoms.py writes them (SAVE/Chest14). Half of the patients teach, the
others are judged; a seed draws the network, the order, the views, and which patients teach.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from utils.errors import UserError, run_cli

ROOT = Path(__file__).resolve().parents[1]
DEMO = "--n chest --size 64 --narrow 4 --b 8 --optimizer adamw --lr 2e-3 --ratio 1.0 --image_every 0 --train_list none"
PROBES = ("probe_knn", "probe_linear")
Scores = dict[str, tuple[float, float]]  # by probe, before and after


def pretrained(data: Path, labels: Path, seed: int, epochs: int, flags: list[str], output: Path) -> Scores:
    """Pre-train with a seed; UserError if it fails."""
    words = [*DEMO.split(), "--data", data, "--probe_list", labels, "--probe_every", epochs, "--epochs", epochs]
    command = [sys.executable, ROOT / "main.py", *words, "--seed", seed, "--output", output, *flags]
    ran = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise UserError(f"seed {seed}: {ran.stderr.strip() or 'no message'}")
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    before, *_, after = (row for row in rows if PROBES[0] in row)
    return {probe: (before[probe], after[probe]) for probe in PROBES}


def main() -> None:
    """Print a row for each seed, and how many of them rose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("flags", nargs="*", help="of main.py, after --")
    args = parser.parse_args()
    found: list[Scores] = []
    print("| seed | k-NN before | after | linear before | after |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.txt"
        labels.write_text("".join((args.data / f"chest_{part}.txt").read_text() for part in ("train", "valid", "test")))
        for seed in range(args.seeds):
            output = Path(folder) / str(seed)
            found.append(pretrained(args.data, labels, seed, args.epochs, args.flags, output))
            cells = [f"{value:.3f}" for probe in PROBES for value in found[-1][probe]]
            print(f"| {seed} | {' | '.join(cells)} |", flush=True)
    for probe in PROBES:
        rose = sum(after > before for before, after in (scores[probe] for scores in found))
        print(f"{probe}: rose in {rose} of {len(found)}")


if __name__ == "__main__":
    run_cli(main)
