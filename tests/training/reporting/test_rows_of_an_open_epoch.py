"""A run killed between a held-out result and its save computes that result again: it has one row all the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.reporting.reporter import _cut_rows

ROWS = [{"step": 1, "lr": 0.1}, {"step": 2, "lr": 0.1}, {"step": 2, "val_loss": 0.5}, {"step": 3, "lr": 0.1}]


@pytest.mark.parametrize(("within_epoch", "kept"), [(True, 2), (False, 3)])
def test_results_after_the_last_step_are_known_only_to_a_later_checkpoint(
    within_epoch: bool, kept: int, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    _cut_rows(path, 2, within_epoch)
    assert [json.loads(line) for line in path.read_text().splitlines()] == ROWS[:kept]
