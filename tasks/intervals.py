"""How far figures could be off by the choice of the test images: bootstrap intervals, drawn over patients.

Images of one patient are no independent witnesses, so patients are drawn, with replacement, and all images of a patient
come along as often as it was drawn. A figure's interval is from the 2.5th to the 97.5th percentile over the draws.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np

from utils.console import warn
from utils.seeding import generator
from utils.text import counted

DRAWS = 2000
PERCENT = 95
FEW = 30  # patients or cases, below which an interval says little
CHUNK = 50  # draws that are computed together

Interval = tuple[float, float]


def weights(groups: Sequence[Hashable], seed: int, draws: int = DRAWS) -> Iterator[np.ndarray]:
    """How often each image is in each draw: float64 (draws of this chunk, N). ``groups``: whose each image is.

    Draw ``i`` takes as many patients as there are: the row ``i`` of ``generator(seed, "bootstrap").integers(P, (draws,
    P))``, patients numbered by their first image.
    """
    numbers: dict[Hashable, int] = {}
    owner = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    rng, patients = generator(seed, "bootstrap"), len(numbers)
    for start in range(0, draws, CHUNK):
        rows = rng.integers(patients, size=(min(CHUNK, draws - start), patients))
        counts = np.stack([np.bincount(row, minlength=patients) for row in rows])
        yield counts[:, owner].astype(np.float64)


def auroc_of_draws(labels: np.ndarray, scores: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The AUROC of each draw (D,), NaN where one has images of one kind alone.

    ``labels``: (N,) of 0 and 1, NaN where it is not known. ``scores``: (N,). ``weight``: (D, N). Positives are compared
    with negatives, each as often as drawn; ties count half.
    """
    positive, negative = labels == 1, labels == 0
    order = np.argsort(scores[negative], kind="stable")
    ordered = scores[negative][order]
    below = np.zeros((len(weight), len(ordered) + 1))
    np.cumsum(weight[:, np.flatnonzero(negative)[order]], axis=1, out=below[:, 1:])
    first, last = (np.searchsorted(ordered, scores[positive], side) for side in ("left", "right"))
    own = weight[:, positive]
    won = (own * (below[:, first] + below[:, last])).sum(axis=1) / 2
    pairs = own.sum(axis=1) * below[:, -1]
    return np.divide(won, pairs, out=np.full(len(weight), np.nan), where=pairs > 0)


def interval(values: np.ndarray) -> Interval | None:
    """The percentiles of a figure over the draws (D,), those where it is not defined left out; None if it never is."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    low, high = np.percentile(defined, [(100 - PERCENT) / 2, (100 + PERCENT) / 2])
    return float(low), float(high)


def auroc_intervals(
    labels: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
    groups: Sequence[Hashable],
    seed: int,
    draws: int = DRAWS,
) -> dict[str, Interval]:
    """The interval of each class's AUROC, and of their mean under ``""``; of what is never defined, or is of one group,
    none.

    ``labels``, ``scores``: (N, classes). The mean of a draw is that of the classes that are defined in it.
    """
    if is_one(groups):
        return {}
    rows = [
        np.stack([auroc_of_draws(labels[:, k], scores[:, k], weight) for k in range(len(classes))], axis=1)
        for weight in weights(groups, seed, draws)
    ]
    values = np.concatenate(rows)
    known = (~np.isnan(values)).sum(axis=1)
    mean = np.divide(np.nansum(values, axis=1), known, out=np.full(len(values), np.nan), where=known > 0)
    named = {**dict(zip(classes, values.T, strict=True)), "": mean}
    return {name: found for name, each in named.items() if (found := interval(each))}


def mean_interval(values: np.ndarray, groups: Sequence[Hashable], seed: int, draws: int = DRAWS) -> Interval | None:
    """The interval of the mean of values (N,); None if all are of one group."""
    if is_one(groups):
        return None
    return interval(np.concatenate([weight @ values / weight.sum(axis=1) for weight in weights(groups, seed, draws)]))


def is_one(groups: Sequence[Hashable]) -> bool:
    """Whether all images are of one patient or case: all draws are alike, and no interval says anything."""
    return len(set(groups)) == 1


def shown(found: Interval | None) -> str:
    """``0.812 .. 0.874``."""
    return f"{found[0]:.3f} .. {found[1]:.3f}" if found else ""


def warn_if_few(number: int, of: str) -> None:
    """Warn of a test part with few ``of`` which intervals are drawn over, "test patient" or "test case"."""
    if number < FEW:
        warn(f"{counted(number, of)}: the result and its interval say little (fewer than {FEW})")


def recorded(intervals: Mapping[str, object], groups: Sequence[Hashable], of: str) -> dict[str, object]:
    """For ``metrics.json``: the intervals, and how they were made. ``of``: what was drawn, "patient"."""
    how = f"{PERCENT} %, bootstrap of {DRAWS} draws over {counted(len(set(groups)), of)}"
    return {"intervals": {"how": how, **intervals}}
