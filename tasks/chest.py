"""``--n chest``: what lists and tables say of X-rays."""

from __future__ import annotations

from pathlib import Path

from datasets.xray.labelled import SingleXRays
from datasets.xray.labels import Labelled, Labelling, find_labelled
from options import Options
from tasks.base import mirrors
from tasks.classification import Classification, Part
from utils.console import say


def find_chest_labels(options: Options) -> Classification:
    """The three parts of the labelled images in ``--data``."""
    found = find_labelled(Path(options.data), options.train_list or None, options.ratio, labelling(options))

    def part(labelled: Labelled) -> Part:
        samples = SingleXRays(labelled.files, labelled.labels, options.inchannel, size=options.size)
        return Part(labelled.files, labelled.labels, samples, labelled.patients)

    mirror = mirrors(options.mirror, found.classes)
    if not mirror and options.mirror == "auto":
        say("no random left-right flips: a class name contains left or right (--mirror on overrides this)")
    augmented = SingleXRays(
        found.train.files, found.train.labels, options.inchannel, options.seed, options.size, mirror
    )
    train, valid, test = (part(each) for each in (found.train, found.valid, found.test))
    return Classification(found.target, train, valid, test, augmented, found.listed, written=found.written)


def labelling(options: Options) -> Labelling:
    """How the options say that labels are to be read."""
    return Labelling(
        options.valid_list,
        options.test_list,
        options.image_column,
        options.label_column,
        options.patient_column,
        options.target,
        options.shares,
        options.seed,
    )
