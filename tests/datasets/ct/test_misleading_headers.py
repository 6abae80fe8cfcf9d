"""Scans whose headers mislead a reader that goes by half of what they say: read rightly, or refused by name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import DeflatedExplicitVRLittleEndian

from datasets.ct.errors import ScanError
from preprocess.volumes.files import Scan, find_scans
from preprocess.volumes.volume import read_image, resample
from tests.cases_ct import MULTI_SC, STEP, corners, dataset, enhanced, field, plane, save, write_nifti, write_series
from utils.errors import UserError

VOXELS = np.random.default_rng(0).integers(-1000, 1000, (12, 14, 16)).astype(np.int16)  # z, y, x
RAW = VOXELS.tobytes()
META = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "Offset": "0 0 0",
    "ElementSpacing": "1 2 3",
    "DimSize": "16 14 12",
    "ElementType": "MET_SHORT",
}
NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "16 14 12",
    "space directions": "(1,0,0) (0,2,0) (0,0,3)",
    "endian": "little",
    "encoding": "raw",
}


def voxels_of(path: Path) -> np.ndarray:
    image = read_image(Scan(0, "scan", (path,)))
    assert image.GetSpacing() == pytest.approx((1, 2, 3))
    return sitk.GetArrayFromImage(image)


def meta(path: Path, data: bytes = RAW, **changes: str) -> Path:
    fields = META | changes
    file = "LOCAL" if path.suffix == ".mha" else "data.raw"
    header = "".join(f"{name} = {value}\n" for name, value in fields.items()) + f"ElementDataFile = {file}\n"
    if file == "LOCAL":
        path.write_bytes(header.encode() + data)
    else:
        path.write_text(header)
        path.with_name(file).write_bytes(data)
    return path


def nrrd(path: Path, data: bytes = RAW, **changes: str) -> Path:
    fields = NRRD | {name.replace("_", " "): value for name, value in changes.items()}
    header = "NRRD0004\n" + "".join(f"{name}: {value}\n" for name, value in fields.items() if value)
    path.write_bytes(header.encode() + b"\n" + data)
    return path


@pytest.mark.parametrize("suffix", [".mhd", ".mha"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ElementToIntensityFunctionOffset": "-1024"}, "ElementToIntensityFunctionOffset = -1024"),
        ({"ElementToIntensityFunctionSlope": "0.5"}, "ElementToIntensityFunctionSlope = 0.5"),
        ({"TransformMatrix": "0.447 0.894 0 0 1 0 0 0 1"}, "63 degrees from a right angle"),
        ({"TransformMatrix": "2 0 0 0 1 0 0 0 1"}, "no unit vectors"),
        ({"DistanceUnits": "um"}, "lengths in um"),
        ({"DistanceUnits": "cm"}, "lengths in cm"),
        ({"DimSize": "16 14 11"}, "does not go with its header"),
        ({"ElementType": "MET_CHAR"}, "does not go with its header"),
    ],
)
def test_metaimage(tmp_path: Path, suffix: str, changes: dict[str, str], message: str) -> None:
    harmless = {"ElementToIntensityFunctionSlope": "1", "ElementToIntensityFunctionOffset": "0", "DistanceUnits": "mm"}
    np.testing.assert_array_equal(voxels_of(meta(tmp_path / f"good{suffix}", **harmless)), VOXELS)
    with pytest.raises(ScanError, match=message):
        voxels_of(meta(tmp_path / f"bad{suffix}", **changes))


def test_metaimage_as_other_programs_spell_it(tmp_path: Path) -> None:
    local = meta(
        tmp_path / "a.mha", zlib.compress(RAW), CompressedData="True", CompressedDataSize=str(len(zlib.compress(RAW)))
    )
    local.write_bytes(local.read_bytes().replace(b"= LOCAL", b"= Local"))
    np.testing.assert_array_equal(voxels_of(local), VOXELS)
    packed = zlib.compress(VOXELS.byteswap().tobytes())
    changes = {"CompressedData": "True", "CompressedDataSize": str(len(packed)), "ElementByteOrderMSB": "True"}
    swapped = meta(tmp_path / "b.mha", packed, **changes)
    swapped.write_bytes(swapped.read_bytes().replace(b"BinaryDataByteOrderMSB = False\n", b""))
    np.testing.assert_array_equal(voxels_of(swapped), VOXELS)


def test_metaimage_with_data_behind_something_else(tmp_path: Path) -> None:
    for start in ("100", "-1"):
        np.testing.assert_array_equal(voxels_of(meta(tmp_path / "a.mhd", bytes(100) + RAW, HeaderSize=start)), VOXELS)
    with pytest.raises(ScanError, match="does not go with its header: it has 5476 bytes of voxels, not 5376"):
        voxels_of(meta(tmp_path / "b.mhd", bytes(100) + RAW))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space_directions": "none none none"}, "how large its voxels are"),
        ({"space_directions": "(1,0,0) (0,2,0) none"}, "how large its voxels are"),
        ({"space": "", "space_directions": "", "spacings": "1 nan 3"}, "how large its voxels are"),
        ({"space_units": '"cm" "cm" "cm"'}, "lengths in cm"),
        ({"sizes": "16 14 11"}, "does not go with its header"),
    ],
)
def test_nrrd(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    np.testing.assert_array_equal(voxels_of(nrrd(tmp_path / "a.nrrd", space_units='"mm" "mm" "mm"')), VOXELS)
    plain = {"space": "", "space_directions": "", "spacings": "1 2 3"}
    np.testing.assert_array_equal(voxels_of(nrrd(tmp_path / "b.nrrd", **plain)), VOXELS)
    with pytest.raises(ScanError, match=message):
        voxels_of(nrrd(tmp_path / "bad.nrrd", **changes))


def nifti(path: Path) -> Path:
    return write_nifti(path, VOXELS.T, np.diag([1.0, 2, 3, 1]))


def test_nifti_whose_data_would_begin_within_its_header(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 108, 0)  # vox_offset
    path.write_bytes(content)
    np.testing.assert_array_equal(voxels_of(path), VOXELS)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_with_more_voxels_than_its_header_says(tmp_path: Path, suffix: str) -> None:
    whole = nifti(tmp_path / "whole.nii").read_bytes()
    path = tmp_path / f"a{suffix}"  # a reader does not go by the suffix
    path.write_bytes(whole + bytes(2 * 16 * 14))
    with pytest.raises(ScanError, match="does not go with its header"):
        voxels_of(path)


def test_whole_numbers_beyond_32_bits_are_no_negative_ones() -> None:
    image = sitk.GetImageFromArray(np.full((8, 8, 8), 3_000_000_000, np.uint32))
    assert resample(image, (0, 0, 0), (4, 4, 4)).min() == pytest.approx(3e9)


def values(folder: Path) -> np.ndarray:
    (scan,) = find_scans(folder)
    return sitk.GetArrayFromImage(read_image(scan))


def test_an_intercept_without_a_slope(tmp_path: Path) -> None:
    write_series(tmp_path, RescaleSlope=None)
    np.testing.assert_array_equal(values(tmp_path), [plane(corner) for corner in corners(14)])


def test_ct_without_slope_and_intercept(tmp_path: Path) -> None:
    unscaled: dict[str, Any] = {"RescaleSlope": None, "RescaleIntercept": None}
    write_series(tmp_path / "ct", **unscaled)
    with pytest.raises(ScanError, match="does not say how its values become HU"):
        values(tmp_path / "ct")
    write_series(tmp_path / "mr", SOPClassUID="1.2.840.10008.5.1.4.1.1.4", Modality="MR", **unscaled)
    np.testing.assert_array_equal(values(tmp_path / "mr"), [plane(corner) + 1024 for corner in corners(14)])
    frames = enhanced(corners(14))
    del frames.PerFrameFunctionalGroupsSequence[5].PixelValueTransformationSequence
    save(tmp_path / "frames" / "a.dcm", frames)
    with pytest.raises(ScanError, match="does not say how its values become HU"):
        values(tmp_path / "frames")


def test_indices_of_a_palette(tmp_path: Path) -> None:
    write_series(tmp_path, PhotometricInterpretation="PALETTE COLOR")
    with pytest.raises(ScanError, match="is in colour"):
        values(tmp_path)


@pytest.mark.parametrize(
    ("what", "tags"),
    [
        ("cine loop", {"FrameIncrementPointer": 0x00181063, "FrameTime": 40, "SliceThickness": 1.0}),
        ("TimeSlotVector", {"TimeSlotVector": [1] * 7 + [2] * 7, "SpacingBetweenSlices": STEP}),
        ("TimeSliceVector", {"TimeSliceVector": list(range(1, 15)), "SpacingBetweenSlices": STEP}),
    ],
)
def test_frames_that_are_no_slices(tmp_path: Path, what: str, tags: dict[str, Any]) -> None:
    frames = np.stack([plane(corner) for corner in corners(14)])
    save(tmp_path / "a.dcm", dataset(frames, MULTI_SC, **tags))
    with pytest.raises(UserError, match=f"no scan found.*1 .*{what}"):
        find_scans(tmp_path)
    slices = {"DetectorVector": [1] * 14, "SliceVector": list(range(1, 15)), "SpacingBetweenSlices": -STEP}
    save(tmp_path / "a.dcm", dataset(frames, MULTI_SC, **slices))
    np.testing.assert_array_equal(values(tmp_path), frames)


def test_deflated_files_are_not_cut_short(tmp_path: Path) -> None:
    for file in write_series(tmp_path):
        new = pydicom.dcmread(file)
        new.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        new.save_as(file)
    np.testing.assert_array_equal(values(tmp_path), [field(plane_places) for plane_places in places()])


def places() -> np.ndarray:
    """Of the voxels of a series, (14, 12, 16, 3)."""
    y, x = np.mgrid[:12, :16]
    grid = np.stack([3.0 * x, 2.0 * y, 0.0 * x], axis=-1)
    return corners(14)[:, None, None] + grid


@pytest.mark.parametrize("content", [b"", b"<html>404</html>" * 20])
def test_the_last_slice_is_no_dicom_file(tmp_path: Path, content: bytes) -> None:
    files = write_series(tmp_path)
    files[-1].write_bytes(content)
    whole, broken = find_scans(tmp_path)
    assert len(whole.files) == 13
    assert broken.name == f"subset0/{tmp_path.name}_unreadable"
    assert files[-1].name in broken.problem
