"""Multi-label classification as a task: whatever the images are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from datasets.loader import Loader, PairDataset
from methods.supervised import Supervised
from models.classifier import Classifier
from options import Options
from tasks.base import Results, Task, plain_loader, training_loader
from tasks.class_scores import ClassScores, bce_loss, class_scores, undefined
from training.devices import Devices
from training.evaluation import EvalResult
from training.network import in_memory_format, new_unet, start_from_weight
from training.precision import Precision
from training.predict import predict
from utils.console import say, warn
from utils.errors import UserError
from utils.process_group import ProcessGroup
from utils.text import counted


@dataclass(frozen=True)
class Part:
    """Of the images of a task: ``files``, their ``labels`` (N, classes) of 0 and 1, and ``samples``, not augmented.

    A sample holds ``image`` float32 (C, ...) and ``label`` float32 (classes,).
    """

    files: Sequence[str]
    labels: np.ndarray
    samples: PairDataset


@dataclass(frozen=True)
class Classification:
    """The data of a task: three parts that share no patient, and ``augmented``, the samples to train on.

    ``listed``: the training images before ``--ratio`` left some out. ``note``: what an epoch takes of those that it
    left, if not each once. ``windows``: of CT crops, as far as their records tell (datasets/ct/crop_records.py).
    """

    classes: tuple[str, ...]
    train: Part
    valid: Part
    test: Part
    augmented: PairDataset
    listed: int
    note: str = ""
    windows: Sequence[Mapping[str, Any]] = ()

    def never_seen(self) -> list[str]:
        """The classes without a positive among the training images."""
        positives = self.train.labels.sum(axis=0)
        return [name for name, count in zip(self.classes, positives, strict=True) if not count]

    def announce(self, ratio: float) -> None:
        """Say how large the parts are, and which classes cannot be judged in them; UserError if none can."""
        parts = {"training": self.train, "validation": self.valid, "test": self.test}
        sizes = {name: f"{len(part.files)} {name}" for name, part in parts.items()}
        if ratio < 1:
            sizes["training"] = (
                f"{len(self.train.files)} of {self.listed} training (--ratio {ratio} leaves the others to "
                "pre-training; 1.0 takes all)"
            )
        say(f"images: {', '.join(sizes.values())}")
        for name, part in parts.items():
            why = undefined(part.labels, self.classes)
            for reason in sorted(set(why.values())):
                warn(f"{name} images, {reason}: {', '.join(label for label in why if why[label] == reason)}")
            if part is not self.train and len(why) == len(self.classes):
                raise UserError(f"{name} images: no class has both positives and negatives, so there is no AUROC")


FindClassification = Callable[[Options], Classification]


def build_classifier(options: Options, data: Classification) -> tuple[Classifier, dict[str, Any]]:
    """The classifier, from random values or from ``--weight``, and what is known of that."""
    shape = data.train.samples[(0, 0)]["image"].shape[1:]
    classifier = Classifier(new_unet(options, shape), len(data.classes))
    return classifier, start_from_weight(options, classifier, data.windows)


def classify(find: FindClassification, options: Options, devices: Devices, ranks: ProcessGroup) -> Task:
    """The task of classifying what ``find`` finds, judged by the mean AUROC."""
    data = find(options)
    loader = training_loader(options, data.augmented, devices, ranks)
    valid_part, test_part = (plain_loader(options, part.samples, devices, ranks) for part in (data.valid, data.test))
    network, start = build_classifier(options, data)
    network = in_memory_format(network, options, devices.main)
    frozen: list[nn.Module] = [network.unet] if options.phase == "linear" else []
    method = Supervised(network, bce_loss, frozen, ("auroc",), devices.wrap, ranks).to(devices.main)
    data.announce(options.ratio)  # late: what cannot begin is one line

    def scores(part: Loader, precision: Precision) -> tuple[ClassScores, float]:
        logits, labels = predict(method.predict, part, precision)
        assert labels is not None
        loss = bce_loss(torch.from_numpy(logits), torch.from_numpy(labels)).item()
        return class_scores(labels, logits, data.classes), loss

    def validate(precision: Precision) -> EvalResult:
        found, loss = scores(valid_part, precision)
        over = {"auroc": f"{len(found.auroc)} of {counted(len(data.classes), 'class')}"}
        return EvalResult(-found.mean, {"auroc": found.mean, "loss": loss} | _named(found), over)

    def test(precision: Precision) -> Results:
        found, loss = scores(test_part, precision)
        return classification_results(found, len(data.test.files), data.never_seen(), {"loss": loss})

    facts = {"classes": list(data.classes), "windows": list(data.windows)}
    return Task(method, loader, data.train.files, validate, test, data.note, start, facts)


def _named(scores: ClassScores) -> dict[str, float]:
    return {f"auroc/{name}": value for name, value in scores.auroc.items()}


def classification_results(
    scores: ClassScores, images: int, never_seen: Collection[str], more: dict[str, float] | None = None
) -> Results:
    """AUROC of each class and their mean, and ``more`` figures; ``never_seen``: as of a Classification."""
    values = {"images": images, "mean_auroc": scores.mean, **(more or {}), **asdict(scores)}
    scalars = {"auroc": scores.mean, **(more or {}), **_named(scores)}
    return Results(values, scalars, scores.table(counted(images, "test image"), never_seen))
