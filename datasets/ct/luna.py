"""LUNA16: pairs of overlapping crops that ``preprocess/luna_pre.py`` cut out of CT scans.

On disk: ``<data>/subset<n>/<series uid>_img_<k>.npy``, each a pair (2, X, Y, Z) of floats in [0, 1]; and
``<data>/luna_train.txt`` with one series uid a line, the scans to train on.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.layout import (
    CROP,
    GLOBAL,
    HELD_OUT_SUBSETS,
    PAIR,
    SCANS,
    SUBSET,
    TRAINING_LIST,
    TRAINING_SUBSETS,
    subset_folder,
    uid_of_line,
)
from datasets.transforms import batched
from datasets.transforms.affine import Affine
from datasets.transforms.corruption import SMALLEST_AXIS, LocalShuffling, Painting
from datasets.transforms.crops import sample_pair
from datasets.xray.images import DICOM_SUFFIXES, PICTURES, SUFFIXES
from utils.console import warn
from utils.errors import UserError, reason
from utils.npy import read_array
from utils.seeding import generator
from utils.text import counted

LOOKED_AT = 20  # files, in search of a first one that is whole: the loader may be told to skip the others
LISTED = 10_000  # files, in search of what a folder without pairs may be
ROUNDING = 1e-3  # how far beyond [0, 1] a voxel may lie
REMEDY = "write it anew with preprocess/luna_pre.py"
RECIPES = {PAIR: "", GLOBAL: " --recipe pcrlv2"}  # of preprocess/luna_pre.py: what makes the files of these names
FORMS = {PAIR: "<uid>_img_<k>.npy", GLOBAL: "<uid>_global_<k>.npy"}


class LunaPairs(Dataset[dict[str, torch.Tensor]]):
    """Augmented pairs of crops, by (epoch, index of the file).

    A sample holds float32 tensors: ``input1 input2`` (the augmented views), ``mask1 mask2`` (their spatial
    transforms, to be reconstructed) and ``gt1 gt2`` (the crops as they are on disk), each (1, X, Y, Z), and
    ``aug1 aug2`` (7,), the codes of the spatial transforms. View 1 comes from the pair's first crop, view 2
    from its second. A sample depends on the seed and on its key, not on who makes it.
    """

    def __init__(self, files: Sequence[str | Path], seed: int, augmented: bool = True) -> None:
        """``files``: pairs that all have the shape of the first one that is one.

        Not ``augmented``: a sample has no ``input`` and no ``mask``, but the parameters for them, and
        :func:`augment_batch` makes them of a whole batch, on the device that trains.

        Compiles the augmentation, which takes seconds on the first run on a machine: worker processes that
        are forked later find it done. Raises UserError if there is no file, or none of the first ones is a pair.
        """
        if not files:
            raise UserError("no LUNA16 pairs to train on")
        self.files = [str(file) for file in files]  # strings: they cost workers less memory than Path objects
        self.seed, self.augmented = seed, augmented
        self.shape = first_readable(self.files[:LOOKED_AT], read_pair).shape[1:]
        if min(self.shape) < SMALLEST_AXIS:
            raise UserError(
                f"{files[0]}: crops of {self.shape} voxels are too small to augment; "
                f"each axis needs {SMALLEST_AXIS} voxels"
            )
        warm_up()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        """The sample of this (epoch, index); UserError if its file is no pair of the others' shape."""
        epoch, index = key
        pair = read_pair(self.files[index], self.shape)
        augmentations = sample_pair(pair.shape[1:], generator(self.seed, "luna", epoch, index))
        sample: dict[str, np.ndarray] = {}
        for view, (crop, augmentation) in enumerate(zip(pair, augmentations, strict=True), start=1):
            sample[f"gt{view}"] = crop[None]
            if self.augmented:
                image, target = augmentation.apply(crop)
                own = {"input": image[None], "mask": target[None], "aug": augmentation.spatial.code}
            else:
                own = batched.parameters(augmentation, crop.shape)
            sample |= {f"{name}{view}": values for name, values in own.items()}
        return {name: torch.from_numpy(values) for name, values in sample.items()}


class SingleCrops(Dataset[dict[str, torch.Tensor]]):
    """Both crops of each pair as they are, one after the other, by (epoch, index): ``image`` float32 (1, X, Y, Z)."""

    def __init__(self, files: Sequence[str | Path]) -> None:
        self.files = [str(file) for file in files]
        self.shape = read_pair(self.files[0]).shape[1:]

    def __len__(self) -> int:
        return 2 * len(self.files)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        """The crop of this index; UserError if its file is no pair of the others' shape."""
        pair, crop = divmod(key[1], 2)
        return {"image": torch.from_numpy(read_pair(self.files[pair], self.shape)[crop][None])}


