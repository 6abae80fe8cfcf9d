"""Intervals of the evidence, by bootstrap: patients are drawn anew, and for differences the draws of labels as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from utils.seeding import generator

REPLICATES = 10_000


class Estimate(NamedTuple):
    """A value and its 95 % interval; ``draws``: how many it is the mean of."""

    value: float
    low: float
    high: float
    draws: int


def patient_weights(groups: Sequence[str], replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """How often each image counts: (1 + replicates, N); 1 in the first row, then as often as its patient was drawn."""
    names, of = np.unique(np.array(groups), return_inverse=True)
    drawn = generator(seed, "evidence", "bootstrap").integers(len(names), size=(replicates, len(names)))
    counts = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
    return np.concatenate([np.ones((1, len(names))), counts]).astype(np.float32)[:, of]


def weighted_auroc(labels: np.ndarray, ranks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The area under the ROC curve in each row of ``weights`` (B, N); ties count by half. NaN without both kinds.

    ``labels``: (N,) of 0 and 1. ``ranks``: (N,), the higher the likelier.
    """
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    higher = np.sign(ranks[positive][:, None] - ranks[negative]) / 2 + 0.5
    of_positive, of_negative = weights[:, positive], weights[:, negative]
    won = np.einsum("bn,bn->b", of_positive @ higher.astype(weights.dtype), of_negative)
    pairs = of_positive.sum(axis=1, dtype=float) * of_negative.sum(axis=1, dtype=float)
    return np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def estimate(scores: np.ndarray) -> Estimate:
    """The mean over draws; ``scores`` (draws, 1 + B): of each draw, as it is and for each replicate of the patients."""
    means = scores.mean(axis=0)
    return Estimate(float(means[0]), *_ends(means[1:]), len(scores))


def paired_difference(scores: np.ndarray, base: np.ndarray, seed: int = 0) -> Estimate:
    """The mean of ``scores`` less ``base`` (both (draws, 1 + B), the same draws and replicates of the patients).

    The interval is over patients and draws. Of n draws, n - 1 are taken with replacement, so that the draws' part of
    the variance is s^2 / n (McCarthy and Snowden). The interaction of patients and draws counts more than once (Owen's
    pigeonhole bootstrap), so the interval is too wide rather than too narrow. With one draw it is over patients alone.
    """
    differences = scores - base
    count, replicates = len(differences), differences.shape[1] - 1
    rng = generator(seed, "evidence", "draws")
    chosen = rng.integers(count, size=(max(1, count - 1), replicates))
    resampled = differences[chosen, np.arange(1, replicates + 1)].mean(axis=0)
    return Estimate(float(differences[:, 0].mean()), *_ends(resampled), count)


def _ends(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)
