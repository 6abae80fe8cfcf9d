"""Kinds of labels, and what each means: its loss, what is said of an image, and how that is judged.

Several classes, yes or no of each (AUROC); one class of many (AUROC one-vs-rest, balanced accuracy); one number (mean
absolute error).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from datasets.xray.label_columns import CLASSES, MULTILABEL, REGRESSION, Target
from tasks.base import Results
from tasks.class_scores import ClassScores, bce_loss, class_scores, known_bce_loss, undefined
from tasks.intervals import (
    PERCENT,
    Interval,
    auroc_intervals,
    interval,
    is_one,
    mean_interval,
    recorded,
    shown,
    weights,
)
from tasks.outputs import IDENTITY, SIGMOID, SOFTMAX, as_numbers
from training.evaluation import EvalResult
from utils.console import warn
from utils.errors import UserError
from utils.text import counted, listing

FAR = 20  # times the median distance from the median
MANY = 20  # values, of which the median distance says something
OUTPUTS = {MULTILABEL: SIGMOID, CLASSES: SOFTMAX, REGRESSION: IDENTITY}


@dataclass(frozen=True)
class Kind(ABC):
    """``target``: what is learned. ``headline``: as of a Method. ``group``: what images share."""

    target: Target
    group: str = field(default="patient", kw_only=True)

    @property
    @abstractmethod
    def headline(self) -> tuple[str, ...]: ...

    @abstractmethod
    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of outputs (B, classes) in float32, a mean over the samples."""

    def scored(self, outputs: np.ndarray) -> np.ndarray:
        """What is judged of the network's outputs, (N, classes)."""
        return as_numbers(outputs, **self.in_numbers())

    def in_numbers(self) -> dict[str, Any]:
        """What turns outputs into numbers that people read (tasks/outputs.py)."""
        return {"kind": OUTPUTS[self.target.kind]}

    def record(self) -> dict[str, Any]:
        """What a checkpoint's ``run`` tells of its labels, plain."""
        return {"classes": list(self.target.classes), **self.in_numbers()}

    @abstractmethod
    def judged(self, labels: np.ndarray, scores: np.ndarray) -> EvalResult:
        """The result on a part, which chooses the epoch; ``scores``: as :meth:`scored` gives them."""

    @abstractmethod
    def results(
        self, labels: np.ndarray, scores: np.ndarray, groups: Sequence[str], train_labels: np.ndarray, seed: int
    ) -> Results:
        """The figures on the test part, with their intervals; ``groups``: whose each image is."""

    @abstractmethod
    def check(self, part: str, labels: np.ndarray, judged: bool, flags: str = "--split, or the lists") -> None:
        """UserError if this part is ``judged`` on, and nothing can be told of it; ``flags`` choose its patients."""

    def undefined(self, labels: np.ndarray) -> dict[str, str]:
        """The classes that these labels cannot judge, and why."""
        return {}

    def never_seen(self, train_labels: np.ndarray) -> list[str]:
        """The classes without a positive among the training images."""
        return [name for k, name in enumerate(self.target.classes) if not (train_labels[:, k] == 1).any()]


