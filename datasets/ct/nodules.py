"""Nodule classification on LUNA16: the crops that ``preprocess/nodule_crops.py`` cut, with and without a nodule."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.ct.luna import LOOKED_AT, ROUNDING, first_readable, read_lines
from datasets.layout import COORDINATES, CROP, GLOBAL, LABELS, PAIR, TRAINING_LIST, TRAINING_SUBSETS, uid_of_line
from datasets.transforms.spatial import SpatialTransform
from datasets.xray.lists import first_part
from utils.errors import UserError, reason
from utils.npy import read_array
from utils.seeding import generator
from utils.text import counted

VALID_SUBSETS, TEST_SUBSETS = (7,), (8, 9)
SHARES = (0.7, 0.1)  # of the scans, for training and validation, where subsets are missing
MAKE_CROPS = "preprocess/nodule_crops.py cuts labelled crops of LUNA16's scans"
REMEDY = "write it anew with preprocess/nodule_crops.py"


@dataclass(frozen=True)
class Crop:
    """``file``: its path. ``label``: 1 with a nodule, else 0."""

    file: str
    uid: str
    subset: int
    label: int


@dataclass(frozen=True)
class Parts:
    """The crops of each part; no scan has some in two of them."""

    train: list[Crop]
    valid: list[Crop]
    test: list[Crop]

    def __post_init__(self) -> None:
        uids = [{crop.uid for crop in part} for part in (self.train, self.valid, self.test)]
        if sum(map(len, uids)) > len(set.union(*uids)):
            raise UserError(f"{LABELS}: a scan has crops in two subsets; {REMEDY}")
        for name, part in (("training", self.train), ("validation", self.valid), ("test", self.test)):
            if len({crop.label for crop in part}) < 2:
                raise UserError(
                    f"the {name} part ({counted(len(part), 'crop')}) must have crops with and without a nodule"
                )


def read_crops(data: Path) -> list[Crop]:
    """All crops that ``labels.csv`` lists, in its order."""
    path = data / LABELS
    names = (file.name for file in data.glob("subset*/*.npy"))
    if not path.exists() and any(PAIR.fullmatch(name) or GLOBAL.fullmatch(name) for name in names):
        raise UserError(f"--data {data} holds pairs of crops to pre-train on (--n luna), and no {LABELS}; {MAKE_CROPS}")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            crops = [
                Crop(str(data / row["file"]), row["seriesuid"], int(row["subset"]), int(row["label"]))
                for row in csv.DictReader(file)
            ]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason(error)}); preprocess/nodule_crops.py writes it") from None
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is no list of crops ({error}); {REMEDY}") from None
    if any(crop.label not in (0, 1) for crop in crops):
        raise UserError(f"{path} has labels other than 0 and 1; {REMEDY}")
    if any(crop.subset not in range(10) for crop in crops):
        raise UserError(f"{path} has subsets other than 0 to 9; {REMEDY}")
    return crops


def _whole(row: dict[str, str], line: int) -> dict[str, str]:
    """The row; ValueError if it ends before one of its values."""
    if lacking := [name for name, value in row.items() if value is None]:
        raise ValueError(f"line {line} has no {lacking[0]}")
    return row


def find_candidates(data: Path) -> list[dict[str, str]]:
    """Crops to be scored: ``file``, their path below ``data``, and what ``labels.csv`` says of their scan and place.

    Without that list, all crops below ``data``. UserError if there are none.
    """
    path, known = data / LABELS, ("seriesuid", *COORDINATES)
    if path.exists():
        try:
            with path.open(encoding="utf-8", newline="") as file:
                table = csv.DictReader(file)
                columns = [name for name in known if name in (table.fieldnames or ())]
                rows = [_whole({name: row[name] for name in ("file", *columns)}, table.line_num) for row in table]
        except (OSError, ValueError, KeyError, csv.Error) as error:
            raise UserError(f"{path} is no list of crops ({error}); {REMEDY}") from None
    else:
        files = sorted(file for file in data.rglob("*.npy") if CROP.fullmatch(file.name))
        rows = [{"file": str(file.relative_to(data))} for file in files]
    if not rows:
        raise UserError(f"--data {data} holds no crops (<uid>_crop_<k>.npy); {MAKE_CROPS}")
    return rows


def split(crops: Sequence[Crop], seed: int) -> Parts:
    """By subset as LUNA16 has it: 0-6 for training, 7 for validation, 8 and 9 for the test.

    Where one of these parts has no scan: by scan, permuted with the seed, 70, 10 and 20 %.
    """
    subsets = {crop.subset for crop in crops}
    if all(subsets & set(part) for part in (TRAINING_SUBSETS, VALID_SUBSETS, TEST_SUBSETS)):
        return Parts(*(_of(crops, part) for part in (TRAINING_SUBSETS, VALID_SUBSETS, TEST_SUBSETS)))
    uids = sorted({crop.uid for crop in crops})
    if len(uids) < 3:
        raise UserError(
            f"{LABELS} lists {counted(len(uids), 'scan')}; training, validation and test need at least one scan each"
        )
    order = [uids[index] for index in generator(seed, "nodule scans").permutation(len(uids))]
    train = min(round(SHARES[0] * len(uids)), len(uids) - 2)
    valid = train + max(1, round(SHARES[1] * len(uids)))
    valid = min(valid, len(uids) - 1)
    named = (set(order[:train]), set(order[train:valid]), set(order[valid:]))
    return Parts(*([crop for crop in crops if crop.uid in part] for part in named))


def _of(crops: Iterable[Crop], subsets: Iterable[int]) -> list[Crop]:
    wanted = set(subsets)
    return [crop for crop in crops if crop.subset in wanted]


def without_pretrained(crops: Sequence[Crop], data: Path, train_list: str | None, ratio: float) -> list[Crop]:
    """Training crops of the scans that pre-training with the same ``--ratio`` has not seen; all if that is 1.

    ``train_list``: the list of uids whose first part it took (``luna_train.txt`` of its pairs, looked for in ``data``).
    """
    if ratio == 1:
        return list(crops)
    path = Path(train_list) if train_list else data / TRAINING_LIST
    if not path.exists():
        raise UserError(
            f"--ratio {ratio}: {path} does not exist; give the training list of the pre-training with --train_list "
            f"({TRAINING_LIST} in the folder of its pairs), or give --ratio 1.0"
        )
    lines, known = read_lines(path), {crop.uid for crop in crops}
    seen = {uid_of_line(line, known) for line in lines[: first_part(len(lines), ratio, str(path))]}
    rest = [crop for crop in crops if crop.uid not in seen]
    if not rest:
        raise UserError(f"--ratio {ratio}: pre-training took all scans of {data}; take a smaller ratio, or 1.0")
    return rest


def read_crop(file: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """The crop in this file: float32 (X, Y, Z) in [0, 1]; UserError if it is damaged or of another shape."""
    try:
        array = read_array(file)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {reason(error)}") from error
    except ValueError as error:
        raise UserError(f"{file} is damaged or no .npy file of numbers; {REMEDY}") from error
    if array.ndim != 3 or array.dtype.kind != "f":
        raise UserError(f"{file} is no crop (X, Y, Z) of floats; {REMEDY}")
    if shape not in (None, array.shape):
        raise UserError(f"{file} has the shape {array.shape}, others have {shape}; {REMEDY}")
    crop = np.ascontiguousarray(array, np.float32)
    if not (crop.min() >= -ROUNDING and crop.max() <= 1 + ROUNDING):  # not: so that NaN is refused as well
        raise UserError(f"{file} has values that are not in 0..1; {REMEDY}")
    return crop


class NoduleCrops(Dataset[dict[str, Tensor]]):
    """Crops by (epoch, index): ``image`` float32 (1, X, Y, Z) and ``label`` float32 (1,).

    Not ``balanced``: the crops in their order, as they are. ``balanced``, for training: an epoch has each crop of the
    rarer label once, and as many of the other, which all take turns over the epochs; flipped on each axis with p 0.5
    and turned by quarters about z. A sample depends on the seed and on its key alone.
    """

    def __init__(self, crops: Sequence[Crop], seed: int, balanced: bool) -> None:
        self.crops, self.seed, self.balanced = list(crops), seed, balanced
        kinds = [[i for i, crop in enumerate(self.crops) if crop.label == label] for label in (0, 1)]
        self.rare, self.common = sorted(kinds, key=len)
        self.rare_label = self.crops[self.rare[0]].label if self.rare else 0
        self.shape = first_readable([crop.file for crop in self.crops[:LOOKED_AT]], read_crop).shape

    def __len__(self) -> int:
        return 2 * len(self.rare) if self.balanced else len(self.crops)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        """The sample of this (epoch, index); UserError if its file is damaged."""
        epoch, index = key
        crop = self.crops[self.chosen(epoch, index)]
        image = read_crop(crop.file, self.shape)
        if self.balanced:
            rng = generator(self.seed, "nodules", epoch, index)
            image = SpatialTransform.sample(image.shape, rng).apply(image).copy()
        return {"image": torch.from_numpy(image[None]), "label": torch.tensor([crop.label], dtype=torch.float32)}

    def chosen(self, epoch: int, index: int) -> int:
        """Which crop sample ``index`` of an epoch is."""
        if not self.balanced:
            return index
        if index < len(self.rare):
            return self.rare[index]
        turn, place = divmod(epoch * len(self.rare) + index - len(self.rare), len(self.common))
        return self.common[_order(self.seed, turn, len(self.common))[place]]


class CandidateCrops(Dataset[dict[str, Tensor]]):
    """Crops as they are, without labels, by (epoch, index): ``image`` float32 (1, X, Y, Z), of one ``shape``."""

    def __init__(self, files: Sequence[str], shape: Sequence[int]) -> None:
        self.files, self.shape = files, tuple(shape)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        """The crop of this index; UserError if its file is damaged, or of another shape."""
        file = self.files[key[1]]
        crop = read_crop(file)
        if crop.shape != self.shape:
            raise UserError(f"{file} has the shape {crop.shape}, and the network was trained on crops of {self.shape}")
        return {"image": torch.from_numpy(crop[None])}


@lru_cache(maxsize=4)
def _order(seed: int, turn: int, count: int) -> np.ndarray:
    return generator(seed, "common crops", turn).permutation(count)
