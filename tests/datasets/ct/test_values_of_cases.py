"""DICOM of other programs: the voxels are those that pydicom reads, slice by slice."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import ImplicitVRLittleEndian

from preprocess.volumes.files import find_scans
from preprocess.volumes.volume import read_image
from tests.conftest import ROOT

CASES = ROOT.parent / "shared" / "cases"


def slices(file: Path) -> Iterator[tuple[float, np.ndarray]]:
    """Each slice of a file and where it lies along the body; none of what is no slice of it."""
    one = pydicom.dcmread(file, force=True)
    if "PixelData" not in one or one.get("Modality") == "SEG" or "LOCALIZER" in (one.get("ImageType") or []):
        return
    if "TransferSyntaxUID" not in one.file_meta:
        one.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    groups = one.get("PerFrameFunctionalGroupsSequence")
    pixels = one.pixel_array.astype(float)
    for number, plane in enumerate(pixels if pixels.ndim == 3 else pixels[None]):
        place, values = one.get("ImagePositionPatient"), one
        if groups:
            place = groups[number].PlanePositionSequence[0].ImagePositionPatient
            values = groups[number].get("PixelValueTransformationSequence", [one])[0]
        along = float(place[2]) if place and (groups or pixels.ndim == 2) else float(one.InstanceNumber) + number
        yield along, plane * float(values.RescaleSlope) + float(values.RescaleIntercept)


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the cases in ../shared, which are no part of the project")
@pytest.mark.parametrize(
    "case",
    [
        "04-enhanced-multiframe/data/shuffled",
        "04-enhanced-multiframe/data/slopes",
        "05-seg-and-other-objects/data",
        "14-no-preamble/ct",
        "17-no-position/data/classic",
        "17-no-position/data/sc",
        "20-localizer-in-series/data",
    ],
)
def test_the_voxels_are_those_of_pydicom(case: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of what is no DICOM file
        there = [slice_ for file in (CASES / case).rglob("*") if file.is_file() for slice_ in slices(file)]
    expected = np.stack([plane for _, plane in sorted(there, key=lambda slice_: slice_[0])])
    (scan,) = find_scans(CASES / case)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(scan)), expected)