@dataclass(frozen=True)
class YesOrNo(Kind):
    """Several classes, yes or no of each. ``masked``: whether some labels are not known."""

    masked: bool = False

    @property
    def headline(self) -> tuple[str, ...]:
        return ("auroc",)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return known_bce_loss(outputs, labels) if self.masked else bce_loss(outputs, labels)

    def scored(self, outputs: np.ndarray) -> np.ndarray:
        """The logits: probabilities near 1 would be equal where these are not."""
        return outputs

    def judged(self, labels: np.ndarray, scores: np.ndarray) -> EvalResult:
        found = class_scores(labels, scores, self.target.classes)
        over = {"auroc": f"{len(found.auroc)} of {counted(len(self.target.classes), 'class')}"}
        return EvalResult(-found.mean, {"auroc": found.mean} | _named(found), over)

    def results(
        self, labels: np.ndarray, scores: np.ndarray, groups: Sequence[str], train_labels: np.ndarray, seed: int
    ) -> Results:
        found = class_scores(labels, scores, self.target.classes)
        intervals = auroc_intervals(labels, scores, self.target.classes, groups, seed)
        more = self.others(labels, scores, groups, seed)
        others = {name: value for name, (value, _) in more.items()}
        spans = {name: span for name, span in intervals.items() if name}
        spans_of = {"mean_auroc": intervals.get(""), **{name: span for name, (_, span) in more.items()}, "auroc": spans}
        values = {"images": len(labels), "mean_auroc": found.mean, **others, **asdict(found)}
        title, in_words = (
            counted(len(labels), "test image"),
            {name.replace("_", " "): each for name, each in more.items()},
        )
        table = found.table(title, self.never_seen(train_labels), intervals, in_words)
        scalars = {"auroc": found.mean, **others, **_named(found)}
        return Results({**values, **recorded(spans_of, groups, self.group)}, scalars, table)

    def others(
        self, labels: np.ndarray, scores: np.ndarray, groups: Sequence[str], seed: int
    ) -> dict[str, tuple[float, Interval | None]]:
        """Figures beside the AUROC, with their intervals."""
        return {}

    def check(self, part: str, labels: np.ndarray, judged: bool, flags: str = "--split, or the lists") -> None:
        if judged and len(self.undefined(labels)) == len(self.target.classes):
            raise UserError(
                f"{part} images: no class has both positives and negatives, so there is no AUROC; give this part more "
                f"patients ({flags})"
            )

    def undefined(self, labels: np.ndarray) -> dict[str, str]:
        return undefined(labels, self.target.classes)


@dataclass(frozen=True)
class OneOfMany(YesOrNo):
    """One class of many: labels have a single 1 in each row."""

    @property
    def headline(self) -> tuple[str, ...]:
        return ("auroc", "balanced_accuracy")

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs, labels)

    def scored(self, outputs: np.ndarray) -> np.ndarray:
        return Kind.scored(self, outputs)

    def judged(self, labels: np.ndarray, scores: np.ndarray) -> EvalResult:
        result = super().judged(labels, scores)
        return result._replace(values={**result.values, "balanced_accuracy": balanced_accuracy(labels, scores)})

    def others(
        self, labels: np.ndarray, scores: np.ndarray, groups: Sequence[str], seed: int
    ) -> dict[str, tuple[float, Interval | None]]:
        right = scores.argmax(axis=1) == labels.argmax(axis=1)
        draws = np.concatenate([_balanced(labels, right, weight) for weight in weights(groups, seed)])
        span = None if is_one(groups) else interval(draws)
        return {"balanced_accuracy": (balanced_accuracy(labels, scores), span)}


@dataclass(frozen=True)
class Number(Kind):
    """One number. The network learns it as deviations of ``scale`` from ``mean``, both of the training images."""

    mean: float = 0.0
    scale: float = 1.0

    @property
    def headline(self) -> tuple[str, ...]:
        return ("mae",)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return F.l1_loss(outputs, (labels - self.mean) / self.scale)

    def in_numbers(self) -> dict[str, Any]:
        return {**super().in_numbers(), "mean": self.mean, "scale": self.scale}

    def judged(self, labels: np.ndarray, scores: np.ndarray) -> EvalResult:
        mae = float(np.abs(scores - labels).mean())
        return EvalResult(mae, {"mae": mae})

    def results(
        self, labels: np.ndarray, scores: np.ndarray, groups: Sequence[str], train_labels: np.ndarray, seed: int
    ) -> Results:
        (name,), title = self.target.classes, counted(len(labels), "test image")
        baseline = f"baseline: always {self.mean:.4g} (training mean)"
        errors = {name: np.abs(scores - labels)[:, 0], baseline: np.abs(labels - self.mean)[:, 0]}
        errors = {key: value.astype(np.float64) for key, value in errors.items()}
        means = {key: float(value.mean()) for key, value in errors.items()}
        spans = {key: mean_interval(value, groups, seed) for key, value in errors.items()}
        width = max(map(len, (title, *errors)))
        lines = [f"{title:<{width}}  mean absolute error  {PERCENT} % interval"]
        lines += [f"{key:<{width}}  {means[key]:19.4f}  {shown(spans[key])}".rstrip() for key in errors]
        record = recorded({"mae": spans[name], "baseline_mae": spans[baseline]}, groups, self.group)
        values = {"images": len(labels), "mae": means[name], "baseline_mae": means[baseline], **record}
        return Results(values, {"mae": means[name], "baseline_mae": means[baseline]}, "\n".join(lines))

    def check(self, part: str, labels: np.ndarray, judged: bool, flags: str = "--split, or the lists") -> None:
        if len(np.unique(labels)) < 2:
            warn(f"{part} images: all have the same {self.target.classes[0]}, {labels[0, 0]:g}")
        if len(stand_ins := _stand_ins(labels[:, 0])):
            warn(
                f"{part} images: {counted(len(stand_ins), 'value')} of {self.target.classes[0]} ({stand_ins[0]:g}) far "
                f"from all others, median {np.median(labels):g}: if it stands for unknown, leave the cells empty"
            )

    def never_seen(self, train_labels: np.ndarray) -> list[str]:
        return []


