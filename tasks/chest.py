"""``--n chest``: the findings on chest X-rays, as ChestX-ray14 lists them."""

from __future__ import annotations

from pathlib import Path

from datasets.xray.labelled import SingleXRays
from datasets.xray.labels import Labelled, find_labelled
from options import Options
from tasks.classification import Classification, Part


def find_chest_labels(options: Options) -> Classification:
    """The three parts of the labelled images in ``--data``."""
    found = find_labelled(Path(options.data), options.train_list or None, options.ratio)

    def part(labelled: Labelled) -> Part:
        samples = SingleXRays(labelled.files, labelled.labels, options.inchannel, size=options.size)
        return Part(labelled.files, labelled.labels, samples)

    augmented = SingleXRays(found.train.files, found.train.labels, options.inchannel, options.seed, options.size)
    train, valid, test = (part(each) for each in (found.train, found.valid, found.test))
    return Classification(found.classes, train, valid, test, augmented, found.listed)
