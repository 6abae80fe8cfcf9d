"""Intervals of the evidence against a bootstrap spelled out, with scikit-learn's AUROC."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.evidence_cells import packed, unpacked
from benchmarks.evidence_stats import estimate, paired_difference, patient_weights, weighted_auroc

RNG = np.random.default_rng(0)
GROUPS = [f"{patient}" for patient in RNG.integers(0, 30, 70)]
LABELS = RNG.integers(0, 2, 70)
SCORES = (LABELS + RNG.normal(size=(5, 70)) * 1.5).round(1)  # with ties
BASE = (0.5 * LABELS + RNG.normal(size=(5, 70)) * 1.5).round(1)


def of_drawn(groups: list[str], drawn: list[str]) -> list[int]:
    """The images of these patients, as often as they were drawn."""
    return [image for patient in drawn for image, group in enumerate(groups) if group == patient]


def test_auroc_of_patients_drawn_anew() -> None:
    weights = patient_weights(GROUPS, 20)
    found = weighted_auroc(LABELS, SCORES[0], weights)
    assert found[0] == pytest.approx(roc_auc_score(LABELS, SCORES[0]))
    names = sorted(set(GROUPS))
    for row, value in zip(weights[1:], found[1:], strict=True):
        times = {name: int(row[GROUPS.index(name)]) for name in names}
        assert sum(times.values()) == len(names)
        images = of_drawn(GROUPS, [name for name in names for _ in range(times[name])])
        assert value == pytest.approx(roc_auc_score(LABELS[images], SCORES[0][images]))


def test_one_kind_alone_has_no_auroc() -> None:
    assert np.isnan(weighted_auroc(np.ones(4), np.arange(4.0), np.ones((1, 4)))).all()
    assert weighted_auroc(np.array([0, 1]), np.array([3, 3]), np.ones((1, 2)))[0] == 0.5


def test_ranks_are_kept_with_their_ties() -> None:
    ranks = unpacked(packed(SCORES[1]))
    ones = np.ones((1, 70))
    assert weighted_auroc(LABELS, ranks, ones) == pytest.approx(weighted_auroc(LABELS, SCORES[1], ones))
    assert len(np.unique(ranks)) == len(np.unique(SCORES[1]))


def area(images: list[int], scores: np.ndarray) -> float:
    """The share of pairs of a positive and a negative in which the positive has the higher score."""
    positive, negative = (scores[[image for image in images if LABELS[image] == label]] for label in (1, 0))
    return float(np.mean(np.sign(positive[:, None] - negative[None]) / 2 + 0.5))


def literal(scores: np.ndarray, base: np.ndarray | None, draws: int, replicates: int = 600) -> tuple[float, float]:
    """The interval of a mean over draws, or of a paired difference, with another random sequence."""
    rng, names, values = np.random.default_rng(7), sorted(set(GROUPS)), []
    for _ in range(replicates):
        images = of_drawn(GROUPS, [names[index] for index in rng.integers(len(names), size=len(names))])
        chosen = rng.integers(len(scores), size=draws) if draws else range(len(scores))
        found = [area(images, scores[draw]) for draw in chosen]
        if base is not None:
            found = [value - area(images, base[draw]) for value, draw in zip(found, chosen, strict=True)]
        values.append(np.mean(found))
    low, high = np.percentile(values, (2.5, 97.5))
    return low, high


def test_intervals_against_a_literal_bootstrap() -> None:
    weights = patient_weights(GROUPS, 2000)
    scores, base = (np.stack([weighted_auroc(LABELS, row, weights) for row in rows]) for rows in (SCORES, BASE))
    mean = estimate(scores)
    assert mean.value == pytest.approx(np.mean([roc_auc_score(LABELS, row) for row in SCORES]))
    assert (mean.low, mean.high) == pytest.approx(literal(SCORES, None, 0), abs=0.02)
    gain = paired_difference(scores, base)
    assert gain.value == pytest.approx(scores[:, 0].mean() - base[:, 0].mean())
    assert (gain.low, gain.high) == pytest.approx(literal(SCORES, BASE, 4), abs=0.03)
    assert gain.draws == 5
    assert paired_difference(scores[:1], base[:1]).low < paired_difference(scores[:1], base[:1]).high


def test_the_difference_is_as_wide_as_so_few_draws_are_uncertain() -> None:
    """Without patients' chance, the standard error of a mean of n draws, s / sqrt(n), is that of the interval."""
    values = np.array([0.112, 0.231, 0.0, 0.148, 0.053])
    rows = np.tile(values[:, None], (1, 20001))
    gain = paired_difference(rows, np.zeros_like(rows))
    rng = np.random.default_rng(3)
    means = values[rng.integers(5, size=(20000, 4))].mean(axis=1)
    assert (gain.low, gain.high) == pytest.approx(np.percentile(means, (2.5, 97.5)), abs=0.006)
    assert np.std(means) == pytest.approx(values.std(ddof=1) / np.sqrt(5), rel=0.03)
