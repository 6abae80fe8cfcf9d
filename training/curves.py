"""``curves.png``: all that ``metrics.jsonl`` has, as curves over the steps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from utils.files import atomic_path

IGNORED = {"epoch", "step", "skipped", "replaced"}
# Panels: title, what the y axis is, and the names that belong there.
PANELS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("loss", "mean over the batch", ("loss", "contrast", "reconstruction")),
    ("contrast", "NCE, nats", ("nce", "nce_mixup", "nce_mixed_key")),
    ("reconstruction", "squared or absolute error", ("rec", "rec_mixed", "rec_mixup", "rec_mixup_mixed")),
    ("results on held-out data", "score, 0 to 1", ("auroc", "dice")),
    ("spread of the features", "1: even, 0: collapsed", ("feature_spread", "queue_spread")),
    ("similarity of a query", "cosine", ("similarity_positive", "similarity_queue")),
    ("positive pair (P0)", "exp(cosine / T) / Z", ("positive",)),
    ("queue", "share of real keys", ("queue_filled",)),
    ("gate", "weight, 0 to 1", ("gate_mean", "gate_spread")),
    ("learning rate", "lr", ("lr",)),
    ("speed", "images/s", ("images_per_s",)),
    ("waiting for data", "share of a step's time", ("data_wait",)),
    ("memory, at its peak", "GB", ("memory_gb",)),
)
OTHERS = ("others", "")  # title and axis of the panel of all names that no panel has
HELD_OUT = "val_"  # names of results on held-out data begin so; they are drawn dashed, beside those in training
LOGARITHMIC = ("reconstruction", "positive pair (P0)")
FROM_ZERO = ("queue", "speed", "waiting for data", "memory, at its peak")
COLUMNS = 3
POINTS = 200  # of a curve at most

Curves = dict[str, tuple[list[float], list[float]]]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a line that a full disk has cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def curves(rows: Iterable[Mapping[str, Any]]) -> Curves:
    """Name -> its steps and values."""
    found: Curves = {}
    for row in rows:
        for name, value in row.items():
            if name not in IGNORED and isinstance(value, int | float):
                steps, values = found.setdefault(name, ([], []))
                steps.append(row["step"])
                values.append(float(value))
    return found


def panels(names: Iterable[str]) -> list[tuple[str, str, list[str]]]:
    """The panels to draw: title, axis and names. What is told of single classes (``val_dice/liver``) is left out."""
    left = [name for name in names if "/" not in name]
    found = []
    for title, axis, keys in PANELS:
        mine = [name for key in keys for name in (key, HELD_OUT + key) if name in left]
        left = [name for name in left if name not in mine]
        found.append((title, axis, mine))
    return [panel for panel in (*found, (*OTHERS, left)) if panel[2]]


def thinned(values: Sequence[float]) -> list[float]:
    """Means of neighbours, at most ``POINTS``, so that a long run is legible, and quickly drawn."""
    width = -(-len(values) // POINTS)
    parts = [values[start : start + width] for start in range(0, len(values), width)]
    return [sum(part) / len(part) for part in parts]


def draw_curves(rows: Iterable[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw what the rows have, panel by panel; nothing if there are none."""
    found = curves(rows)
    shown = panels(found)
    if not shown:
        return
    from matplotlib.figure import Figure  # late: it takes a second to import

    lines = -(-len(shown) // COLUMNS)
    figure = Figure(figsize=(4.2 * COLUMNS, 2.5 * lines + 0.4), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(lines, COLUMNS, squeeze=False).flat
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    for (name, label, keys), axis in zip(shown, axes, strict=False):
        _draw(axis, {key: found[key] for key in keys})
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.set_ylabel(label, fontsize=8)
        if name in LOGARITHMIC:
            axis.set_yscale("log")
        if name in FROM_ZERO:
            axis.set_ylim(bottom=0)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _draw(axis: Any, lines: Curves) -> None:
    """``axis``: matplotlib's."""
    colours: dict[str, str] = {}
    for name, (steps, values) in lines.items():
        held_out, base = name.startswith(HELD_OUT), name.removeprefix(HELD_OUT)
        colour = colours.setdefault(base, f"C{len(colours)}")
        style = {"linestyle": "--" if held_out else "-", "marker": "o" if held_out or len(steps) == 1 else ""}
        axis.plot(thinned(steps), thinned(values), label=name, color=colour, linewidth=1.2, markersize=3, **style)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=7)
