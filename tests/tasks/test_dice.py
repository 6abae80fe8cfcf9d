"""Dice, the loss and the sliding window, against literal computations and MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import DiceMetric
from torch import Tensor

from tasks.dice import dice, dice_ce_loss, segment
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


@pytest.mark.parametrize("size", [(5, 30, 9), (16, 16, 8), (33, 17, 20)])
def test_windows_cover_volumes_of_any_size(size: tuple[int, int, int]) -> None:
    """A network that looks at each voxel alone: the windows must not be seen in the result."""
    image = torch.rand(1, *size, generator=torch.Generator().manual_seed(0))
    seen = []

    def network(window: Tensor) -> Tensor:
        seen.append(tuple(window.shape[2:]))
        return torch.cat([0.3 - window, window - 0.3, 2 * (window - 0.6)], dim=1) * 10

    expected = network(image[None])[0].argmax(0)
    seen.clear()
    assert torch.equal(segment(network, image, (16, 16, 8), 2, size), expected)
    assert set(seen) == {(16, 16, 8)}


def test_the_result_is_on_the_grid_that_is_asked_for() -> None:
    image = torch.zeros(1, 8, 8, 8)
    image[:, 4:] = 1
    truth = torch.zeros(24, 16, 8, dtype=torch.int64)
    truth[12:] = 1
    result = segment(lambda x: torch.cat([0.5 - x, x - 0.5], dim=1), image, (8, 8, 8), 1, truth.shape)
    assert torch.equal(result, truth)
