"""The figure of docs/EVIDENCE.md: score against labels, a line an arm, bands for random values and PCRL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.evidence_protocol import ARMS, data_of
from benchmarks.evidence_scores import KINDS, MEAN, TASKS, Found
from utils.files import atomic_path

LOOK: dict[str, dict[str, Any]] = {
    "random": {"color": "black", "linewidth": 2.0, "marker": "o"},
    "pcrl": {"color": "#0072b2", "linewidth": 2.4, "marker": "o"},
    "no_reconstruction": {"color": "#d55e00", "marker": "s"},
    "no_contrast": {"color": "#009e73", "marker": "^"},
    "no_mixup": {"color": "#cc79a7", "marker": "v"},
    "no_gate": {"color": "#8c6d31", "marker": "D"},
    "pcrlv2": {"color": "#56b4e9", "linestyle": "--", "marker": "P"},
    "imagenet": {"color": "0.45", "linestyle": ":", "marker": "X"},
}
BANDS = ("random", "pcrl")


def panels(all_found: Sequence[Found]) -> list[list[tuple[Found, str, str]]]:
    """Columns of (scores, kind, label): sex and findings, fine-tuned above and probed below, and the tasks in 3D."""
    columns: list[list[tuple[Found, str, str]]] = []
    in_3d = []
    for found in all_found:
        if data_of(found.task) == "nih":
            columns = columns or [  # the widest network
                [(found, kind, label) for kind in ("finetune", "probe") if label in found.labels(kind)]
                for label in ("male", MEAN)
            ]
        elif found.scores:
            in_3d.append((found, "finetune", found.labels("finetune")[0]))
    columns += [in_3d[start : start + 2] for start in range(0, len(in_3d), 2)]
    return [column for column in columns if column]


def draw(all_found: Sequence[Found], path: Path) -> None:
    """Draw it; the suffix of ``path`` says as what. The same results give the same bytes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    columns = panels(all_found)
    rows = max(map(len, columns))
    figure = Figure(figsize=(3.9 * len(columns), 3.2 * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for x, column in enumerate(columns):
        for y in range(rows):
            if y < len(column):
                _panel(grid[y][x], *column[y])
            else:
                grid[y][x].set_axis_off()
    handles = {label: line for axis in grid.flat for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    ordered = [about.words for about in ARMS.values() if about.words in handles]
    lines, wide = [handles[words] for words in ordered], 1 + len(columns)  # more names in a row would be cut off
    figure.legend(lines, ordered, loc="outside lower center", ncols=wide, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "evidence"}), atomic_path(path) as temporary:
        kind = path.suffix.removeprefix(".")
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(temporary, format=kind, dpi=110, facecolor="white", metadata=metadata)


def _panel(axis: Any, found: Found, kind: str, label: str) -> None:
    title, what, score, _ = TASKS[found.task]
    counts = found.counts(kind)
    for arm, about in ARMS.items():
        estimates = {count: each for count in counts if (each := found.score(kind, label, arm, count))}
        if not estimates:
            continue
        values = [each.value for each in estimates.values()]
        front = 3 if arm in BANDS else 2
        look = {"linewidth": 1.2, "markersize": 4} | LOOK[arm]
        axis.plot(list(estimates), values, label=about.words, zorder=front, **look)
        if arm in BANDS:
            low, high = [each.low for each in estimates.values()], [each.high for each in estimates.values()]
            axis.fill_between(list(estimates), low, high, color=LOOK[arm]["color"], alpha=0.13, linewidth=0, zorder=1)
    axis.set_xscale("log")
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.set_xlabel(f"labelled {what}")
    axis.set_ylabel(score)
    lines = title.replace(", ", "\n", 1)  # in one line, it would be cut off
    axis.set_title(f"{lines}\n{label + ', ' if label != score else ''}{KINDS[kind]}", fontsize=10)
