"""The warnings of a run: each comes when it should, not too often, and a healthy run has none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from training.reporting.diagnostics import Diagnostics


def falling(epoch: int) -> float:
    return 5 - 0.05 * epoch


def told(watch: Diagnostics, epochs: int, loss: Callable[[int], float] = falling, **more: float) -> list[str]:
    values = {"spread": 0.5, "filled": 1.0, "lr": 1e-3, "seconds": 100.0, "data_seconds": 1.0} | more
    found = []
    for epoch in range(epochs):
        statistics = {"feature_spread": values["spread"], "queue_filled": values["filled"]}
        if values["spread"] < 0:
            statistics = {}
        found += watch.epoch({"loss": loss(epoch)}, statistics, values["lr"], values["seconds"], values["data_seconds"])
    return found


def test_healthy_runs_are_left_alone() -> None:
    assert told(Diagnostics(), 50) == []
    assert told(Diagnostics(), 50, spread=-1, data_seconds=29) == [], "of a method without features to spread"
    noise = np.random.default_rng(0).normal(0, 0.02, 240)
    watch = Diagnostics()
    for epoch in range(240):  # the contrast rises while the queue fills, then falls; the rate follows a cosine
        loss = 7 + 2 * math.tanh(epoch / 10) - 0.008 * epoch + noise[epoch]
        lr = 1e-3 * (1 + math.cos(math.pi * epoch / 240)) / 2
        assert watch.epoch({"loss": loss}, {"feature_spread": 0.1}, lr, 100.0, 5.0) == []


def test_collapsed_features_are_said_and_said_again_after_twenty_epochs() -> None:
    watch = Diagnostics()
    assert told(watch, 20, spread=0.01, filled=0.9) == [], "the queue is filling"
    assert told(watch, 4, spread=0.01) == []
    assert told(watch, 1) == [], "they have spread again: the count begins anew"
    (warning,) = told(watch, 24, spread=0.01)
    assert "for 5 epochs (feature_spread 0.010" in warning
    assert warning.endswith("see docs/TROUBLESHOOTING.md")
    (warning,) = told(watch, 1, spread=0.01)
    assert "for 25 epochs" in warning


def test_a_flat_loss_is_said_after_twenty_epochs_but_not_at_the_end_of_the_schedule() -> None:
    assert told(Diagnostics(), 19, lambda epoch: 5.0) == []
    (warning,) = told(Diagnostics(), 39, lambda epoch: 5.0 + 0.01 * (-1) ** epoch)
    assert "loss changed by less than 0.1% in 20 epochs" in warning
    watch = Diagnostics()
    assert told(watch, 5) == []
    assert told(watch, 40, lambda epoch: 4.0, lr=1.9e-4) == []
    assert told(Diagnostics(), 40, lambda epoch: 5 + 0.01 * math.sin(math.pi * epoch / 20)) == [], "it rises and falls"


def test_a_part_that_is_flat_is_named() -> None:
    watch = Diagnostics()
    found = [watch.epoch({"loss": 9 - 0.1 * n, "contrast": 7.0}, {}, 1e-3, 9.0, 0.0) for n in range(20)]
    assert found[:-1] == [[]] * 19
    assert found[-1][0].startswith("contrast changed by less than")


def test_waiting_for_data_is_said_but_not_of_the_first_epoch_nor_of_short_ones() -> None:
    assert told(Diagnostics(), 1, data_seconds=90) == []
    assert told(Diagnostics(), 9, seconds=2, data_seconds=1.8) == []
    (warning,) = told(Diagnostics(), 9, data_seconds=40)
    assert "40% of the epoch was spent waiting for data" in warning
    assert "--workers" in warning


def test_a_resumed_run_is_told_what_an_uninterrupted_one_is() -> None:
    def run(stops: tuple[int, ...]) -> list[tuple[int, str]]:
        watch, found = Diagnostics(), []
        for epoch in range(60):
            if epoch in stops:
                watch = Diagnostics(**watch.state())
            spread = 0.01 if epoch > 3 else 0.3
            loss = 5.0 if epoch > 8 else 6.0
            found += [(epoch, text) for text in watch.epoch({"loss": loss}, {"feature_spread": spread}, 1e-3, 9, 0)]
        return found

    assert run((7, 12, 30)) == run(())
    assert len(run(())) == 5
    watch = Diagnostics(**Diagnostics(epochs=5).state())
    assert told(watch, 1, data_seconds=90) == [], "the first epoch after a resumption waits for workers, too"
