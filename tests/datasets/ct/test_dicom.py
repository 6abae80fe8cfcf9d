"""DICOM read as volumes: where slices lie, what their values are, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.uid import RLELossless

from preprocess.volumes.files import find_scans
from preprocess.volumes.volume import read_image
from tests.cases_ct import (
    CT,
    MULTI_SC,
    SPACING,
    STEP,
    corners,
    dataset,
    enhanced,
    field,
    plane,
    save,
    write_series,
)
from tests.conftest import ROOT

NORMAL = (0.0, 0.0, 1.0)
LYING = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)  # a sagittal slice
CASES = ROOT.parent / "shared" / "cases"


def read(data: Path) -> sitk.Image:
    (scan,) = find_scans(data)
    return read_image(scan)


def points(image: sitk.Image) -> np.ndarray:
    """Where the voxels lie in mm, (z, y, x, 3), by ITK's own sums."""
    n = image.GetSize()
    index = np.stack(np.meshgrid(*map(np.arange, n), indexing="ij"), axis=-1) * image.GetSpacing()
    return (index @ np.reshape(image.GetDirection(), (3, 3)).T + image.GetOrigin()).transpose(2, 1, 0, 3)


def check_field(image: sitk.Image, slices: int = 14) -> None:
    """The voxels are the field's, at the places where they lie."""
    assert image.GetSize() == (16, 12, slices)
    assert image.GetSpacing() == pytest.approx((*SPACING, STEP))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), field(points(image)))


def refused(data: Path, message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        read(data)
    assert type(caught.value).__name__ == "ScanError"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("preamble", [True, False])
def test_a_classic_series(tmp_path: Path, preamble: bool) -> None:
    write_series(tmp_path, preamble=preamble)
    check_field(read(tmp_path))


def test_each_slice_has_its_own_slope(tmp_path: Path) -> None:
    for number, corner in enumerate(corners(14)):
        slope = 1.0 if number < 5 else 0.5  # the stored values are such that HU are the field's
        stored = (plane(corner) + 1024) / slope - 1024
        new = dataset(
            stored,
            RescaleSlope=slope,
            ImagePositionPatient=corner.tolist(),
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            InstanceNumber=number,
        )
        save(tmp_path / f"{number}.dcm", new)
    check_field(read(tmp_path))


def tilted(degrees: float) -> list[float]:
    angle = np.radians(degrees)
    return [1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle))]


@pytest.mark.parametrize("degrees", [20.0, -7.5])
def test_a_tilted_gantry_is_sheared_back(tmp_path: Path, degrees: float) -> None:
    write_series(tmp_path, orientation=tilted(degrees))
    image = read(tmp_path)
    axes = np.reshape(image.GetDirection(), (3, 3))
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(axes[:, 1], tilted(degrees)[3:], atol=1e-7)
    assert image.GetSpacing() == pytest.approx((*SPACING, STEP * np.cos(np.radians(degrees))))
    voxels, places = sitk.GetArrayFromImage(image), points(image)
    rows = (places - corners(14)[:, None, None]) @ axes[:, 1] / SPACING[1]  # of the slice as it was stored
    inside = (rows > -1e-6) & (rows < 11 + 1e-6)
    assert inside.sum() > 14 * 16 * 10.5
    assert np.abs(voxels - field(places))[inside].max() <= 2  # field and resampling are both rounded
    assert (voxels[(rows < -0.51) | (rows > 11.51)] == voxels.min()).all()
    assert image.GetSize()[::2] == (16, 14)


@pytest.mark.parametrize("name", ["classic", "multi"])
def test_a_missing_slice_and_a_doubled_one_are_refused(tmp_path: Path, name: str) -> None:
    missing = np.delete(corners(14), 5, axis=0)
    doubled = np.concatenate([corners(14), corners(14)[3:4]])
    for places, what in ((missing, "missing"), (doubled, "doubled")):
        if name == "classic":
            write_series(tmp_path / what, places)
        else:
            save(tmp_path / what / "a.dcm", enhanced(places))
        refused(tmp_path / what, r"slices are missing or doubled: \d of 1\d distances")


@pytest.mark.parametrize("name", ["classic", "multi"])
def test_several_time_points_are_refused(tmp_path: Path, name: str) -> None:
    places = np.concatenate([corners(6)] * 3)
    if name == "classic":
        write_series(tmp_path, places)
    else:
        save(tmp_path / "a.dcm", enhanced(places))
    refused(tmp_path, "each of its 6 slice positions occurs 3 times: .*time points.* give one of them")


