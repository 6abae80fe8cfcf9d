"""Whose image it is, and the split of a list by patient."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from utils.errors import UserError
from utils.seeding import generator
from utils.text import counted

NIH_NAME = re.compile(r"(\d{8})_\d{3}(\.\w+)?")  # <patient>_<number of the image>
NUMBER = re.compile(r"0*(\d+)(\.0+)?")  # a table with an empty cell is often written with 13.0 for 13
FOLDER = re.compile(r"patient\d+|p\d{8}")  # of a patient, in the paths of CheXpert and of MIMIC-CXR


def patient(name: str) -> str:
    """Whose image this is: in NIH's names, the number before the ``_``; in CheXpert's and MIMIC's paths, the folder.

    Others are one of a patient each.
    """
    *folders, last = name.replace("\\", "/").split("/")
    if match := NIH_NAME.fullmatch(last):
        return match[1]
    return next((folder for folder in reversed(folders) if FOLDER.fullmatch(folder)), name)


def same_patient(patient: str) -> str:
    """What two spellings of a patient's number share: NIH's table has 13 where its names of images have 00000013."""
    match = NUMBER.fullmatch(patient)
    return match[1] if match else patient


def shared(patients: Sequence[str], others: Sequence[str]) -> list[tuple[str, int, int]]:
    """The patients of both, each with the place of its first image in either, sorted."""
    first, second = _places(patients), _places(others)
    return sorted((patients[first[key]], first[key], second[key]) for key in first.keys() & second.keys())


def _places(patients: Sequence[str]) -> dict[str, int]:
    return {same_patient(patients[place]): place for place in reversed(range(len(patients)))}


def some(patients: Sequence[str]) -> str:
    """``patient 7 is``, ``4 patients (1, 2, 3, ...) are``."""
    shown = ", ".join(patients[:3]) + (", ..." if len(patients) > 3 else "")
    return f"patient {shown} is" if len(patients) == 1 else f"{len(patients)} patients ({shown}) are"


def split_by_patient(patients: Sequence[str], shares: Sequence[float], seed: int, what: str) -> list[list[int]]:
    """The rows of each part, in their order; ``shares``: of the patients, which the seed permutes.

    Each part has one patient at least; UserError if there are fewer patients than parts. ``what``: the list.
    """
    keys = sorted(set(map(same_patient, patients)))
    if len(keys) < len(shares):
        raise UserError(
            f"{what} has images of {counted(len(keys), 'patient')}; {len(shares)} parts need at least one patient each"
        )
    order = generator(seed, "split by patient").permutation(len(keys))
    ends = np.cumsum(shares)[:-1] / sum(shares) * len(keys)
    bounds = [0]
    for part, end in enumerate(ends, 1):  # so that this and each part to come has one
        bounds.append(int(min(max(round(float(end)), bounds[-1] + 1), len(keys) - (len(shares) - part))))
    bounds.append(len(keys))
    part_of = {keys[index]: part for part in range(len(shares)) for index in order[bounds[part] : bounds[part + 1]]}
    parts: list[list[int]] = [[] for _ in shares]
    for row, name in enumerate(patients):
        parts[part_of[same_patient(name)]].append(row)
    return parts
