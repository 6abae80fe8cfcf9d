"""The line at the end of a pre-training that says what best.pt is, and whether the untrained network was better."""

from __future__ import annotations

import pytest

from training.best import best_in_words


@pytest.mark.parametrize(
    ("epoch", "score", "untrained", "found", "told"),
    [
        (5, -0.419, 0.744, 0.419, "; the untrained network had 0.744 (docs/LEARNING.md)"),
        (5, -0.744, 0.419, 0.744, ""),
        (5, 7.5, 6.25, 7.5, "; the untrained network had 6.250 (docs/LEARNING.md)"),  # an error
        (5, 6.25, 7.5, 6.25, ""),
    ],
)
def test_probes(epoch: int, score: float, untrained: float, found: float, told: str) -> None:
    rows = [{"epoch": 0, "probe_linear": untrained}, {"epoch": 5, "loss": 9.0}, {"epoch": 5, "probe_linear": found}]
    words = best_in_words(epoch, score, rows, by_probe=True)
    assert words == f"best.pt: epoch 5, probe linear {found:.3f}{told}"


def test_a_probe_beside_held_out_data_chose_nothing() -> None:
    rows = [{"epoch": 0, "probe_linear": 0.9}, {"epoch": 2, "probe_linear": 0.1}, {"epoch": 2, "val_loss": 8.5}]
    assert best_in_words(2, 8.5, rows, by_probe=False) == "best.pt: epoch 2, loss on held-out data 8.500"
    assert best_in_words(3, 8.0, rows, by_probe=False) == "best.pt: epoch 3", "its row was lost with a full disk"
