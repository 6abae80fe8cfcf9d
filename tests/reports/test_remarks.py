"""What a run's page says of its curves, in words."""

from __future__ import annotations

import pytest

from reports.remarks import MORE, remarks
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
