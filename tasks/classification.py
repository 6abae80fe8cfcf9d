"""Classification, and regression of a number, as a task: whatever the images are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from datasets.loader import Loader, PairDataset
from datasets.xray.label_columns import CLASSES, REGRESSION, Target
from methods.supervised import Supervised
from models.classifier import Classifier
from options import Options
from tasks.base import Results, Task, plain_loader, training_loader
from tasks.copies import warn_of_contradictions, warn_of_copies
from tasks.intervals import warn_if_few
from tasks.kinds import Kind, kind_of, warn_of_undefined
from tasks.outputs import IDENTITY, as_numbers
from tasks.prediction_files import write_table
from tasks.prediction_pictures import draw_roc
from training.devices import Devices
from training.evaluation import EvalResult
from training.network import in_memory_format, new_unet, start_from_weight
from training.precision import Precision
from training.predict import predict
from training.reporting.run_record import labels_hash
from utils.console import say
from utils.process_group import ProcessGroup
from utils.progress import waiting
from utils.text import counted

SHOWN = 20  # names of classes
INTERVALS = "drawing test patients for the intervals"


@dataclass(frozen=True)
class Part:
    """Of the images of a task: ``files``, their ``labels`` (N, classes), and ``samples``, not augmented.

    A sample holds ``image`` float32 (C, ...) and ``label`` float32 (classes,). ``patients``: whose each image is.
    """

    files: Sequence[str]
    labels: np.ndarray
    samples: PairDataset
    patients: Sequence[str]


@dataclass(frozen=True)
class Classification:
    """The data of a task: three parts that share no patient, and ``augmented``, the samples to train on.

    ``listed``: the training images before ``--ratio`` left some out. ``note``: what an epoch takes of those that it
    left, if not each once. ``windows``: of CT crops, as far as their records tell (datasets/ct/crop_records.py).
    ``written``: texts for the output folder, by the names of their files. ``group``: what a ``patient`` of a part is.
    """

    target: Target
    train: Part
    valid: Part
    test: Part
    augmented: PairDataset
    listed: int
    note: str = ""
    windows: Sequence[Mapping[str, Any]] = ()
    written: Mapping[str, str] = field(default_factory=dict)
    group: str = "patient"

    def kind(self) -> Kind:
        """What its labels mean."""
        masked = any(np.isnan(part.labels).any() for part in (self.train, self.valid, self.test))
        return kind_of(self.target, self.train.labels, masked, self.group)

    def parts(self) -> dict[str, Part]:
        """By their names."""
        return {"training": self.train, "validation": self.valid, "test": self.test}

    def announce(self, ratio: float, judged: Sequence[str] = ("validation", "test")) -> None:
        """Say how large the parts are, and what cannot be judged in them; UserError if nothing can."""
        parts = self.parts()
        groups = {name: len(set(part.patients)) for name, part in parts.items()}
        known = any(groups[name] < len(part.files) for name, part in parts.items())  # else each image has its own
        sizes = {name: f"{len(part.files)} {name}" for name, part in parts.items()}
        brackets = {name: [str(number)] * known for name, number in groups.items()}
        if known:
            brackets["training"] = [counted(groups["training"], self.group)]
        if ratio < 1:
            sizes["training"] = f"{len(self.train.files)} of {self.listed} training"
            brackets["training"] += [f"--ratio {ratio}: the others are reserved for pre-training; --ratio 1.0 uses all"]
        sizes = {name: size + f" ({'; '.join(brackets[name])})" * bool(brackets[name]) for name, size in sizes.items()}
        say(f"images: {', '.join(sizes.values())}")
        say(f"labels: {self._labels()}")
        kind = self.kind()
        warn_of_undefined(kind, {name: part.labels for name, part in parts.items()})
        for name, part in parts.items():
            kind.check(name, part.labels, judged=name in judged)
        warn_if_few(groups["test"], f"test {self.group if known else 'image'}")

    def _labels(self) -> str:
        names = self.target.classes
        some = ", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)
        if self.target.kind == REGRESSION:
            values = self.train.labels
            return (
                f"a number, {some} ({np.min(values):g} to {np.max(values):g} in training, median {np.median(values):g})"
            )
        if self.target.kind == CLASSES:
            return f"one of {counted(len(names), 'class')} ({some})"
        every = np.concatenate([part.labels for part in (self.train, self.valid, self.test)])
        unknown = int(np.isnan(every).sum())
        left_out = f"; {unknown} of {every.size} labels are unknown and excluded from the loss and the results"
        return f"yes or no of {counted(len(names), 'class')} ({some}){left_out * bool(unknown)}"


FindClassification = Callable[[Options], Classification]


def build_classifier(options: Options, data: Classification, shape: Sequence[int]) -> tuple[Classifier, dict[str, Any]]:
    """The classifier, from random values or from ``--weight``, and what is known of that. ``shape``: of an image."""
    classifier = Classifier(new_unet(options, shape), len(data.target.classes))
    return classifier, start_from_weight(options, classifier, data.windows)


def classify(find: FindClassification, options: Options, devices: Devices, ranks: ProcessGroup) -> Task:
    """The task of learning what ``find`` finds, judged as its kind of labels is."""
    data = find(options)
    loader = training_loader(options, data.augmented, devices, ranks)
    valid_part, test_part = (plain_loader(options, part.samples, devices, ranks) for part in (data.valid, data.test))
    network, start = build_classifier(options, data, loader.first_sample["image"].shape[1:])
    network = in_memory_format(network, options, devices.main)
    frozen: list[nn.Module] = [network.unet] if options.phase == "linear" else []
    kind = data.kind()
    method = Supervised(network, kind.loss, frozen, kind.headline, devices.wrap, ranks).to(devices.main)
    data.announce(options.ratio)  # late: what cannot begin is one line
    if ranks.first and not options.goes_on:
        warn_of_copies({name: part.files for name, part in data.parts().items()})
        for name, part in data.parts().items():
            warn_of_contradictions(name, part.files, part.labels)

    def outputs(part: Loader, precision: Precision) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
        found, labels = predict(method.predict, part, precision)
        assert labels is not None
        return found, labels, {"loss": kind.loss(torch.from_numpy(found), torch.from_numpy(labels)).item()}

    def validate(precision: Precision) -> EvalResult:
        found, labels, loss = outputs(valid_part, precision)
        result = kind.judged(labels, kind.scored(found))
        return result._replace(values={**result.values, **loss})

    def test(precision: Precision, output: Path) -> Results:
        raw, labels, loss = outputs(test_part, precision)
        scores, in_numbers = kind.scored(raw), kind.in_numbers()
        if ranks.first:
            names = [{"file": os.path.relpath(file, options.data)} for file in data.test.files]
            write_table(output, data.target.classes, names, as_numbers(raw, **in_numbers))
            if in_numbers["kind"] != IDENTITY:
                draw_roc(output, labels, scores, data.target.classes)
        with waiting(INTERVALS):
            found = kind.results(labels, scores, data.test.patients, data.train.labels, options.seed)
        return replace(found, values={**found.values, **loss}, scalars={**found.scalars, **loss})

    facts = {**kind.record(), "windows": list(data.windows)}
    parts = {"trained_by": data.train, "judged_by": data.valid, "tested_by": data.test}
    facts |= {name: labels_hash(part.files, part.labels) for name, part in parts.items()}
    return Task(method, loader, data.train.files, validate, test, data.note, start, facts, data.written)
