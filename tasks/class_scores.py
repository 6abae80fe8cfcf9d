"""What multi-label classification computes: its loss, and the area under the ROC curve (AUROC) of each class.

scikit-learn is imported where it is needed: that takes seconds, which other phases do not have to wait.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from utils.text import counted

NO_POSITIVES, NO_NEGATIVES = "no positives", "no negatives"


def bce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of logits (B, classes) with labels of 0 and 1, the mean over samples and classes."""
    return F.binary_cross_entropy_with_logits(logits, labels)


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

    def table(self, title: str, never_seen: Collection[str] = ()) -> str:
        """Lines to read, one a class; ``never_seen``: the classes whose AUROC says nothing, for want of examples."""
        mean = f"mean of {counted(len(self.auroc), 'class')}"
        width = max(map(len, (title, mean, *self.positives)))
        lines = [f"{title:<{width}}  positives   AUROC"]
        for name, count in self.positives.items():
            value = f"{self.auroc[name]:.4f}" if name in self.auroc else f"     -  {self.skipped[name]}"
            remark = "  no positives in training" if name in never_seen and name in self.auroc else ""
            lines.append(f"{name:<{width}}  {count:9d}  {value}{remark}")
        lines.append(f"{mean:<{width}}  {'':9}  {self.mean:.4f}")
        return "\n".join(lines)


def undefined(labels: np.ndarray, classes: Sequence[str]) -> dict[str, str]:
    """The classes of labels (N, classes) that have no AUROC, and why."""
    why = {}
    for name, positives in zip(classes, labels.sum(axis=0), strict=True):
        if positives in (0, len(labels)):
            why[name] = NO_NEGATIVES if positives else NO_POSITIVES
    return why


def class_scores(labels: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> ClassScores:
    """AUROC of each class, from labels of 0 and 1 and scores (the higher the likelier), both (N, classes)."""
    from sklearn.metrics import roc_auc_score

    skipped = undefined(labels, classes)
    auroc = {
        name: float(roc_auc_score(labels[:, column], scores[:, column]))
        for column, name in enumerate(classes)
        if name not in skipped
    }
    positives = {name: int(labels[:, column].sum()) for column, name in enumerate(classes)}
    return ClassScores(auroc, skipped, positives)


def neighbour_scores(features: np.ndarray, labels: np.ndarray, queries: np.ndarray, neighbours: int) -> np.ndarray:
    """The mean labels of the ``neighbours`` nearest features, by cosine: (M, classes) for ``queries`` (M, C).

    ``features``: (N, C). ``labels``: (N, classes) of 0 and 1.
    """
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=neighbours, metric="cosine").fit(features)
    return labels[index.kneighbors(queries, return_distance=False)].mean(axis=1)
