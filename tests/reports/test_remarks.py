"""What a run's page says of its curves, in words."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from reports.remarks import MORE, remarks
from reports.run_page import read_run
from training.reporting.reporter import MEANS


def rows(steps: int, last: float, filled: float) -> list[dict[str, object]]:
    return [
        {"step": 1, "queue_filled": 0.0, MEANS: {"reconstruction": 2.0}},
        {"step": steps, "queue_filled": filled, MEANS: {"reconstruction": last}},
        {"step": steps, "val_loss": 1.0},
    ]


@pytest.mark.parametrize(
    ("run", "said", "not_said"),
    [
        (rows(9, 1.9, 0.01), ["hardly fallen", "1 % full", "With 9 steps"], ["as it should"]),
        (rows(2000, 0.5, 1.0), ["fell, as it should, from 2 to 0.5"], ["full of real keys", "too early"]),
        ([{"step": 400, MEANS: {"restoration": "?"}}], [], ["error", "full"]),
    ],
)
def test_a_newcomer_is_told_what_to_make_of_the_curves(run: list, said: list[str], not_said: list[str]) -> None:
    told = remarks(run)
    assert told[-1] == MORE
    assert all(word in " ".join(told) for word in said)
    assert not any(word in " ".join(told) for word in not_said)


def test_a_run_without_steps_says_nothing() -> None:
    assert remarks([]) == []


def test_pictures_of_a_former_run_in_the_same_folder_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"started": "2026-01-02T00:00:00+00:00"}))
    (tmp_path / "reconstructions").mkdir()
    for name, at in (("epoch_0009", 1767225600), ("epoch_0002", 1767398400)):  # a day before, and a day after
        path = tmp_path / "reconstructions" / f"{name}.png"
        Image.new("L", (4, 4)).save(path)
        os.utime(path, (at, at))
    assert [path.stem for path in read_run(tmp_path).pictures()] == ["epoch_0002"]


def test_pictures_stand_in_the_order_of_their_steps_in_a_copy_of_the_folder_too(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "step": 40}\n{"epoch": 2, "step": 80}\n')
    (tmp_path / "reconstructions").mkdir()
    for number, name in enumerate(("epoch_0002", "epoch_0001", "step_00000060", "step_00000001")):
        path = tmp_path / "reconstructions" / f"{name}.png"
        Image.new("L", (4, 4)).save(path)
        os.utime(path, (number, number))
    found = [path.stem for path in read_run(tmp_path).pictures()]
    assert found == ["step_00000001", "epoch_0001", "step_00000060", "epoch_0002"]
