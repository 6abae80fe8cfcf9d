"""``curves.png``: all that ``metrics.jsonl`` has, as curves over the steps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from utils.files import atomic_path

IGNORED = {"epoch", "step", "skipped", "replaced"}
# Panels: title, unit, and the names that belong there. What no panel takes goes into the first.
PANELS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("loss", "", ("loss", "contrast", "reconstruction", "val_loss", "val_contrast", "val_reconstruction")),
    ("contrast", "NCE", ("nce", "nce_mixup", "nce_mixed_key")),
    ("reconstruction", "squared or absolute error", ("rec", "rec_mixed", "rec_mixup", "rec_mixup_mixed")),
    ("results on held-out data", "", ("val_auroc", "val_dice")),
    ("features", "spread; cosine", ("feature_spread", "queue_spread", "similarity_positive", "similarity_queue")),
    ("positive pair (P0)", "exp(cosine / T) / Z", ("positive",)),
    ("gate and queue", "share", ("gate_mean", "gate_spread", "queue_filled")),
    ("learning rate", "", ("lr",)),
    ("speed", "images/s", ("images_per_s",)),
    ("waiting for data", "share of the time", ("data_wait",)),
)
LOGARITHMIC = ("reconstruction", "positive pair (P0)")
COLUMNS = 3
SMOOTHED = 200  # points of a curve at most


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a line that a full disk has cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def curves(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Name -> its steps and values."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in IGNORED and isinstance(value, int | float):
                steps, values = found.setdefault(name, ([], []))
                steps.append(row["step"])
                values.append(float(value))
    return found


def thinned(values: Sequence[float]) -> list[float]:
    """Means of neighbours, at most ``SMOOTHED``, so that a long run is legible, and quickly drawn."""
    width = -(-len(values) // SMOOTHED)
    parts = [values[start : start + width] for start in range(0, len(values), width)]
    return [sum(part) / len(part) for part in parts]


def draw_curves(metrics: Path, path: Path, title: str) -> None:
    """Draw what the rows have, panel by panel; nothing if there are none."""
    found = curves(read_rows(metrics))
    panels = [(name, unit, [key for key in keys if key in found]) for name, unit, keys in PANELS]
    panels = [panel for panel in panels if panel[2]]
    if not panels:
        return
    from matplotlib.figure import Figure  # late: it takes a second to import

    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(4.2 * COLUMNS, 2.7 * rows + 0.4), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for (name, unit, keys), axis in zip(panels, axes, strict=False):
        for key in keys:
            steps, values = (thinned(part) for part in found[key])
            axis.plot(steps, values, label=key, marker="o" if len(steps) == 1 else "", linewidth=1.2)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.set_ylabel(unit, fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        if name in LOGARITHMIC:
            axis.set_yscale("log")
        if len(keys) > 1:
            axis.legend(fontsize=7)
    for axis in axes:  # those that are left
        axis.set_axis_off()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
