"""Small CT scans written with pydicom and nibabel, as scanners, converters and anonymisers leave them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT, ENHANCED_CT, MULTI_SC = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "2.1", "7.3"))
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SPACING, STEP = (3.0, 2.0), 2.5  # mm between columns, rows and slices


def field(points: np.ndarray) -> np.ndarray:
    """HU that grow linearly over space: points (..., 3) in mm -> (...). Linear resampling keeps them."""
    return np.rint(points @ (2.0, 3.0, -4.0))


def corners(count: int, step: Sequence[float] = (0.0, 0.0, STEP)) -> np.ndarray:
    """Positions of so many slices, one ``step`` (mm) apart, (n, 3)."""
    return np.array((-20.0, -30.0, 7.0)) + np.arange(count)[:, None] * np.array(step)


def plane(
    corner: Sequence[float], size: tuple[int, int] = (16, 12), orientation: Sequence[float] = AXIAL
) -> np.ndarray:
    """One slice of the field, (rows, columns) for a ``size`` of (columns, rows)."""
    row, column = np.reshape(orientation, (2, 3))
    x, y = np.meshgrid(np.arange(size[0]) * SPACING[0], np.arange(size[1]) * SPACING[1])
    return field(np.array(corner) + x[..., None] * row + y[..., None] * column)


def dataset(values: np.ndarray, sop: str = CT, series: str = "1.2.3", **tags: Any) -> Dataset:
    """A DICOM object of 16-bit values (rows, columns) or (frames, rows, columns); ``tags`` of None are left out."""
    new = Dataset()
    new.file_meta = FileMetaDataset()
    new.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    new.SOPClassUID = new.file_meta.MediaStorageSOPClassUID = sop
    new.SOPInstanceUID = new.file_meta.MediaStorageSOPInstanceUID = f"{series}.{abs(hash(values.tobytes())) % 10**9}"
    new.Modality, new.SeriesInstanceUID, new.StudyInstanceUID = "CT", series, "1.2"
    new.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    new.Rows, new.Columns = values.shape[-2:]
    if values.ndim == 3:
        new.NumberOfFrames = len(values)
    new.SamplesPerPixel, new.PhotometricInterpretation = 1, "MONOCHROME2"
    new.BitsAllocated, new.BitsStored, new.HighBit, new.PixelRepresentation = 16, 16, 15, 0
    new.PixelSpacing = list(SPACING[::-1])
    new.RescaleSlope, new.RescaleIntercept = 1, -1024
    new.PixelData = (values.astype("<i4") + 1024).astype("<u2").tobytes()
    for name, value in tags.items():
        if value is None:
            new.pop(name, None)
        else:
            setattr(new, name, value)
    return new


def save(path: Path, new: Dataset, preamble: bool = True) -> Path:
    """Write it; without ``preamble``, as implicit VR without a meta header, either."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if preamble:
        new.save_as(path, enforce_file_format=True)
    else:
        new.file_meta = FileMetaDataset()
        pydicom.dcmwrite(path, new, implicit_vr=True, little_endian=True, enforce_file_format=False)
    return path


def write_series(
    folder: Path,
    places: np.ndarray | None = None,
    orientation: Sequence[float] = AXIAL,
    preamble: bool = True,
    **tags: Any,
) -> list[Path]:
    """A classic series of the field with its slices at ``places`` (n, 3); the names are in another order."""
    places = corners(14) if places is None else places
    files = []
    for number, corner in enumerate(places):
        own = {
            "ImagePositionPatient": [f"{value:.6f}" for value in corner],
            "ImageOrientationPatient": [f"{value:.8f}" for value in orientation],
            "InstanceNumber": number + 1,
        }
        new = dataset(plane(corner, orientation=orientation), **(own | tags))
        files.append(save(folder / f"{(number * 11) % len(places):03}.dcm", new, preamble))
    return files


def enhanced(places: np.ndarray, rescale: Sequence[tuple[float, float]] | None = None, **tags: Any) -> Dataset:
    """A multi-frame CT of the field, frames at ``places`` in this order, each with a slope and intercept of its own."""
    rescale = rescale or [(1.0, -1024.0)] * len(places)
    stored = np.stack([(plane(corner) - b) / a for corner, (a, b) in zip(places, rescale, strict=True)])
    new = dataset(np.rint(stored) - 1024, ENHANCED_CT, PixelSpacing=None, RescaleSlope=None, RescaleIntercept=None)
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, orientation.ImageOrientationPatient = list(SPACING[::-1]), list(AXIAL)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    new.SharedFunctionalGroupsSequence = [shared]
    new.PerFrameFunctionalGroupsSequence = []
    for corner, (slope, intercept) in zip(places, rescale, strict=True):
        position, values, frame = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = corner.tolist()
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slope, intercept, "HU"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [position], [values]
        new.PerFrameFunctionalGroupsSequence.append(frame)
    for name, value in tags.items():
        setattr(new, name, value)
    return new


def other_object(sop: str, modality: str, pixels: bool = False) -> Dataset:
    """An object that holds no image of the body."""
    new = dataset(np.zeros((4, 12, 16)), sop, "1.2.99", Modality=modality)
    if not pixels:
        for name in ("Rows", "Columns", "PixelData", "NumberOfFrames", "BitsAllocated"):
            delattr(new, name)
    return new


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray, **fields: Any) -> Path:
    """Voxels (x, y, z) with an affine of NIfTI's (RAS); ``fields`` of the header as nibabel calls them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, affine)
    for name, value in fields.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path
