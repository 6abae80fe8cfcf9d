"""The learning rate, and what the optimizers cover."""

from __future__ import annotations

import math

import pytest
import torch

from training.schedule import build_optimizer, cosine_lr


def test_cosine_over_epochs() -> None:
    rates = [cosine_lr(1e-3, epoch, 240) for epoch in range(240)]
    assert rates[0] == 1e-3
    assert rates[120] == pytest.approx(5e-4)
    assert rates[239] == pytest.approx(1e-3 * (1 + math.cos(math.pi * 239 / 240)) / 2)
    assert min(rates) > 0, "no epoch is spent at a learning rate of 0"
    assert rates == sorted(rates, reverse=True)


def test_warm_up_rises_in_equal_steps_to_where_the_cosine_starts() -> None:
    rates = [cosine_lr(1.0, epoch, 13, warmup_epochs=3) for epoch in range(13)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[3:] == [cosine_lr(1.0, epoch, 10) for epoch in range(10)]


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_weight_decay_covers_all_parameters(name: str, kind: type) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    optimizer = build_optimizer(name, module.parameters(), 0.1, 0.9, 1e-2)
    assert type(optimizer) is kind
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4
    assert all(group["weight_decay"] == 1e-2 for group in optimizer.param_groups)
