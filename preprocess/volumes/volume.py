"""Read a scan and resample the part of it that is needed to 1 mm, with SimpleITK's numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from datasets.ct.errors import ScanError
from datasets.ct.grid import upright
from datasets.ct.itk import read_file
from datasets.layout import SCANS
from preprocess.volumes.files import Scan

OUTSIDE_HU = -1000  # the value beyond the scan's edge: air
MAX_EXTENT_MM = 3000  # a scan of more than that has a wrong spacing


def one_thread() -> None:
    """For a process that works on scans beside others: SimpleITK has one thread, and prints no warnings."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)


def read_image(scan: Scan) -> sitk.Image:
    """Read a scan whole: a 3D image of one finite number a voxel.

    Raises:
        ScanError: unreadable, cut short or corrupt files, missing slices, not such an image.
    """
    if scan.problem:
        raise ScanError(scan.problem)
    for file in scan.files:
        if re.search("[\ud800-\udfff]", str(file)):  # bytes that are no text: ITK's wrapper dies of them
            raise ScanError("its path is not UTF-8 text: rename it")
        if not file.is_file():
            raise ScanError(f"{file.name} is missing")
    image = _read_files(scan.files)
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        split = "; save each of its images as a file" if image.GetDimension() == 4 else ""
        raise ScanError(f"not a 3D image with one number a voxel: its size is {_by(image.GetSize())}{split}")
    extent = [n * spacing for n, spacing in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    if not 0.5 <= min(extent) <= max(extent) <= MAX_EXTENT_MM:
        sides = " x ".join(f"{side:.6g}" for side in extent)
        raise ScanError(f"it would measure {sides} mm: its spacing must be wrong")
    voxels = sitk.GetArrayViewFromImage(image)
    if voxels.dtype.kind == "f" and not _finite(voxels):
        raise ScanError("it has voxels that are not finite numbers (NaN, infinite or beyond single precision)")
    return image


def _finite(voxels: np.ndarray) -> bool:
    """Whether all voxels are numbers that single precision can hold; copies nothing."""
    limit = np.finfo(np.float32).max
    return bool(-limit <= voxels.min() and voxels.max() <= limit)  # false for NaN


def _fits(voxels: np.ndarray, kind: type[np.integer]) -> bool:
    return bool(np.iinfo(kind).min <= voxels.min() and voxels.max() <= np.iinfo(kind).max)


def shape_at_1mm(image: sitk.Image) -> tuple[int, ...]:
    """Voxels in x, y, z of ``image`` once resampled to 1 mm: int(n * spacing + 0.5)."""
    return tuple(int(n * spacing + 0.5) for n, spacing in zip(image.GetSize(), image.GetSpacing(), strict=True))


def place_at_1mm(image: sitk.Image, world: Iterable[float]) -> np.ndarray:
    """Where a point in world coordinates (mm) lies on the grid of ``image`` resampled to 1 mm: (x, y, z) in voxels.

    Fractions lie between voxels. Origin and direction are the image's own; the first voxel is at (0, 0, 0).
    """
    return (
        np.array(image.TransformPhysicalPointToContinuousIndex([float(value) for value in world])) * image.GetSpacing()
    )


def resample(image: sitk.Image, first: Iterable[int], end: Iterable[int]) -> np.ndarray:
    """Voxels ``first`` to ``end`` (exclusive) of ``image`` resampled to 1 mm, as (x, y, z).

    Linear, same origin and direction, -1000 outside, in the scan's kind of number, integers cut off
    towards zero: what ``SimpleITK.Resample`` gives, in a tenth of its time, since only the part that
    crops come from is made. (Where the exact result is a whole number, rounding decides which side of it
    the sum lies on, so that some voxels are 1 HU apart: one in two thousand of a LUNA16 scan. SimpleITK
    asked for a part of the scan differs as often from SimpleITK asked for the whole.)

    In memory its axes are y, z, x: the rows that a crop's slices are made of lie side by side, which makes cutting a
    fifth faster than the scan's own order.
    """
    voxels = sitk.GetArrayViewFromImage(image)
    whole = voxels.dtype.kind in "iu" and (voxels.itemsize < 4 or _fits(voxels, np.int32))
    kind = np.int32 if whole else np.float32
    x, y, z = (
        _Axis(n, spacing, low, high)
        for n, spacing, low, high in zip(image.GetSize(), image.GetSpacing(), first, end, strict=True)
    )
    out = np.empty((len(y.below), len(z.below), len(x.below)), np.int16 if voxels.dtype == np.int16 else kind)
    planes: dict[int, np.ndarray] = {}  # the two slices around the current one, resampled in x and y
    for k, neighbours in enumerate(zip(z.below, z.above, strict=True)):
        planes = {n: planes[n] if n in planes else _in_plane(voxels[n], x, y) for n in neighbours}
        below, above = (planes[n] for n in neighbours)
        out[:, k] = _between(below, above, z.fraction[k])
    out[y.outside], out[:, z.outside], out[:, :, x.outside] = OUTSIDE_HU, OUTSIDE_HU, OUTSIDE_HU
    return out.transpose(2, 0, 1)


class _Axis:
    """Where the voxels ``low`` to ``high`` of the 1 mm grid lie on an axis of ``n`` voxels."""

    def __init__(self, n: int, spacing: float, low: int, high: int) -> None:
        position = np.arange(low, high) / spacing
        self.below = np.minimum(position.astype(int), n - 1)
        self.above = np.minimum(self.below + 1, n - 1)
        self.fraction = position - self.below
        self.outside = position >= n - 0.5  # a voxel reaches half its width beyond its centre


def _in_plane(plane: np.ndarray, x: _Axis, y: _Axis) -> np.ndarray:
    """Resample one slice (y, x), x first: the order of ITK's sums."""
    plane = plane[y.below[0] : y.above[-1] + 1]
    left, right = plane.take(x.below, axis=1).astype(np.float64), plane.take(x.above, axis=1)
    rows = _between(left, right, x.fraction)
    return _between(rows[y.below - y.below[0]], rows[y.above - y.below[0]], y.fraction[:, None])


def _between(low: np.ndarray, high: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """low + (high - low) * fraction, written so that it touches little memory."""
    step = high - low
    step *= fraction
    step += low
    return step


def _read_files(files: tuple[Path, ...]) -> sitk.Image:
    """A file of its own kind, or DICOM: the slices of a series, or one file of several frames."""
    if len(files) == 1 and files[0].name.lower().endswith(SCANS):
        return read_file(files[0])
    from datasets.ct.dicom_series import read_series  # here: pydicom takes a third of a second to load

    return upright(read_series(files))


def _by(sizes: Iterable[float]) -> str:
    return " x ".join(str(size) for size in sizes)
