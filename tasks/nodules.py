"""``--n nodules``: nodule or not, of the crops that ``preprocess/nodule_crops.py`` cut out of LUNA16."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.ct.crop_records import windows_of
from datasets.ct.nodules import Crop, NoduleCrops, read_crops, split, without_pretrained
from datasets.xray.label_columns import MULTILABEL, Target
from options import Options
from tasks.classification import Classification, Part
from utils.errors import UserError
from utils.text import counted

TARGET = Target(MULTILABEL, ("nodule",))


def find_nodules(options: Options) -> Classification:
    """The crops in ``--data``, split by scan; ``--ratio`` leaves out the training scans that pre-training has seen."""
    data = Path(options.data)
    parts = split(read_crops(data), options.seed)
    train = without_pretrained(parts.train, data, options.train_list or None, options.ratio)
    if len({crop.label for crop in train}) < 2:
        raise UserError(
            f"--ratio {options.ratio}: the training crops that are left do not include both classes; give another "
            f"--ratio"
        )
    augmented = NoduleCrops(train, options.seed, balanced=True)
    train_part, valid, test = (_part(crops, options.seed) for crops in (train, parts.valid, parts.test))
    rare, kind = counted(len(augmented.rare), "crop"), "with a" if augmented.rare_label else "without a"
    note = f"balanced classes: each epoch uses the {rare} {kind} nodule once, and as many crops of the other class"
    windows = windows_of(crop.file for part in (parts.train, parts.valid, parts.test) for crop in part)
    return Classification(TARGET, train_part, valid, test, augmented, len(parts.train), note, windows, group="scan")


def _part(crops: Sequence[Crop], seed: int) -> Part:
    labels = np.array([[crop.label] for crop in crops], np.float32)
    samples = NoduleCrops(crops, seed, balanced=False)
    return Part([crop.file for crop in crops], labels, samples, [crop.uid for crop in crops])
