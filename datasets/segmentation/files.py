"""Segmentation data in the layout of the Medical Segmentation Decathlon and of nnU-Net. Free of torch.

``imagesTr/<case>.nii.gz``, or ``<case>_0000.nii.gz``, ``<case>_0001.nii.gz`` ... for several channels, and
``labelsTr/<case>.nii.gz``; also .nii, .nrrd, .mha, .mhd. ``dataset.json``, if it is there, names classes and channels.
Arrays are (x, y, z), x from the patient's right to left, y from front to back, z from feet to head.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from datasets.ct.errors import ScanError
from datasets.ct.grid import upright
from datasets.ct.itk import read_file
from datasets.ct.itk import read_spacing as read_file_spacing
from datasets.layout import SCANS
from utils import json_text
from utils.errors import UserError, reason
from utils.text import counted, listing

CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
ORIENTATION = "LPS"
DESCRIPTION = "dataset.json"
SAME = 1e-2  # how much the spacing (relative) and the direction of an image and its label may differ


@dataclass(frozen=True)
class Case:
    """``images``: one file, with one or more channels in it, or one for each channel."""

    name: str
    images: tuple[Path, ...]
    label: Path


@dataclass(frozen=True)
class Description:
    """What ``dataset.json`` says: the classes from 1 on, and whether each channel is CT. None: it does not say."""

    classes: list[str] | None = None
    is_ct: list[bool] | None = None


@dataclass(frozen=True)
class RawCase:
    """``image``: float32 (channels, X, Y, Z). ``label``: uint8 (X, Y, Z). ``spacing_mm``: of the voxels."""

    image: np.ndarray
    label: np.ndarray
    spacing_mm: tuple[float, float, float]


def find_cases(data: Path) -> list[Case]:
    """All training cases, sorted by name; UserError if images and labels do not go together."""
    images, labels = (_volumes(data, folder) for folder in ("imagesTr", "labelsTr"))
    files: dict[str, dict[int, Path]] = {}
    for stem, path in images.items():
        match = CHANNEL.fullmatch(stem)
        case, channel = (stem, 0) if stem in labels or not match else (match["case"], int(match["channel"]))
        if other := files.setdefault(case, {}).get(channel):
            raise UserError(
                f"--data {data}: {case} has two images, {other.name} and {path.name}; leave one in imagesTr"
            )
        files[case][channel] = path
    for missing, where in ((files.keys() - labels, "labelsTr"), (labels.keys() - files.keys(), "imagesTr")):
        if missing:
            more = f" and {counted(len(missing) - 1, 'more case', 'more cases')}" if len(missing) > 1 else ""
            raise UserError(
                f"--data {data}: {min(missing)}{more} {'has' if len(missing) == 1 else 'have'} no file in {where}; "
                "each image needs a label of the same name"
            )
    for name, channels in files.items():
        if sorted(channels) != list(range(len(channels))):
            raise UserError(f"--data {data}: {name} has the channels {sorted(channels)}, not 0, 1, ...")
    return [Case(name, tuple(path for _, path in sorted(files[name].items())), labels[name]) for name in sorted(files)]


def _volumes(data: Path, folder: str) -> dict[str, Path]:
    """The volumes of a folder by their names without suffix; hidden files do not count."""
    try:
        names = sorted(name for name in os.listdir(data / folder) if not name.startswith("."))
    except OSError as error:
        raise UserError(
            f"--data {data}: {folder} cannot be read ({reason(error)}); segmentation reads imagesTr/ and labelsTr/: "
            "give the folder that has them"
        ) from None
    found: dict[str, Path] = {}
    for name in names:
        suffix = next((suffix for suffix in SCANS if name.lower().endswith(suffix)), None)
        if suffix:
            stem = name[: -len(suffix)]
            if stem in found:
                raise UserError(f"--data {data}: {folder} has {stem} twice, {found[stem].name} and {name}")
            found[stem] = data / folder / name
    if not found:
        raise UserError(f"--data {data}: {folder} holds no volumes ({', '.join(SCANS)})")
    return found


def read_description(data: Path) -> Description:
    """What ``dataset.json`` says, in the form of the Decathlon or of nnU-Net; nothing if it is not there."""
    path = data / DESCRIPTION
    if not path.exists():
        return Description()
    try:
        content: Any = json_text.parse(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no names and values")
        labels, channels = content.get("labels"), content.get("channel_names", content.get("modality"))
        if labels is not None:  # {"1": name} in the Decathlon, {name: 1} in nnU-Net
            _check_labels(labels)
            pairs = [(_whole(a), str(b)) if str(a).isdigit() else (_whole(b), str(a)) for a, b in labels.items()]
            numbers, names = zip(*sorted(pairs), strict=True)
            if numbers != tuple(range(len(numbers))) or len(numbers) < 2:
                raise ValueError(f"the labels are {', '.join(map(str, numbers))}, not 0 (background), 1, ...")
            labels = list(names[1:])
        if channels is not None:
            channels = {"0": channels} if isinstance(channels, str) else channels
            channels = [str(name).strip().upper() == "CT" for _, name in sorted(channels.items(), key=_number)]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    return Description(labels, channels)


def _check_labels(labels: dict[str, Any]) -> None:
    """Raise a ValueError at what nnU-Net has beyond classes: regions, and voxels that nobody has labelled."""
    regions = [name for name, number in labels.items() if isinstance(number, list)]
    if regions:
        raise ValueError(
            f"regions of several classes ({', '.join(regions)}) are not supported; give each class a name and a number "
            f"of its own"
        )
    names = {str(a if not str(a).isdigit() else b).strip().lower() for a, b in labels.items()}
    if "ignore" in names:
        raise ValueError(
            "the label ignore is not supported: its voxels would be learnt as a class; give them a class, or leave "
            "these cases out"
        )


def _whole(number: Any) -> int:
    if isinstance(number, float) and number % 1:
        raise ValueError(f"a label is {number}, no whole number")
    return int(number)


def _number(channel: tuple[str, Any]) -> int:
    """By number, not as text: 10 comes after 2."""
    return int(channel[0])


def read_case(case: Case) -> RawCase:
    """Read a case's files; UserError if they are damaged or do not fit together."""
    try:
        channels = [channel for path in case.images for channel in channels_of(read_file(path))]
        label, *more = channels_of(read_file(case.label, nearest=True), nearest=True)
        if more:
            raise ValueError("its label has more than one channel")
        check_same_grid(label, channels[0], "image and label")
        return RawCase(stacked(channels), _classes(label), channels[0].GetSpacing())
    except (ScanError, OSError, ValueError, RuntimeError) as error:
        raise _unreadable(case, error) from None