def test_time_points_whose_slices_lie_between_one_anothers_are_refused(tmp_path: Path) -> None:
    new = enhanced(corners(12))
    for number, frame in enumerate(new.PerFrameFunctionalGroupsSequence):
        content = Dataset()
        content.TemporalPositionIndex = 1 + number % 2
        frame.FrameContentSequence = [content]
    save(tmp_path / "two" / "a.dcm", new)
    refused(tmp_path / "two", "it has slices of 2 time points; give one of them")
    for number, frame in enumerate(new.PerFrameFunctionalGroupsSequence):  # some scanners just count
        frame.FrameContentSequence[0].TemporalPositionIndex = 1 + number
    save(tmp_path / "counted" / "a.dcm", new)
    assert read(tmp_path / "counted").GetSize()[2] == 12


def test_slices_that_are_shifted_sideways_are_refused(tmp_path: Path) -> None:
    places = corners(14)
    places[7:, 0] += 9.0
    write_series(tmp_path, places)
    refused(tmp_path, "slices are missing or doubled|not on a straight line")


def test_frames_are_put_in_order_each_with_its_own_slope(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(14)
    rescale = [(1.0 + number % 3, -1024.0 - 8 * number) for number in range(14)]
    values = enhanced(corners(14)[order], rescale)
    save(tmp_path / "a.dcm", values)
    image = read(tmp_path)
    assert image.GetSpacing() == pytest.approx((*SPACING, STEP))
    voxels, expected = sitk.GetArrayFromImage(image), field(points(image))
    assert np.abs(voxels - expected).max() <= 1.5  # what is stored is rounded, with slopes of up to 3
    stored = values.pixel_array.astype(float)
    by_hand = [stored[k] * rescale[k][0] + rescale[k][1] for k in np.argsort(order)]
    np.testing.assert_array_equal(voxels, np.stack(by_hand))


def test_compressed_frames_are_rescaled_alike(tmp_path: Path) -> None:
    rescale = [(1.0 + number % 3, -1024.0 - 8 * number) for number in range(14)]
    new = enhanced(corners(14), rescale)
    save(tmp_path / "plain" / "a.dcm", new)
    new.compress(RLELossless)
    new.save_as((tmp_path / "a.dcm"), enforce_file_format=True)
    (tmp_path / "packed").mkdir()
    (tmp_path / "a.dcm").rename(tmp_path / "packed" / "a.dcm")
    plain, packed = (sitk.GetArrayFromImage(read(tmp_path / name)) for name in ("plain", "packed"))
    np.testing.assert_array_equal(packed, plain)


def test_frames_that_do_not_all_say_where_they_lie_are_refused(tmp_path: Path) -> None:
    new = enhanced(corners(14))
    del new.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence
    save(tmp_path / "a" / "a.dcm", new)
    refused(tmp_path / "a", "the positions of its slices are not given: 1 of 14")
    new = enhanced(corners(14))
    del new.PerFrameFunctionalGroupsSequence[13]
    save(tmp_path / "b" / "a.dcm", new)
    refused(tmp_path / "b", "14 frames, but positions of 13")


def without_place(path: Path, **more: float | None) -> None:
    write_series(path, ImagePositionPatient=None, ImageOrientationPatient=None, **more)


def test_without_positions_the_distance_is_taken_from_what_is_said(tmp_path: Path) -> None:
    without_place(tmp_path / "thickness", SliceThickness=STEP)
    without_place(tmp_path / "gap", SliceThickness=1.0, SpacingBetweenSlices=STEP)
    for name in ("thickness", "gap"):
        image = read(tmp_path / name)
        assert image.GetSpacing() == pytest.approx((*SPACING, STEP))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), [plane(corner) for corner in corners(14)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "the positions of its slices are not given: they have no ImagePositionPatient"),
        ({"SliceThickness": STEP, "InstanceNumber": None}, "the positions of its slices are not given"),
        ({"SliceThickness": STEP, "PixelSpacing": None}, "pixel size is not given"),
        ({"SliceThickness": 0.0}, "the positions of its slices are not given"),
    ],
)
def test_a_spacing_is_never_invented(tmp_path: Path, changes: dict[str, float | None], message: str) -> None:
    without_place(tmp_path, **changes)
    refused(tmp_path, message)


def test_without_positions_a_gap_in_the_numbers_is_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path, ImagePositionPatient=None, SliceThickness=STEP)
    files[4].unlink()
    refused(tmp_path, "missing or doubled, by their InstanceNumber")


