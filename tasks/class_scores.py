"""What classification computes: its losses, and the area under the ROC curve (AUROC) of each class.

scikit-learn is imported where it is needed: that takes seconds, which other phases do not have to wait.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.intervals import PERCENT, Interval, shown
from utils.text import counted

NEIGHBOURS = 20  # that are looked up
NO_POSITIVES, NO_NEGATIVES = "no positives", "no negatives"


def bce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of logits (B, classes) with labels of 0 and 1, the mean over samples and classes."""
    return F.binary_cross_entropy_with_logits(logits, labels)


def known_bce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The same where labels are NaN, not known: those add nothing, and count in the mean as if they were right.

    So an image weighs the same in whatever batch, and on whatever device, it is.
    """
    known = ~labels.isnan()
    losses = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    return torch.where(known, losses, 0).mean()


@dataclass(frozen=True)
class ClassScores:
    """``auroc``: by class. ``skipped``: the classes whose AUROC is not defined, and why. ``positives``: of each."""

    auroc: dict[str, float]
    skipped: dict[str, str]
    positives: dict[str, int]

    @property
    def mean(self) -> float:
        """Of the classes that were not skipped; NaN if all were."""
        return sum(self.auroc.values()) / len(self.auroc) if self.auroc else math.nan

    def table(
        self,
        title: str,
        never_seen: Collection[str] = (),
        intervals: Mapping[str, Interval] | None = None,
        more: Mapping[str, tuple[float, Interval | None]] | None = None,
    ) -> str:
        """Lines to read, one a class, and one of all that have no positives, neither here nor in training.

        ``never_seen``: the classes whose AUROC says nothing, for want of examples in training.

        ``intervals``: of the classes, and of the mean under ``""`` (tasks/intervals.py). ``more``: other figures, with
        theirs.
        """
        found = intervals or {}
        mean = f"mean of {counted(len(self.auroc), 'class')}"
        others = more or {}
        width = max(map(len, (title, mean, *self.positives, *others)))
        lines = [f"{title:<{width}}  positives   AUROC" + f"  {PERCENT} % interval" * bool(found)]
        nowhere = [name for name in self.positives if name in never_seen and self.skipped.get(name) == NO_POSITIVES]
        for name, count in self.positives.items():
            if name in nowhere:
                continue
            value = f"{self.auroc[name]:.4f}" if name in self.auroc else f"   nan  {self.skipped[name]}"
            remark = "  no positives in training" if name in never_seen and name in self.auroc else ""
            lines.append(f"{name:<{width}}  {count:9d}  {value}  {shown(found.get(name))}".rstrip() + remark)
        lines.append(f"{mean:<{width}}  {'':9}  {self.mean:.4f}  {shown(found.get(''))}".rstrip())
        lines += [
            f"{name:<{width}}  {'':9}  {value:.4f}  {shown(span)}".rstrip() for name, (value, span) in others.items()
        ]
        if nowhere:
            lines.append(f"no positives: {', '.join(nowhere)}")
        return "\n".join(lines)


def undefined(labels: np.ndarray, classes: Sequence[str]) -> dict[str, str]:
    """The classes of labels (N, classes) of 0, 1 and NaN, not known, that have no AUROC, and why."""
    why = {}
    for column, name in enumerate(classes):
        if not (labels[:, column] == 1).any():
            why[name] = NO_POSITIVES
        elif not (labels[:, column] == 0).any():
            why[name] = NO_NEGATIVES
    return why


def class_scores(labels: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> ClassScores:
    """AUROC of each class, from labels of 0 and 1 and scores (the higher the likelier), both (N, classes).

    Images whose label of a class is NaN, not known, do not count for it.
    """
    from sklearn.metrics import roc_auc_score

    skipped = undefined(labels, classes)
    known = ~np.isnan(labels)
    auroc = {
        name: float(roc_auc_score(labels[known[:, column], column], scores[known[:, column], column]))
        for column, name in enumerate(classes)
        if name not in skipped
    }
    positives = {name: int((labels[:, column] == 1).sum()) for column, name in enumerate(classes)}
    return ClassScores(auroc, skipped, positives)


def neighbour_scores(features: np.ndarray, labels: np.ndarray, queries: np.ndarray, neighbours: int) -> np.ndarray:
    """The mean labels of the ``neighbours`` nearest features, by cosine: (M, classes) for ``queries`` (M, C).

    ``features``: (N, C). ``labels``: (N, classes); of neighbours whose label is NaN, not known, the mean of all counts.
    """
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=neighbours, metric="cosine").fit(features)
    if np.isnan(labels).any():
        known = ~np.isnan(labels)
        means = np.nansum(labels, axis=0) / np.maximum(known.sum(axis=0), 1)
        labels = np.where(known, labels, means).astype(labels.dtype)
    return labels[index.kneighbors(queries, return_distance=False)].mean(axis=1)
