"""Slices of DICOM -> a volume: in order, none missing or doubled, each with its own slope. Free of torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from datasets.ct.dicom import SPACE, Slice, read_dicom_file, read_stored
from datasets.ct.errors import ScanError

UNEVEN = 0.1  # slices of a series may differ this much in distance, as a part of the usual distance
FEW = 3  # slices of another size or orientation that a series is read without
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
NOT_SAID = "the positions of its slices are not given"


def read_series(files: Sequence[Path]) -> sitk.Image:
    """The volume of a classic series, or of a multi-frame file; its third axis may be skewed (a tilted gantry).

    Raises:
        ScanError: a file that cannot be read; slices that are missing, doubled or of several kinds; a place, a pixel
            size or an order that the files do not say.
    """
    slices = [slice_ for file in files for slice_ in read_dicom_file(file).slices]
    if len(slices) < 2:
        raise ScanError("a single slice is not a volume")
    _check_times(slices)
    spacing = _pixel_spacing(slices)
    axes, corners, along = _places(slices)
    order = np.argsort(along, kind="stable")
    corners = corners[order]
    _check_repeated(along[order])
    steps = np.diff(corners, axis=0)
    check_slice_distances(np.linalg.norm(steps, axis=1))
    step = (corners[-1] - corners[0]) / len(steps)
    usual = float(np.linalg.norm(step))
    if (np.linalg.norm(steps - step, axis=1) > UNEVEN * usual).any():
        raise ScanError("the positions of its slices are not on a straight line")
    image = sitk.GetImageFromArray(_voxels(slices, order))
    image.SetSpacing((*spacing, usual))
    image.SetOrigin(corners[0].tolist())
    image.SetDirection(np.column_stack([axes[0], axes[1], step / usual]).ravel().tolist())
    return image


def split_off(slices: Sequence[Slice]) -> tuple[list[Slice], list[Slice]]:
    """The slices that make the volume, and those that a series can be read without.

    The latter are localizers, and up to three slices of another size or orientation than most. Where more differ,
    nothing is left out, and :func:`read_series` says so.
    """
    body = [slice_ for slice_ in slices if not slice_.is_localizer]
    kept = max(_alike(body), key=len, default=[])
    few = min(FEW, len(kept) // 4)
    if len(body) - len(kept) > few:
        kept = body
    there = set(map(id, kept))
    return kept, [slice_ for slice_ in slices if id(slice_) not in there]


def _alike(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Groups of slices of one size and orientation."""
    groups: list[list[Slice]] = []
    for slice_ in slices:
        for group in groups:
            if slice_.size == group[0].size and _parallel(slice_.orientation, group[0].orientation):
                group.append(slice_)
                break
        else:
            groups.append([slice_])
    return groups


def _parallel(one: tuple[float, ...] | None, other: tuple[float, ...] | None) -> bool:
    return one == other or (one is not None and other is not None and np.allclose(one, other, atol=SPACE))


def _pixel_spacing(slices: Sequence[Slice]) -> tuple[float, ...]:
    """Millimetres between columns and between rows, the same in all slices."""
    groups = _alike(slices)
    if len(groups) > 1:
        sizes = ", ".join(f"{len(group)} of {group[0].size[0]} x {group[0].size[1]}" for group in groups[:4])
        raise ScanError(f"its slices differ in size or orientation ({sizes}); keep only slices of one kind")
    first = slices[0].spacing
    if first is None or any(slice_.spacing is None for slice_ in slices) or min(first) <= 0:
        raise ScanError("the pixel size is not given (PixelSpacing)")
    if not all(np.allclose(slice_.spacing, first, rtol=SPACE) for slice_ in slices if slice_.spacing):
        raise ScanError("its slices have pixels of different sizes (PixelSpacing)")
    return first


