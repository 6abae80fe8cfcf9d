"""The warnings of a run: each comes when it should, once, and a healthy run has none."""

from __future__ import annotations

from training.watch import Watch


def told(watch: Watch, epochs: int, loss=lambda epoch: 5 - 0.05 * epoch, **more: float) -> list[str]:
    values = {"spread": 0.5, "filled": 1.0, "lr": 1e-3, "seconds": 100.0, "data_seconds": 1.0} | more
    found = []
    for epoch in range(epochs):
        statistics = {"feature_spread": values["spread"], "queue_filled": values["filled"]}
        found += watch.epoch({"loss": loss(epoch)}, statistics, values["lr"], values["seconds"], values["data_seconds"])
    return found


def test_a_healthy_run_is_left_alone() -> None:
    assert told(Watch(), 50) == []


def test_collapsed_features_are_said_once() -> None:
    watch = Watch()
    assert told(watch, 20, spread=0.01, filled=0.9) == [], "the queue is filling"
    assert told(watch, 2, spread=0.01) == []
    assert told(watch, 1) == [], "they have spread again: the count begins anew"
    (warning,) = told(watch, 20, spread=0.01)
    assert "since 3 epochs (spread 0.010" in warning
    assert warning.endswith("see docs/TROUBLESHOOTING.md")


def test_a_flat_loss_is_said_after_ten_epochs_but_not_at_the_end_of_the_schedule() -> None:
    assert told(Watch(), 9, lambda epoch: 5.0) == []
    (warning,) = told(Watch(), 30, lambda epoch: 5.0 + 0.001 * (epoch % 2))
    assert "less than 0.1% in 10 epochs" in warning
    watch = Watch()
    assert told(watch, 5) == []
    assert told(watch, 30, lambda epoch: 4.0, lr=1e-5) == []


def test_waiting_for_data_is_said_but_not_of_the_first_epoch_nor_of_short_ones() -> None:
    assert told(Watch(), 1, data_seconds=90) == []
    assert told(Watch(), 9, seconds=2, data_seconds=1.8) == []
    (warning,) = told(Watch(), 9, data_seconds=40)
    assert "40% of the epoch was spent waiting for data" in warning
    assert "--workers" in warning
