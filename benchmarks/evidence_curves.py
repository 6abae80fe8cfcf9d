"""What the terms of the evidence's pre-trainings did, for docs/RECIPES.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.evidence_protocol import ARMS, Results

SHARES = (0, 0.03, 0.2, 0.4, 0.6, 0.8, 0.9, 1)  # of a run's steps, where its rows are shown
TERMS = ("contrast", "reconstruction", "similarity_positive", "similarity_queue", "feature_spread")


def rows_at(rows: list[Mapping[str, float]], shares: tuple[float, ...] = SHARES) -> list[Mapping[str, float]]:
    """The rows nearest to these shares of the run, each once."""
    last = rows[-1]["step"]
    nearest = [min(rows, key=lambda row: abs(row["step"] - share * last)) for share in shares]
    return list({row["step"]: row for row in nearest}.values())


def curves(task: str, results: Results, arm: str = "pcrl") -> str:
    """A table of the arm's first pre-training; "" if there is none."""
    cell: Mapping[str, Any] | None = results.get(f"{task}_{arm}_pretrain_seed0")
    if not cell:
        return ""
    lines = [f"| {ARMS[arm].words}, step | {' | '.join(TERMS)} |", "|---" * (1 + len(TERMS)) + "|"]
    for row in rows_at(cell["rows"]):
        values = (f"{row[name]:.3g}" if name in row else "" for name in TERMS)
        lines.append(f"| {row['step']:,.0f} | {' | '.join(values)} |")
    return "\n".join(lines)
