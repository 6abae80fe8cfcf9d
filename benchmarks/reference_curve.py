"""What the loss terms of a healthy run look like: pre-training on X-rays of phantoms, drawn and printed.

    python benchmarks/reference_curve.py --work FOLDER [--epochs 85] [--draw]

64 X-rays, so that an epoch is 4 steps; in 85 epochs the queue of 16,384 keys has been filled once. 40 minutes at the
2.4 images/s of two cores of an AMD EPYC. Interrupted, it goes on where it was; ``--draw`` shows what there is so far.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.curves import draw_curves, read_rows

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "reference_curve.png"
SHOWN = ("nce", "nce_mixup", "nce_mixed_key", "rec", "rec_mixed", "rec_mixup", "rec_mixup_mixed")
MORE = ("feature_spread", "similarity_positive", "queue_filled")
AT = (1, 2, 5, 10, 20, 40, 60, 85)


def main() -> None:
    """Make the data, train, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the data and the run")
    parser.add_argument("--epochs", type=int, default=85)
    parser.add_argument("--draw", action="store_true", help="do not train")
    options = parser.parse_args()
    if not options.draw:
        train(options.work, options.epochs)
    show(options.work / "run")


def train(work: Path, epochs: int) -> None:
    """Make the data, and train on it in ``work/run``."""
    data, output = work / "phantoms", work / "run"
    if not (data / "Chest14" / "chest_train.txt").exists():
        making = ["--scans", "0", "--patients", "92", "--xrays_per_patient", "1", "--size", "256"]
        subprocess.run([sys.executable, str(ROOT / "preprocess/phantoms.py"), "--save", str(data), *making], check=True)
    flags = f"--n chest --b 16 --ratio 1.0 --epochs {epochs} --optimizer adamw --lr 1e-3 --amp native --workers 0"
    flags += " --log_every 1 --save_minutes 5 --image_every 0 --resume auto"
    command = [sys.executable, str(ROOT / "main.py"), "--data", str(data / "Chest14"), "--output", str(output)]
    print("python main.py --data Chest14", flags, flush=True)
    subprocess.run([*command, *flags.split()], check=True)


def show(output: Path) -> None:
    """Draw the run into the docs, and print its numbers at some epochs: means over an epoch."""
    rows = read_rows(output / "metrics.jsonl")
    draw_curves(output / "metrics.jsonl", PICTURE, "pre-training on 64 X-rays of phantoms, --b 16, Adam, 1e-3")
    print("| epoch | " + " | ".join((*SHOWN, *MORE)) + " |")
    print("|---" * (1 + len(SHOWN) + len(MORE)) + "|")
    for epoch in sorted({number for number in AT if number <= rows[-1]["epoch"]} | {rows[-1]["epoch"]}):
        own = [row for row in rows if row["epoch"] == epoch]
        cells = [f"{mean(row[name] for row in own):.3g}" for name in (*SHOWN, *MORE)]
        print(f"| {epoch} | " + " | ".join(cells) + " |")
    print(PICTURE.relative_to(ROOT))


if __name__ == "__main__":
    main()
