"""What the grid of ``benchmarks/evidence.py`` has found: tables, and the learning curves as pictures."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from methods.pcrl_report import curve_panels
from training.reporting.curves import draw_curves

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "evidence"
PICTURES = ROOT / "docs" / "images"
ARMS = {  # the arm -> its words and colour
    "scratch": ("from scratch", "black"),
    "pcrl": ("PCRL", "tab:blue"),
    "no_reconstruction": ("PCRL without reconstruction", "tab:orange"),
    "no_contrast": ("PCRL without contrast", "tab:green"),
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
    for arm, (words, _) in ARMS.items():
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
    for arm, (words, _) in list(ARMS.items())[1:]:
        cells = []
        for count in counts:
            base = {run["seed"]: run["score"] for run in runs.get(("scratch", count), ())}
            found = {run["seed"]: run["score"] for run in runs.get((arm, count), ())}
            cells.append(", ".join(f"{found[seed] - base[seed]:+.3f}" for seed in sorted(found) if seed in base))
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(task: str, runs: Runs) -> Path:
    """The score on the validation part while it trains, a plot for each number of labels; a line for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    title, what, score = TASKS[task]
    counts = label_counts(runs)
    figure, axes = plt.subplots(1, len(counts), figsize=(4 * len(counts), 3.6), sharey=True, squeeze=False)
    for axis, count in zip(axes[0], counts, strict=True):
        for arm, (words, colour) in ARMS.items():
            curves = [np.array(run["curve"]).T for run in runs.get((arm, count), ())]
            for steps, values in curves:
                axis.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
            if curves:
                axis.plot(curves[0][0], np.mean([values for _, values in curves], axis=0), color=colour, label=words)
        axis.set_title(f"{count} labelled {what}")
        axis.set_xlabel("steps of fine-tuning")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(f"{score}, validation part")
    fullest = max(reversed(axes[0]), key=lambda axis: len(axis.get_legend_handles_labels()[1]))  # some cells may lack
    fullest.legend(fontsize=8, loc="lower right")
    figure.suptitle(f"{title} (bold: mean over seeds)", fontsize=11)
    figure.tight_layout()
    path = PICTURES / f"evidence_{task}.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def reference() -> str:
    """The loss terms of a whole pre-training, for docs/LEARNING.md: drawn, and as Markdown at some epochs' ends."""
    found = json.loads((RESULTS / f"{REFERENCE}.json").read_text(encoding="utf-8"))
    flags = " ".join(found["command"])
    title = "pre-training on 300 X-rays of phantoms"
    draw_curves(found["rows"], PICTURES / "reference_curve.png", title, curve_panels("mse"))
    ends = {int(row["epoch"]): row for row in found["rows"]}
    chosen = sorted({epoch for epoch in REFERENCE_EPOCHS if epoch in ends} | {max(ends)})
    lines = [f"python main.py {flags}", "", "| epoch | " + " | ".join(REFERENCE_TERMS) + " |"]
    lines.append("|---" * (1 + len(REFERENCE_TERMS)) + "|")
    for epoch in chosen:
        lines.append(f"| {epoch} | " + " | ".join(f"{ends[epoch][name]:.3g}" for name in REFERENCE_TERMS) + " |")
    return "\n".join(lines)


def report() -> None:
    """Print the tables of all tasks that have results, and draw their pictures."""
    if (RESULTS / f"{REFERENCE}.json").exists():
        print(reference())
    for task in TASKS:
        if runs := read_results(task):
            print(f"\n{table(task, runs)}\n\n{gains(runs)}\n\n{draw(task, runs).relative_to(ROOT)}")
