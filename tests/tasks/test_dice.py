"""Dice and the loss, against literal computations and MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import DiceMetric

from tasks.dice import dice, dice_ce_loss
from tests.examples import examples


def literal_dice(prediction: np.ndarray, truth: np.ndarray, classes: int) -> list[float]:
    scores = []
    for number in range(1, classes):
        p, t = prediction == number, truth == number
        total = p.sum() + t.sum()
        scores.append(2 * (p & t).sum() / total if total else 1.0)
    return scores


@settings(max_examples=examples(30), deadline=None)
@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    classes=st.integers(2, 4),
    present=st.integers(1, 4),
)
def test_dice_equals_monai_and_the_formula(seed: int, shape: tuple[int, ...], classes: int, present: int) -> None:
    rng = np.random.default_rng(seed)
    p, t = rng.integers(0, min(present, classes), shape), rng.integers(0, classes, shape)
    ours = dice(torch.from_numpy(p), torch.from_numpy(t), classes)
    np.testing.assert_allclose(ours, literal_dice(p, t, classes), atol=1e-6)
    one_hot = [torch.eye(classes)[torch.from_numpy(m)].movedim(-1, 0)[None] for m in (p, t)]
    metric = DiceMetric(include_background=False, reduction="none", ignore_empty=False)
    np.testing.assert_allclose(ours, metric(*one_hot)[0], atol=1e-6)
    assert dice(torch.from_numpy(t), torch.from_numpy(t), classes) == [1.0] * (classes - 1)


def test_dice_of_classes_that_are_not_there() -> None:
    nothing, some = torch.zeros(4, 4, 4, dtype=torch.int64), torch.zeros(4, 4, 4, dtype=torch.int64)
    some[:2] = 1
    assert dice(nothing, nothing, 3) == [1, 1]
    assert dice(some, nothing, 3) == [0, 1]
    assert dice(nothing, some.to(torch.uint8), 3) == [0, 1]


def test_the_loss_is_dice_plus_cross_entropy_and_does_not_mix_samples() -> None:
    logits = torch.randn(3, 3, 5, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.randint(0, 3, (3, 1, 5, 4, 6), generator=torch.Generator().manual_seed(1))
    log_p = logits.log_softmax(1).numpy()
    t = np.stack([(labels[:, 0] == number).numpy() for number in range(3)], axis=1).astype(float)
    cross_entropy = -(t * log_p).sum(1).mean()
    overlap = (t * np.exp(log_p)).sum((2, 3, 4))[:, 1:]
    total = (t + np.exp(log_p)).sum((2, 3, 4))[:, 1:]
    loss = dice_ce_loss()
    assert loss(logits, labels).item() == pytest.approx(cross_entropy + (1 - 2 * overlap / total).mean(), abs=1e-5)
    alone = [loss(logits[i : i + 1], labels[i : i + 1]).item() for i in range(3)]
    assert loss(logits, labels).item() == pytest.approx(np.mean(alone), abs=1e-9)