def read_spacing(case: Case) -> tuple[float, ...]:
    """The spacing in mm of a case's image, of x, y and z, from the header alone."""
    try:
        spacing, direction = read_file_spacing(case.images[0])
    except (ScanError, OSError, ValueError, RuntimeError) as error:
        raise _unreadable(case, error) from None
    return tuple(spacing[axis] for axis in np.abs(direction).argmax(axis=1))


def _unreadable(case: Case, error: Exception) -> UserError:
    return UserError(f"{case.label.parent.parent}: the case {case.name}: {' '.join(str(error).split())}")


def channels_of(image: sitk.Image, nearest: bool = False) -> list[sitk.Image]:
    """The 3D images of one number a voxel that a file's image holds, all in ORIENTATION; ``nearest``: of labels."""
    if image.GetDimension() == 4:
        images = [upright(image[:, :, :, index], nearest) for index in range(image.GetSize()[3])]
    elif image.GetDimension() == 3:
        count = image.GetNumberOfComponentsPerPixel()
        images = [image] if count == 1 else [sitk.VectorIndexSelectionCast(image, index) for index in range(count)]
    else:
        raise ValueError(f"an image has {image.GetDimension()} dimensions, not 3")
    return [sitk.DICOMOrient(channel, ORIENTATION) for channel in images]


def check_same_grid(image: sitk.Image, other: sitk.Image, what: str) -> None:
    """ValueError if two images do not lie in the same place; ``what`` they are, in words."""
    shift = np.abs(np.subtract(image.GetOrigin(), other.GetOrigin()))
    same = {
        "size": image.GetSize() == other.GetSize(),
        "spacing": np.allclose(image.GetSpacing(), other.GetSpacing(), rtol=SAME),
        "direction": np.allclose(image.GetDirection(), other.GetDirection(), atol=SAME),
        "origin": not (shift > 0.5 * max(image.GetSpacing())).any(),
    }
    if different := [name for name, alike in same.items() if not alike]:
        name = different[0]
        values = [
            ", ".join(f"{value:.6g}" for value in getattr(each, f"Get{name.capitalize()}")()) for each in (other, image)
        ]
        raise ValueError(f"{what} differ in {listing(different)} ({name} {values[0]} against {values[1]})")


def stacked(channels: Sequence[sitk.Image]) -> np.ndarray:
    """Images -> float32 (C, X, Y, Z); ValueError if their grids differ, or they have voxels that are no numbers.

    Each is copied once: of a long CT a copy takes a gigabyte.
    """
    voxels = np.empty((len(channels), *channels[0].GetSize()), np.float32)
    for array, image in zip(voxels, channels, strict=True):
        check_same_grid(image, channels[0], "its channels")
        array[:] = sitk.GetArrayViewFromImage(image).T
        if not np.isfinite(array).all():
            raise ValueError("it has voxels that are not finite numbers (NaN or infinite)")
    return voxels


def _classes(label: sitk.Image) -> np.ndarray:
    values = sitk.GetArrayFromImage(label).T
    if values.min() < 0 or values.max() > 255 or (values != np.floor(values)).any():
        odd = values[(values < 0) | (values > 255) | (values != np.floor(values))]
        raise ValueError(f"its label has values that are no whole numbers from 0 to 255, such as {odd[0]:g}")
    return np.ascontiguousarray(values.astype(np.uint8))
