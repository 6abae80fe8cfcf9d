"""What the earlier protocol of docs/EVIDENCE.md found, and the curves of its reference run for docs/LEARNING.md."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "evidence"
PICTURE = ROOT / "docs" / "images" / "reference_curve.png"
ARMS = {
    "scratch": "from scratch",
    "pcrl": "PCRL",
    "no_reconstruction": "PCRL without reconstruction",
    "no_contrast": "PCRL without contrast",
}
TASKS = {  # the task -> its title, what is counted, and the score
    "hippocampus": ("Hippocampus: segmentation of real MR volumes", "volumes", "mean Dice"),
    "xrays": ("Phantoms: findings on projected X-rays", "images", "mean AUROC"),
    "chest14": ("ChestX-ray14: 240 real X-rays", "images", "mean AUROC"),
}
REFERENCE = "xrays_pretrain_pcrl_seed0"  # the cell whose curves show what a run looks like
REFERENCE_EPOCHS = (1, 2, 5, 10, 15)
REFERENCE_TERMS = (
    *("nce", "nce_mixup", "nce_mixed_key", "rec", "rec_mixed", "rec_mixup", "rec_mixup_mixed"),
    *("feature_spread", "similarity_positive", "similarity_queue", "queue_filled"),
)
Runs = Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]  # by arm and number of labels


def read_results(task: str) -> Runs:
    """The fine-tuned cells of a task that are there."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(RESULTS.glob(f"{task}_labels*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        runs[found["arm"], found["labels"]].append(found)
    return runs


def label_counts(runs: Runs) -> list[int]:
    """The columns of a task."""
    return sorted({labels for _, labels in runs})


def table(task: str, runs: Runs) -> str:
    """Mean and standard deviation over the seeds of the score on the test part, as Markdown."""
    title, what, score = TASKS[task]
    counts = label_counts(runs)
    lines = [f"{title}: {score} on the test part, mean +- standard deviation over seeds (their number)", ""]
    lines.append("| | " + " | ".join(f"{count} {what}" for count in counts) + " |")
    lines.append("|---" * (len(counts) + 1) + "|")
    for arm, words in ARMS.items():
        cells = []
        for count in counts:
            scores = [run["score"] for run in runs.get((arm, count), ())]
            spread = f" +- {np.std(scores, ddof=1):.3f}" if len(scores) > 1 else ""
            cells.append(f"{np.mean(scores):.3f}{spread} ({len(scores)})" if scores else "")
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gains(runs: Runs) -> str:
    """The difference to training from scratch with the same labels and seed, as Markdown."""
    counts = label_counts(runs)
    lines = ["The same seed and labels from scratch, subtracted:", ""]
    lines.append("| | " + " | ".join(map(str, counts)) + " |")
    lines.append("|---" * (len(counts) + 1) + "|")
    for arm, words in list(ARMS.items())[1:]:
        cells = []
        for count in counts:
            base = {run["seed"]: run["score"] for run in runs.get(("scratch", count), ())}
            found = {run["seed"]: run["score"] for run in runs.get((arm, count), ())}
            cells.append(", ".join(f"{found[seed] - base[seed]:+.3f}" for seed in sorted(found) if seed in base))
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def reference(write: bool) -> str:
    """The loss terms of a whole pre-training at some epochs' ends, for docs/LEARNING.md; ``write``: drawn, too."""
    found = json.loads((RESULTS / f"{REFERENCE}.json").read_text(encoding="utf-8"))
    flags = " ".join(found["command"])
    title = "pre-training on 300 X-rays of phantoms"
    if write:
        from methods.pcrl_report import curve_panels  # late: torch takes seconds to import
        from training.reporting.curves import draw_curves

        draw_curves(found["rows"], PICTURE, title, curve_panels("mse"))
    ends = {int(row["epoch"]): row for row in found["rows"]}
    chosen = sorted({epoch for epoch in REFERENCE_EPOCHS if epoch in ends} | {max(ends)})
    lines = [f"python main.py {flags}", "", "| epoch | " + " | ".join(REFERENCE_TERMS) + " |"]
    lines.append("|---" * (1 + len(REFERENCE_TERMS)) + "|")
    for epoch in chosen:
        lines.append(f"| {epoch} | " + " | ".join(f"{ends[epoch][name]:.3g}" for name in REFERENCE_TERMS) + " |")
    return "\n".join(lines)


def report(write: bool) -> None:
    """Print the tables of all tasks, and those of the reference run; ``write``: draw its picture anew."""
    print(reference(write))
    for task in TASKS:
        if runs := read_results(task):
            print(f"\n{table(task, runs)}\n\n{gains(runs)}")
