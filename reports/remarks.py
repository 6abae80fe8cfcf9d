"""What the curves of a pre-training say in words, for somebody who sees such curves for the first time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.reporting.reporter import MEANS

EARLY = 300  # steps, before which nothing is to be seen in the pictures
FULL = 0.99
FALLEN = 0.9  # of its first value
RECONSTRUCTIONS = ("reconstruction", "restoration")
MORE = "docs/LEARNING.md says what each curve is, and what it should do."


def remarks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences about the rows of metrics.jsonl of a pre-training; none if there are no rows."""
    steps = max((row.get("step", 0) for row in rows), default=0)
    if not steps:
        return []
    found = [_reconstruction(rows), _queue(rows)]
    if steps < EARLY:
        found.append(
            f"With {steps} steps it is too early to judge more than that: the pictures need hundreds of steps, the "
            "contrast thousands."
        )
    return [*filter(None, found), MORE]


def _reconstruction(rows: Sequence[Mapping[str, Any]]) -> str:
    means = [row[MEANS] for row in rows if isinstance(row.get(MEANS), Mapping)]
    for name in RECONSTRUCTIONS:
        values = [mean[name] for mean in means if isinstance(mean.get(name), int | float)]
        if len(values) > 1:
            first, last = values[0], values[-1]
            fell = "fell, as it should," if last < FALLEN * first else "has hardly fallen: it went"
            return f"The error of the {name} {fell} from {first:.3g} to {last:.3g} (means of the first and last epoch)."
    return ""


def _queue(rows: Sequence[Mapping[str, Any]]) -> str:
    filled = [row["queue_filled"] for row in rows if isinstance(row.get("queue_filled"), int | float)]
    if not filled or filled[-1] >= FULL:
        return ""
    return (
        f"The contrast's queue is {100 * filled[-1]:.0f} % full of real keys. Until it is full the contrast rises, "
        "since real keys are harder to tell apart than the random ones of the start; that is no fault."
    )