def _places(slices: Sequence[Slice]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions of rows, columns and the normal (3, 3); corners (n, 3) in mm; where these lie along the normal."""
    missing = sum(slice_.position is None for slice_ in slices)
    if 0 < missing < len(slices):
        raise ScanError(f"{NOT_SAID}: {missing} of {len(slices)} have no ImagePositionPatient")
    orientation = slices[0].orientation
    if orientation is None and not missing:
        corners = np.array([slice_.position for slice_ in slices])
        if np.ptp(corners[:, :2], axis=0).max() > SPACE:  # not from head to feet
            raise ScanError(f"{NOT_SAID}: they have no ImageOrientationPatient")
    axes = _axes(orientation or AXIAL)
    if not missing:
        corners = np.array([slice_.position for slice_ in slices])
        return axes, corners, corners @ axes[2]
    along = _along(slices)
    return axes, along[:, None] * axes[2], along


def _axes(orientation: Sequence[float]) -> np.ndarray:
    row, column = np.reshape(orientation, (2, 3))
    lengths = np.linalg.norm((row, column), axis=1)
    if np.abs(lengths - 1).max() > SPACE or abs(row @ column) > SPACE:
        raise ScanError(f"its ImageOrientationPatient is no pair of directions at right angles: {tuple(orientation)}")
    row = row / lengths[0]
    column = column - (column @ row) * row
    column /= np.linalg.norm(column)
    return np.stack([row, column, np.cross(row, column)])


def _along(slices: Sequence[Slice]) -> np.ndarray:
    """Where slices without a position lie along their normal: by SliceLocation, else by number and distance."""
    locations = [slice_.location for slice_ in slices if slice_.location is not None]
    if len(set(locations)) == len(slices):
        return np.array(locations)
    numbers = np.array([np.nan if slice_.number is None else slice_.number for slice_ in slices])
    distances = {slice_.distance for slice_ in slices}
    distance = distances.pop()
    if not distance or distances or np.isnan(numbers).any():
        raise ScanError(
            f"{NOT_SAID}: they have no ImagePositionPatient, and InstanceNumber with SpacingBetweenSlices or "
            f"SliceThickness is missing, too"
        )
    if not (np.diff(np.sort(numbers)) == 1).all():
        raise ScanError("slices are missing or doubled, by their InstanceNumber; they have no ImagePositionPatient")
    return (numbers - numbers.min()) * distance


def _check_times(slices: Sequence[Slice]) -> None:
    """ScanError for several volumes in time, whose slices may lie between one another's."""
    often = Counter(slice_.time for slice_ in slices if slice_.time is not None)
    if len(often) > 1 and min(often.values()) > 1:  # a number of its own for each slice is no time point
        raise ScanError(
            f"it has slices of {len(often)} time points; give one of them, e.g. as a file that dcm2niix wrote"
        )


def _check_repeated(along: np.ndarray) -> None:
    """ScanError if every position is there several times."""
    _, index = np.unique(np.rint(along * 1000), return_inverse=True)
    times = set(Counter(index.tolist()).values())
    if len(times) == 1 and (often := times.pop()) > 1:
        raise ScanError(
            f"each of its {len(along) // often} slice positions occurs {often} times: slices are duplicated, or the "
            f"series has several time points, echoes or reconstructions; give one of them, e.g. converted by dcm2niix"
        )


def check_slice_distances(distances: np.ndarray) -> None:
    """Raise a ScanError if the distances (mm) between neighbouring slices differ: slices are missing or doubled."""
    usual = float(np.median(distances))
    odd = distances[np.abs(distances - usual) > UNEVEN * usual]
    if usual == 0 or len(odd):
        raise ScanError(
            f"slices are missing or doubled: {len(odd)} of {len(distances)} distances between slices are not "
            f"the usual {usual:g} mm, e.g. {odd[0] if len(odd) else usual:g} mm"
        )


def _voxels(slices: Sequence[Slice], order: np.ndarray) -> np.ndarray:
    """All slices in this order, (n, rows, columns), rescaled: int16 if that holds them, int32, or float32."""
    unscaled = sum(slice_.rescale is None for slice_ in slices)
    if 0 < unscaled < len(slices):
        raise ScanError(f"{unscaled} of {len(slices)} slices have no RescaleSlope, the others have one")
    planes: list[np.ndarray] = []
    stored: tuple[Path | None, np.ndarray] = (None, np.empty(0))
    for slice_ in slices:
        if stored[0] != slice_.file:
            stored = slice_.file, read_stored(slice_.file)
        if slice_.frame >= len(stored[1]) or stored[1].shape[1:] != slice_.size[::-1]:
            raise ScanError(f"the pixels of {slice_.file.name} are not as many as its header says")
        planes.append(_rescaled(stored[1][slice_.frame], *(slice_.rescale or (1.0, 0.0))))
    kinds = {plane.dtype for plane in planes}
    kind = next(kind for kind in map(np.dtype, ("f4", "i4", "i2")) if kind in kinds)
    voxels = np.empty((len(planes), *planes[0].shape), kind)
    for place, index in enumerate(order):
        voxels[place] = planes[index]
    return voxels


def _rescaled(plane: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    if slope == 0:
        raise ScanError("its RescaleSlope is 0")
    if plane.dtype.kind == "f" or slope % 1 or intercept % 1:
        return (plane.astype(np.float64) * slope + intercept).astype(np.float32)
    values = plane.astype(np.int64) * int(slope) + int(intercept)
    low, high = int(values.min()), int(values.max())
    for kind in (np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return values.astype(kind)
    return values.astype(np.float32)
