"""``curves.png``: all that ``metrics.jsonl`` has, as curves over the steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from methods.base import Panel
from utils import json_text
from utils.files import atomic_path

IGNORED = {"epoch", "step", "skipped", "replaced"}
LOSS = Panel("loss", "mean over the batch", ("loss",))  # if the method has no such panel of its own
OF_ALL_RUNS = (
    Panel("probe on labels", "AUROC, or error", ("probe_linear", "probe_knn")),
    Panel("learning rate", "lr", ("lr",), from_zero=True),
    Panel("speed", "images/s", ("images_per_s",), from_zero=True),
    Panel("waiting for data", "share of a step's time", ("data_wait",), from_zero=True),
    Panel("memory, at its peak", "GB", ("memory_gb",), from_zero=True),
)
OTHERS = Panel("others", "", ())  # of all names that no panel has
HELD_OUT = "val_"  # names of results on held-out data begin so; they are drawn dashed, beside those in training
FLAT = 0.05  # an axis spans at least this part of its largest value: rounding should not look like change
COLUMNS = 3
LEGEND_COLUMNS = 2
PANEL_WIDTH, PANEL_HEIGHT, LEGEND_LINE = 3.4, 1.8, 0.18  # inches
BESIDE, AROUND = 0.9, 0.85  # of a panel, for numbers and titles
POINTS = 200  # of a curve at most

Curves = dict[str, tuple[list[float], list[float]]]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a line that a full disk has cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            rows.append(json_text.parse(line))
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


def panels(names: Iterable[str], of_method: Sequence[Panel] = ()) -> list[tuple[Panel, list[str]]]:
    """The panels to draw, each with its names. What is told of single classes (``val_dice/liver``) is left out.

    ``of_method``: as a Method has them; they come first.
    """
    left = [name for name in names if "/" not in name]
    found = []
    loss = () if any("loss" in panel.names for panel in of_method) else (LOSS,)
    for panel in (*loss, *of_method, *OF_ALL_RUNS):
        mine = [name for key in panel.names for name in (key, HELD_OUT + key) if name in left]
        left = [name for name in left if name not in mine]
        found.append((panel, mine))
    return [(panel, mine) for panel, mine in (*found, (OTHERS, left)) if mine]


def thinned(values: Sequence[float]) -> list[float]:
    """Means of neighbours, at most ``POINTS``, so that a long run is legible, and quickly drawn."""
    width = -(-len(values) // POINTS)
    parts = [values[start : start + width] for start in range(0, len(values), width)]
    return [sum(part) / len(part) for part in parts]


def limits(lines: Curves, from_zero: bool, most: float = math.inf) -> tuple[float, float] | None:
    """Of the y axis, with a margin, so that no line runs along the frame; None: no value is a number.

    ``most``: what no value can exceed; the axis goes no further than the margin beyond it.
    """
    values = [value for _, values in lines.values() for value in thinned(values) if math.isfinite(value)]
    if not values:
        return None
    low, high = (min(0.0, *values) if from_zero else min(values)), max(values)
    least = FLAT * max(abs(low), abs(high)) or 1.0
    if high - low < least:
        low, high = low - (0 if from_zero else least / 2), high + least / 2
        low, high = low - max(0.0, high - most), min(high, most)
    margin = 0.06 * (high - low)
    return low - margin * (not from_zero or low < 0), high + margin


def spans_a_decade(lines: Curves) -> bool:
    """Whether a logarithmic axis is of use: all values above 0, the largest ten times the smallest."""
    values = [value for _, values in lines.values() for value in thinned(values) if math.isfinite(value)]
    return bool(values) and min(values) > 0 and max(values) >= 10 * min(values)


def draw_curves(rows: Iterable[Mapping[str, Any]], path: Path, title: str, of_method: Sequence[Panel] = ()) -> None:
    """Draw what the rows have, panel by panel; nothing if there are none. ``of_method``: the panels of its terms."""
    found = curves(rows)
    shown = panels(found, of_method)
    if not shown:
        return
    from matplotlib.figure import Figure  # late: it takes a second to import
    from matplotlib.ticker import MaxNLocator

    # Panels are placed in inches: matplotlib's own layouts take longer than the drawing itself.
    lines = [shown[start : start + COLUMNS] for start in range(0, len(shown), COLUMNS)]
    legends = [LEGEND_LINE * max(_legend_lines(len(keys)) for _, keys in line) for line in lines]
    width, height = COLUMNS * (PANEL_WIDTH + BESIDE), 0.4 + sum(PANEL_HEIGHT + AROUND + legend for legend in legends)
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, y=1 - 0.1 / height, va="top")
    bottom = height - 0.4
    for number, (panel, keys) in enumerate(shown):
        column, line = number % COLUMNS, number // COLUMNS
        bottom -= (PANEL_HEIGHT + AROUND + legends[line]) * (column == 0)
        left = column * (width / COLUMNS) + 0.7
        axis = figure.add_axes((left / width, (bottom + 0.45) / height, PANEL_WIDTH / width, PANEL_HEIGHT / height))
        mine = {key: found[key] for key in keys}
        _draw(axis, mine, panel.title, LEGEND_LINE * _legend_lines(len(mine)) / PANEL_HEIGHT)
        axis.set_xlabel("step", fontsize=8)
        axis.set_ylabel(panel.axis, fontsize=8)
        axis.xaxis.set_label_coords(0.5, -0.3 / PANEL_HEIGHT)  # else matplotlib measures all numbers first
        axis.yaxis.set_label_coords(-0.55 / PANEL_WIDTH, 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        if panel.log and spans_a_decade(mine):
            axis.set_yscale("log")
        elif span := limits(mine, panel.from_zero, panel.most):
            axis.set_ylim(*span)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _legend_lines(count: int) -> int:
    """Of a legend with so many entries."""
    return -(-count // LEGEND_COLUMNS)


def _draw(axis: Any, lines: Curves, title: str, legend: float) -> None:
    """``axis``: matplotlib's. The legend, of this height in parts of the panel's, stands between title and panel."""
    colours: dict[str, str] = {}
    for name, (steps, values) in lines.items():
        held_out, base = name.startswith(HELD_OUT), name.removeprefix(HELD_OUT)
        colour = colours.setdefault(base, f"C{len(colours)}")
        style = {"linestyle": "--" if held_out else "-", "marker": "o" if held_out or len(steps) == 1 else ""}
        axis.plot(thinned(steps), thinned(values), label=name, color=colour, linewidth=1.2, markersize=3, **style)
    axis.tick_params(labelsize=8, which="both")
    axis.grid(alpha=0.3, which="both")
    axis.legend(
        fontsize=7,
        loc="lower left",
        bbox_to_anchor=(0, 1, 1, legend),
        ncols=LEGEND_COLUMNS,
        mode="expand",
        frameon=False,
    )
    axis.set_title(title, fontsize=10, y=1 + legend)