def _stand_ins(values: np.ndarray) -> np.ndarray:
    """Those of many values (N,) that look like codes for unknown, far from all others.

    They have a sign of their own (-1000 beside ages), or one digit again and again (999) in several values. Far is
    meant in median distances from the median: a skewed quantity has single values far out, the same one for all images
    of a patient, or for all above what an instrument measures, so neither distance nor repetition is enough.
    """
    apart = np.abs(values - np.median(values))
    unit = np.median(apart)
    far = apart > FAR * unit
    if len(values) < MANY or unit == 0 or not far.any():
        return values[:0]
    rest = values[~far]
    for sign in (-1, 1):
        own = far & (np.sign(values) == sign)
        if own.any() and (sign * rest <= 0).all() and _gap(values, own) > FAR * unit:
            return values[own]
    for number in np.unique(values[far]):
        same = values == number
        if same.sum() > 1 and _is_one_digit(number) and _gap(values, same) > FAR * unit:
            return values[same]
    return values[:0]


def _gap(values: np.ndarray, some: np.ndarray) -> float:
    """The distance of these values (a mask) from the others."""
    others = values[~some]
    return min(float(np.abs(others - number).min()) for number in np.unique(values[some]))


def _is_one_digit(number: float) -> bool:
    digits = f"{abs(number):.10g}".replace(".", "")
    return len(digits) > 1 and len(set(digits)) == 1


def warn_of_undefined(kind: Kind, parts: Mapping[str, np.ndarray]) -> None:
    """Warn of the classes that the labels of these parts cannot judge: one line for parts that lack the same ones."""
    told: dict[tuple[str, str], list[str]] = {}
    for part, labels in parts.items():
        why = kind.undefined(labels)
        for reason in sorted(set(why.values())):
            classes = ", ".join(label for label in why if why[label] == reason)
            told.setdefault((reason, classes), []).append(part)
    for (reason, classes), names in told.items():
        warn(f"{reason} in {listing(names)} images: {classes}")


def kind_of(target: Target, train_labels: np.ndarray, masked: bool = False, group: str = "patient") -> Kind:
    """How labels like these of the training images are learned; ``masked``: whether some of any part are not known."""
    if target.kind == MULTILABEL:
        return YesOrNo(target, masked, group=group)
    if target.kind == CLASSES:
        return OneOfMany(target, group=group)
    mean, scale = float(train_labels.mean(dtype=np.float64)), float(train_labels.std(dtype=np.float64))
    if not scale > 0:
        raise UserError(f"all training images have the same {target.classes[0]}, {mean:g}: there is nothing to learn")
    return Number(target, mean, scale, group=group)


def balanced_accuracy(labels: np.ndarray, scores: np.ndarray) -> float:
    """The mean over the classes that there are of the part of their images whose largest score is that class's."""
    right = scores.argmax(axis=1) == labels.argmax(axis=1)
    return float(_balanced(labels, right, np.ones((1, len(labels))))[0])


def _balanced(labels: np.ndarray, right: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The same of each draw (D,); ``right``: (N,), ``weight``: (D, N)."""
    there, hit = weight @ labels.astype(np.float64), weight @ (labels * right[:, None]).astype(np.float64)
    recall = np.divide(hit, there, out=np.zeros_like(hit), where=there > 0)
    return recall.sum(axis=1) / (there > 0).sum(axis=1)


def _named(scores: ClassScores) -> dict[str, float]:
    return {f"auroc/{name}": value for name, value in scores.auroc.items()}