def augment_batch(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch of samples that are not augmented -> the batch that augmented ones would have given."""
    whole: dict[str, torch.Tensor] = {}
    for view in ("1", "2"):
        own = {name.removesuffix(view): values for name, values in batch.items() if name.endswith(view)}
        inputs, targets = batched.augment(own["gt"][:, 0], own)
        whole |= {f"gt{view}": own["gt"], f"aug{view}": own["aug"]}
        whole |= {f"input{view}": inputs[:, None], f"mask{view}": targets[:, None]}
    return whole


def warm_up() -> None:
    """Compile the augmentation, or load what an earlier process compiled."""
    rng = np.random.default_rng(0)
    crop = np.zeros((SMALLEST_AXIS,) * 3, np.float32)
    Affine.sample(rng).apply(crop)
    LocalShuffling.sample(rng).apply(crop)
    Painting.sample(crop.shape, False, rng).apply(crop)


def first_readable(files: Sequence[str], read: Callable[[str], np.ndarray]) -> np.ndarray:
    """The array of the first of these files that can be read; UserError, of the first one, if none can."""
    faults = []
    for file in files:
        try:
            return read(file)
        except UserError as fault:
            faults.append(fault)
    raise faults[0]


def read_pair(path: str | Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """The pair of crops in this file: contiguous float32 (2, X, Y, Z), whatever float type is on disk.

    Raises UserError as :func:`read_crops` does.
    """
    return read_crops(path, "2", None if shape is None else (2, *shape))


def read_crops(path: str | Path, count: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """The crops in this file: contiguous float32 (crops, X, Y, Z). ``count``: how many there are to be, in words.

    Raises UserError, with the path, if the file cannot be read, is no array of floats of that form (of the whole
    ``shape``, if given), or has values that are not in [0, 1].
    """
    try:
        array = read_array(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged or no .npy file of numbers; {REMEDY}") from error
    expected = f"({count}, X, Y, Z)" if shape is None else str(shape)
    if array.dtype.kind != "f":
        raise UserError(f"{path} holds no floating-point array; {REMEDY}")
    wrong_count = array.ndim == 4 and count.isdigit() and array.shape[0] != int(count)
    if array.ndim != 4 or wrong_count or 0 in array.shape or shape not in (None, array.shape):
        raise UserError(f"{path} has the shape {array.shape}, not {expected}; {REMEDY}")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused
        pair = np.ascontiguousarray(array, np.float32)
    low, high = pair.min(), pair.max()
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # not: so that NaN is refused as well
        raise UserError(f"{path} has values from {low:g} to {high:g}, not in 0..1; {REMEDY}")
    return pair


def find_luna(
    data: Path,
    train_list: str | None,
    ratio: float,
    subsets: Iterable[int] = TRAINING_SUBSETS,
    pattern: re.Pattern[str] = PAIR,
) -> list[Path]:
    """The files to train on, scan by scan in the order of the list, each scan's pairs by number.

    ``train_list``: a file of series uids, "none" for all scans there are, or None for ``luna_train.txt`` in
    ``data`` if it is there, else all scans (by uid). Of the list's lines the first ``int(ratio * N)`` count;
    warns of those of them that are not on disk. ``pattern``: of the files' names, one of datasets/layout.py.
    Raises UserError if nothing is left.
    """
    files, missing, kept = _chosen(data, train_list, ratio, subsets, pattern)
    if missing:
        warn(
            f"{len(missing)} of the {counted(kept, 'scan')} selected from {training_list(data, train_list)} "
            f"{'has' if len(missing) == 1 else 'have'} no pairs in {data}; the first is {missing[0]}"
        )
    return files


def form_there(data: Path) -> re.Pattern[str]:
    """The form of the names of the pairs in this folder: PAIR, if there are any such or none at all; else GLOBAL."""
    folders = [data / subset_folder(number) for number in range(10)]
    there = [form for form in (PAIR, GLOBAL) if any(_has(form, folder) for folder in folders)]
    return there[0] if there else PAIR


def count_luna(data: Path, train_list: str | None, pattern: re.Pattern[str] = PAIR) -> int:
    """How many files :func:`find_luna` would find without a ratio."""
    return len(_chosen(data, train_list, 1.0, TRAINING_SUBSETS, pattern)[0])


def _chosen(
    data: Path, train_list: str | None, ratio: float, subsets: Iterable[int], pattern: re.Pattern[str]
) -> tuple[list[Path], list[str], int]:
    """The files, the uids that have none, and how many uids the ratio leaves."""
    there = _scan(data, subsets, pattern)
    source = training_list(data, train_list)
    uids = sorted(there) if source is None else [uid_of_line(line, there) for line in read_lines(source)]
    name = f"the scans in {data}" if source is None else f"the list {source}"
    kept = list(dict.fromkeys(uids[: int(ratio * len(uids))]))
    if not kept:
        raise UserError(f"--ratio {ratio} keeps none of the {counted(len(uids), 'uid')} of {name}; take a larger ratio")
    files = [file for uid in kept for file in there.get(uid, [])]
    if not files:
        raise UserError(
            f"--ratio {ratio} selects {counted(len(kept), 'scan')} from {name}, but none of them is in {data} (first: "
            f"{', '.join(kept[:3])}); give another --train_list, or --train_list none to use all scans in --data"
        )
    return files, [uid for uid in kept if uid not in there], len(kept)


def read_lines(path: Path) -> list[str]:
    """The lines of a list of uids that are not blank, as they stand: :func:`uid_of_line` says what they mean."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"the list {path} cannot be read: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the list {path} is no text file") from error
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        raise UserError(f"the list {path} names no scan")
    return lines


def training_list(data: Path, train_list: str | None) -> Path | None:
    """The list to train on: the one named, or the one in ``data``; None: there is none."""
    if train_list == "none":
        return None
    if train_list is not None:
        return Path(train_list)
    default = data / TRAINING_LIST
    return default if os.path.lexists(default) else None  # a link to nowhere is an error, not a list that is not there


def _scan(data: Path, subsets: Iterable[int], pattern: re.Pattern[str]) -> dict[str, list[Path]]:
    """Files by uid, each uid's by number. Folders are listed once: no look at each of 10,000s of files."""
    wanted = [subset_folder(number) for number in subsets]
    folders = set(_names(data, "--data"))
    found: dict[str, list[tuple[int, Path]]] = {}
    present = [name for name in wanted if name in folders]
    for folder in present:
        for name in _names(data / folder, "the folder"):
            if match := pattern.fullmatch(name):
                entry = (int(match["number"]), data / folder / name)
                found.setdefault(match["uid"], []).append(entry)
    if not found:
        if others := [name for name in sorted(folders - set(wanted)) if _has(pattern, data / name)]:
            raise UserError(f"--data {data} holds {_elsewhere(subsets, wanted)}; its pairs are in {', '.join(others)}")
        if any(_has(CROP, data / name) for name in sorted(folders)):
            raise UserError(f"--data {data} holds single crops (<uid>_crop_<k>.npy), not pairs: they need --n nodules")
        other = GLOBAL if pattern is PAIR else PAIR
        if any(_has(other, data / name) for name in present):
            raise UserError(
                f"--data {data} holds the crops of another method ({FORMS[other]}, not {FORMS[pattern]}); make these: "
                f"python preprocess/luna_pre.py{RECIPES[pattern]} --data my_scans --save my_pairs"
            )
        where = f"in its {', '.join(present)}" if present else f"and no folder {wanted[0]} .. {wanted[-1]}"
        raise UserError(f"--data {data} holds no LUNA16 pairs ({FORMS[pattern]}) {where}; {_remedy(data, pattern)}")
    return {uid: [file for _, file in sorted(entries)] for uid, entries in found.items()}


def _has(kind: re.Pattern[str], folder: Path) -> bool:
    """Whether it is one of ``subset0`` .. ``subset9``, with files whose names are of this kind."""
    is_subset = SUBSET.fullmatch(folder.name) and folder.is_dir()
    return bool(is_subset) and any(map(kind.fullmatch, _names(folder, "the folder")))


def _elsewhere(subsets: Iterable[int], wanted: Sequence[str]) -> str:
    """What is missing of a folder whose pairs are all in other subsets than the ``wanted`` ones, and what to do."""
    what, other_way = "training scans", ""
    if subsets == HELD_OUT_SUBSETS:
        what, other_way = "held-out scans (--val_every)", ", or leave out --val_every"
    return f"no {what}: they must be in {wanted[0]} .. {wanted[-1]}; move some there{other_way}"


def _remedy(data: Path, pattern: re.Pattern[str]) -> str:
    """What to do about a folder without pairs, by what else lies in it."""
    there = (name for _, _, names in os.walk(data) for name in names)
    names = [name for name in itertools.islice(there, LISTED) if name not in PICTURES]
    image = next((name for name in names if name.lower().endswith(SUFFIXES)), "")
    scans = (
        f"make them of CT or MR scans: python preprocess/luna_pre.py{RECIPES[pattern]} --data {data} --save my_pairs"
    )
    if not image or any(name.lower().endswith(SCANS) for name in names):
        return scans
    x_rays = f"it holds images ({image}): for X-rays add --n chest"
    return f"{x_rays}; or {scans}" if image.lower().endswith(DICOM_SUFFIXES) else x_rays


def _names(folder: Path, what: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise UserError(f"{what} {folder} cannot be read: {reason(error)}") from error
