"""Where the voxels of a scan's file lie, and the way back to them from an upright volume in LPS. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from datasets.ct.grid import SKEW_DEGREES, skew_degrees, upright
from datasets.ct.itk import is_nifti, read_header
from datasets.layout import SCANS

AXES = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}  # of LPS, that a letter of an orientation is on
BACKWARDS = "RAI"


@dataclass(frozen=True)
class StoredGrid:
    """``size``, ``spacing`` (mm), ``origin`` (3,) and ``direction`` (9,) as ITK has them, in LPS, of 3 axes.

    ``file``: the NIfTI file that they are of; None of other formats.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    file: Path | None = None

    @classmethod
    def of_image(cls, image: sitk.Image) -> StoredGrid:
        """The grid of a 3D image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    def empty(self) -> sitk.Image:
        """An image of zeros on it."""
        image = sitk.Image(list(self.size), sitk.sitkUInt8)
        self.put_on(image)
        return image

    def put_on(self, image: sitk.Image) -> None:
        """Say of an image that it lies here."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)


def stored_grid(files: Sequence[Path]) -> StoredGrid:
    """The grid of a scan: of its file's header (of several channels the first), or of a DICOM series; ScanError."""
    first = files[0]
    if not first.name.lower().endswith(SCANS):
        from datasets.ct.dicom_series import read_series  # here: pydicom takes a third of a second to load

        return StoredGrid.of_image(read_series(files))
    size, *place = read_header(first)
    spacing, origin, direction = (tuple(float(value) for value in values.ravel()) for values in place)
    return StoredGrid(tuple(size), spacing, origin, direction, first if is_nifti(first) else None)


def back_to_stored(voxels: np.ndarray, grid: StoredGrid) -> np.ndarray:
    """A volume (X, Y, Z) in LPS, upright, as the file's readers see it -> the same on the grid of the file.

    Turned, and where the file's axes are not at right angles, resampled: whole numbers to the nearest voxel, others
    linearly.
    """
    sheared = skew_degrees(np.reshape(grid.direction, (3, 3))) > SKEW_DEGREES
    straight = StoredGrid.of_image(upright(grid.empty(), nearest=True)) if sheared else grid
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(straight.direction)
    turned = voxels.transpose([AXES[letter] for letter in code])
    turned = turned[tuple(slice(None, None, -1 if letter in BACKWARDS else 1) for letter in code)]
    if turned.shape != tuple(straight.size):
        raise ValueError(f"a volume of {voxels.shape} voxels does not belong to a file of {grid.size}")
    if not sheared:
        return turned
    image = sitk.GetImageFromArray(np.ascontiguousarray(turned.T))
    straight.put_on(image)
    how = sitk.sitkNearestNeighbor if voxels.dtype.kind == "u" else sitk.sitkLinear
    back = sitk.Resample(image, grid.size, sitk.Transform(), how, grid.origin, grid.spacing, grid.direction)
    return sitk.GetArrayFromImage(back).T
