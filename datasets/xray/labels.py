"""The labelled lists of X-rays: which images are trained on, which choose the epoch, which are reported on."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.xray.files import ALL_IMAGES, PROJECT_LIST, Images, training_list
from datasets.xray.lists import CHEST14_LABELS, ImageList, first_part, read_list
from utils.errors import UserError

NIH_NAME = re.compile(r"(\d{8})_\d{3}\.\w+")  # <patient>_<number of the image>
VALID_LIST, TEST_LIST = "chest_valid.txt", "chest_test.txt"
LISTS = f"by --train_list FILE, and put a {VALID_LIST} and a {TEST_LIST} into --data, each line a name and its labels"


@dataclass(frozen=True)
class Labelled:
    """``files``: paths of images. ``labels``: float32 (N, classes) of 0 and 1."""

    files: list[str]
    labels: np.ndarray


@dataclass(frozen=True)
class ChestParts:
    """The names of the classes, and the parts; no patient is in two of them.

    ``listed``: the images of the training list, of which ``train`` has those that pre-training left.
    """

    classes: tuple[str, ...]
    listed: int
    train: Labelled
    valid: Labelled
    test: Labelled


def find_labelled(data: Path, train_list: str | None, ratio: float) -> ChestParts:
    """The labelled images under ``data``, a folder or a store as :func:`datasets.xray.files.find_chest` reads.

    The training list is that of pre-training, which took its first ``int(ratio * N)`` lines: the rest is trained on
    here, or all of it if ``ratio`` is 1. The others are ``chest_valid.txt`` and ``chest_test.txt`` in ``data``, or
    else the project's own. UserError if a list has no labels, if images are missing, if a patient is in two lists, or
    if more than one is both in what pre-training took and in the rest.
    """
    if train_list == ALL_IMAGES:
        raise UserError(
            f"--train_list {ALL_IMAGES}: images without a list have no labels; name one that has them, {LISTS}"
        )
    images = Images(data)
    paths = [training_list(data, train_list), *(_own_or_project(data, name) for name in (VALID_LIST, TEST_LIST))]
    lists = [read_list(path) for path in paths]
    classes = _classes(paths, lists)
    for (path, one), (other_path, other) in itertools.combinations(zip(paths, lists, strict=True), 2):
        shared = _shared_patients(one.names, other.names)
        if shared:
            raise UserError(
                f"{_some(shared)} in both {path} and {other_path}: what is trained on tells about what is judged "
                f"on; keep each patient in one list"
            )
    rest = _rest(lists[0], ratio, paths[0])
    remedy = f"put a {VALID_LIST} and a {TEST_LIST} of the images that are there into {data}"
    train, valid, test = parts = [
        Labelled(images.named(rest.names, paths[0], f"or name a list of those that are there, {LISTS}"), _labels(rest)),
        *(
            Labelled(images.named(known.names, path, remedy), _labels(known))
            for path, known in zip(paths[1:], lists[1:], strict=True)
        ),
    ]
    for (path, part), (other_path, another) in itertools.combinations(zip(paths, parts, strict=True), 2):
        if twice := sorted(set(part.files) & set(another.files)):
            raise UserError(
                f"{path} and {other_path} both name {twice[0]}: what is trained on tells about what is judged on; "
                "keep each image in one list"
            )
    return ChestParts(classes, len(lists[0].names), train, valid, test)


def patient(name: str) -> str:
    """Whose image this is: in NIH's names, the number before the ``_``. Others are one of a patient each."""
    match = NIH_NAME.fullmatch(name.rpartition("/")[2])
    return match[1] if match else name


def _own_or_project(data: Path, name: str) -> Path:
    return data / name if (data / name).is_file() else PROJECT_LIST.with_name(name)


def _labels(known: ImageList) -> np.ndarray:
    assert known.labels is not None  # _classes has refused such lists
    return known.labels.astype(np.float32)


def _classes(paths: Sequence[Path], lists: Sequence[ImageList]) -> tuple[str, ...]:
    """The names of the labels: ChestX-ray14's if there are 14, else by their number."""
    counts = []
    for path, known in zip(paths, lists, strict=True):
        if known.labels is None:
            raise UserError(f"the list {path} has no labels: a line is a name, then a 0 or 1 for each class")
        counts.append(known.labels.shape[1])
    for path, count in zip(paths, counts, strict=True):
        if count != counts[0]:
            raise UserError(f"{paths[0]} has {counts[0]} labels a line and {path} {count}; all lists need the same")
    if counts[0] == len(CHEST14_LABELS):
        return CHEST14_LABELS
    return tuple(f"class_{number + 1}" for number in range(counts[0]))


def _rest(known: ImageList, ratio: float, path: Path) -> ImageList:
    """The lines after the first ``int(ratio * N)``, which pre-training took; all if ``ratio`` is 1."""
    if ratio == 1:
        return known
    cut = first_part(len(known.names), ratio, str(path))
    shared = _shared_patients(known.names[:cut], known.names[cut:])
    if len(shared) > 1:
        raise UserError(
            f"--ratio {ratio}: {_some(shared)} both before and after the cut of {path}; put each patient's lines "
            f"together, or take --ratio 1.0 for pre-training and here"
        )
    return ImageList(known.names[cut:], None if known.labels is None else known.labels[cut:])


def _shared_patients(names: Sequence[str], others: Sequence[str]) -> list[str]:
    return sorted(set(map(patient, names)) & set(map(patient, others)))


def _some(patients: Sequence[str]) -> str:
    shown = ", ".join(patients[:3]) + (", ..." if len(patients) > 3 else "")
    return f"patient {shown} is" if len(patients) == 1 else f"{len(patients)} patients ({shown}) are"