def test_a_multi_frame_secondary_capture_has_the_spacing_that_it_says(tmp_path: Path) -> None:
    voxels = np.stack([plane(corner) for corner in corners(14)])
    place = {"ImagePositionPatient": corners(1)[0].tolist(), "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    save(tmp_path / "a" / "a.dcm", dataset(voxels, MULTI_SC, SpacingBetweenSlices=STEP, **place))
    image = read(tmp_path / "a")
    assert image.GetSpacing() == pytest.approx((*SPACING, STEP))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), voxels)
    save(tmp_path / "b" / "a.dcm", dataset(voxels, MULTI_SC, **place))
    refused(tmp_path / "b", "the positions of its slices are not given")


def scout(folder: Path, name: str, number: int = 99, word: str = "LOCALIZER") -> None:
    place = {"ImagePositionPatient": [0, -30 - number, 7], "ImageOrientationPatient": list(LYING)}
    kind = {"ImageType": ["ORIGINAL", "PRIMARY", word], "InstanceNumber": number}
    save(folder / name, dataset(plane((0, 0, number), (30, 20)), CT, **place, **kind))


@pytest.mark.parametrize("word", ["LOCALIZER", "AXIAL"])
def test_a_localizer_costs_itself_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str], word: str) -> None:
    write_series(tmp_path)
    scout(tmp_path, "scout.dcm", word=word)
    check_field(read(tmp_path))
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert line.endswith("scout.dcm")


def test_slices_of_two_kinds_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path)
    for number in range(5):
        scout(tmp_path, f"sagittal_{number}.dcm", number, "AXIAL")
    refused(tmp_path, r"differ in size or orientation \(14 of 16 x 12, 5 of 30 x 20\)")


def test_values_are_those_of_pydicom_whatever_the_bits(tmp_path: Path) -> None:
    """Signed 12-bit values in 16, with rubbish in the four bits above them, and a slope that is no whole number."""
    rng = np.random.default_rng(0)
    for number, corner in enumerate(corners(12)):
        new = dataset(
            np.zeros((12, 16)), ImagePositionPatient=corner.tolist(), ImageOrientationPatient=[1, 0, 0, 0, 1, 0]
        )
        new.BitsStored, new.HighBit, new.PixelRepresentation, new.RescaleSlope = 12, 11, 1, 0.25
        new.PixelData = rng.integers(0, 2**16, (12, 16)).astype("<u2").tobytes()
        save(tmp_path / f"{number:02}.dcm", new)
    by_pydicom = [pydicom.dcmread(file) for file in sorted(tmp_path.iterdir())]
    expected = np.stack([one.pixel_array * 0.25 - 1024 for one in by_pydicom])
    assert expected.min() < -1500  # signed
    assert expected.max() < -500
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read(tmp_path)), expected)


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the cases in ../shared, which are no part of the project")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("03-gantry-tilt/data", (3.0, 3.0, 2 * np.cos(np.radians(20)))),
        ("04-enhanced-multiframe/data/shuffled", (3.0, 3.0, 2.0)),
        ("04-enhanced-multiframe/data/slopes", (3.0, 3.0, 2.0)),
        ("04-enhanced-multiframe/data/missing", "missing or doubled"),
        ("04-enhanced-multiframe/data/four_times", "8 slice positions occurs 4 times"),
        ("05-seg-and-other-objects/data", (3.0, 3.0, 2.0)),
        ("14-no-preamble/ct", (3.0, 3.0, 2.0)),
        ("17-no-position/data/classic", (3.0, 3.0, 2.0)),
        ("17-no-position/data/sc", (3.0, 3.0, 2.0)),
        ("20-localizer-in-series/data", (3.0, 3.0, 2.0)),
    ],
)
def test_shared_cases(name: str, expected: str | tuple[float, ...]) -> None:
    if isinstance(expected, str):
        refused(CASES / name, expected)
        return
    image = read(CASES / name)
    assert image.GetSpacing() == pytest.approx(expected, rel=1e-4)
    voxels = sitk.GetArrayFromImage(image)
    assert voxels.min() >= -1100
    assert voxels.max() <= 400


def test_a_real_series_equals_its_files_one_by_one() -> None:
    folder = ROOT.parent / "shared" / "data" / "own_ct" / "dicom_series"
    if not folder.is_dir():
        pytest.skip("needs the real CT in ../shared/data, which is no part of the project")
    files = [pydicom.dcmread(file) for file in folder.iterdir()]
    files.sort(key=lambda one: one.ImagePositionPatient[2])
    image = read(folder)
    for place in (0, 7, 19):
        one = files[place]
        expected = one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept)
        np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image)[place], expected)
    assert image.GetOrigin() == pytest.approx([float(value) for value in files[0].ImagePositionPatient])
    assert image.GetDirection() == pytest.approx(np.eye(3).ravel())
