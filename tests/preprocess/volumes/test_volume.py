"""Finding, reading and resampling scans, against SimpleITK and against files that are broken in every way."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from datasets.ct.dicom_series import check_slice_distances
from datasets.ct.errors import ScanError
from preprocess.volumes.files import Scan, find_scans
from preprocess.volumes.volume import read_image, resample, shape_at_1mm
from tests.preprocess.small_scans import chest, cut_short, write, write_dicom
from utils.errors import UserError


def scan_of(*files: Path) -> Scan:
    return Scan(0, "scan", files)


def by_simpleitk(image: sitk.Image, kind: int | None = None) -> np.ndarray:
    size = [int(n * spacing + 0.5) for n, spacing in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    grid = (image.GetOrigin(), (1.0, 1.0, 1.0), image.GetDirection())
    resampled = sitk.Resample(image, size, sitk.Transform(), sitk.sitkLinear, *grid, -1000, kind or image.GetPixelID())
    return sitk.GetArrayFromImage(resampled).T


@pytest.mark.parametrize("spacing", [(0.703125, 0.703125, 2.5), (1.3, 0.61, 0.5), (5.0, 3.0, 1.25)])
@pytest.mark.parametrize("kind", [np.int16, np.int32, np.float32, np.float64])
def test_resampling_equals_simpleitk(spacing: tuple[float, ...], kind: type) -> None:
    rng = np.random.default_rng(0)
    image = sitk.GetImageFromArray(rng.uniform(-1024, 2000, (21, 33, 40)).astype(kind))
    image.SetSpacing(spacing)
    image.SetOrigin((-170.0, 12.5, 3.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    expected = by_simpleitk(image)
    got = resample(image, (0, 0, 0), shape_at_1mm(image))
    assert got.shape == expected.shape
    difference = np.abs(got - expected.astype(float))
    if np.issubdtype(kind, np.floating):
        assert difference.max() < 1e-3
    else:  # cut off towards zero: sums that are whole but for rounding may fall on either side
        exact = by_simpleitk(image, sitk.sitkFloat64)
        assert difference.max() <= 1
        assert np.abs(exact - np.rint(exact))[difference > 0].max(initial=0) < 1e-6
    low, high = (3, 5, 2), (20, 14, 9)
    part = resample(image, low, high)
    np.testing.assert_array_equal(part, got[tuple(map(slice, low, high))])


def test_at_1_mm_a_scan_stays_as_it_is() -> None:
    voxels = chest(shape=(30, 20, 10))
    image = sitk.GetImageFromArray(voxels)
    np.testing.assert_array_equal(resample(image, (0, 0, 0), (30, 20, 10)), voxels.T)
    assert resample(image, (0, 0, 0), (30, 20, 10)).dtype == np.int16


def test_beyond_half_a_voxel_outside_the_last_one_there_is_air() -> None:
    image = sitk.GetImageFromArray(np.full((4, 4, 4), 77, np.int16))
    image.SetSpacing((1.0, 1.0, 5.0))
    column = resample(image, (0, 0, 0), (4, 4, 20))[1, 1]
    assert column.tolist() == [77] * 18 + [-1000] * 2  # the last centre lies at 15 mm, its edge at 17.5


# -- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mhd", ".mha", ".nrrd", ".nii", ".nii.gz"])
@pytest.mark.parametrize("compress", [False, True])
def test_every_format_is_read(tmp_path: Path, suffix: str, compress: bool) -> None:
    voxels = chest(shape=(20, 18, 16))
    image = read_image(scan_of(write(tmp_path / f"a{suffix}", voxels, compress=compress)))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), voxels)
    assert shape_at_1mm(image) == (100, 90, 80)


def _remove_data(path: Path) -> None:
    path.with_suffix(".raw").unlink()


def _shorten_data(path: Path) -> None:
    cut_short(path.with_suffix(".raw"), 0.99)


def _shorten(path: Path) -> None:
    cut_short(path, 0.9)


def _garble(path: Path) -> None:
    path.write_text("not a scan")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _not_a_number(path: Path) -> None:
    voxels = chest(shape=(20, 18, 16)).astype(np.float32)
    voxels[3, 4, 5] = np.nan
    write(path, voxels)


def _shorten_compressed(path: Path) -> None:
    noise = np.random.default_rng(0).integers(-1000, 1000, (16, 18, 20)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(path), useCompression=True)
    path.write_bytes(path.read_bytes()[:5000])


def _header_alone(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _flat(path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((8, 9), np.int16)), str(path))


def _colour(path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((8, 9, 10, 3), np.uint8), isVector=True), str(path))


def _wrong_spacing(path: Path) -> None:
    write(path, chest(shape=(20, 18, 16)), (700.0, 700.0, 700.0))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("a.mhd", _remove_data, "data file that a.mhd names is missing"),
        ("a.mhd", _shorten_data, "data of a.mhd are cut short: 11404 of 11520 bytes"),
        ("a.mhd", _garble, "a.mhd cannot be read"),
        ("a.mhd", _empty, "a.mhd cannot be read"),
        ("a.mha", _shorten, "data of a.mha are cut short"),
        ("a.nrrd", _shorten, "a.nrrd cannot be read: damaged or cut short: fread got only 5169 .* of expected\\)$"),
        ("a.nrrd", _shorten_compressed, r"data of a.nrrd are cut short: \d+ of 11520 bytes"),
        ("a.nrrd", _empty, "a.nrrd cannot be read"),
        ("a.nrrd", _header_alone, r'a.nrrd cannot be read: damaged or cut short: .*no "data file" given$'),
        ("a.nii", _shorten, "a.nii is cut short: it has"),
        ("a.nii.gz", _shorten, r"a.nii.gz is cut short: it has [1-9]\d+ of"),
        ("a.nii.gz", _garble, "a.nii.gz cannot be read"),
        ("a.nrrd", _not_a_number, "not finite numbers"),
        ("a.nrrd", _flat, "not a 3D image .* 9 x 8"),
        ("a.nrrd", _colour, "not a 3D image"),
        ("a.nrrd", _wrong_spacing, "14000 x 12600 x 11200 mm: its spacing must be wrong"),
        ("a.nrrd", Path.unlink, "a.nrrd is missing"),
    ],
)
def test_a_broken_file_is_told_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, damage: Callable[[Path], None], message: str
) -> None:
    path = write(tmp_path / name, chest(shape=(20, 18, 16)))
    damage(path)
    with pytest.raises(ScanError, match=message) as caught:
        read_image(scan_of(path))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # the C++ libraries' own words are kept back


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("patch", [b"\x01", b"\xff\x00\xff\x00", bytes(200)])
@pytest.mark.parametrize("name", ["a.mhd", "a.mha"])
def test_corrupt_compressed_data_are_found(tmp_path: Path, name: str, patch: bytes, place: float) -> None:
    path = write(tmp_path / name, chest(), compress=True)
    stored = path if name == "a.mha" else path.with_suffix(".zraw")
    data = bytearray(stored.read_bytes())
    start = int(len(data) * place)
    data[start : start + len(patch)] = patch
    stored.write_bytes(data)
    with pytest.raises(ScanError, match=r"compressed data of .* are corrupt"):
        read_image(scan_of(path))


def test_a_gzip_file_of_several_parts_is_whole(tmp_path: Path) -> None:
    voxels = chest(shape=(20, 18, 16))
    path = write(tmp_path / "a.nii", voxels)
    content = path.read_bytes()
    zipped = tmp_path / "b.nii.gz"
    zipped.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(scan_of(zipped))), voxels)


# -- finding ------------------------------------------------------------------------------------------------------


def names(scans: list[Scan]) -> list[str]:
    return [scan.name for scan in scans]


def test_the_subsets_of_luna16_are_searched_and_nothing_else(tmp_path: Path) -> None:
    for place in ("subset0/1.2.840.1", "subset0/1.2.840.2", "subset9/1.2.840.3", "seg-lungs-LUNA16/1.2.840.1"):
        write(tmp_path / f"{place}.mhd", chest(shape=(4, 4, 4)))
    (tmp_path / "subset1").mkdir()
    assert names(find_scans(tmp_path)) == ["subset0/1.2.840.1", "subset0/1.2.840.2", "subset9/1.2.840.3"]
    assert names(find_scans(tmp_path, fold=9)) == ["subset9/1.2.840.3"]
    with pytest.raises(UserError, match="no scan of that subset, only of subset 0, 9"):
        find_scans(tmp_path, fold=1)


def test_own_scans_are_found_in_any_folder_and_named_apart(tmp_path: Path) -> None:
    for place in ("a/ct.nii.gz", "b/ct.nii.gz", "b/other.nrrd", "b/c/third.MHA", ".hidden.nii"):
        write(tmp_path / place, chest(shape=(4, 4, 4)))
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "subset0").mkdir()  # as our own output beside the data leaves it
    assert names(find_scans(tmp_path)) == [
        "subset0/a_ct.nii.gz",
        "subset0/b_ct.nii.gz",
        "subset0/other",
        "subset0/third",
    ]


def test_two_scans_of_one_name_are_an_error_where_the_path_does_not_help(tmp_path: Path) -> None:
    for place in ("a_b/c.nii", "a/b_c.nii", "c.nii", "b_c.nii"):
        write(tmp_path / place, chest(shape=(4, 4, 4)))
    with pytest.raises(UserError, match="2 scans would be called a_b_c"):
        find_scans(tmp_path)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("")])
def test_data_without_scans_is_an_error(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "data")
    with pytest.raises(UserError, match=r"this is not a folder|no such folder|no scan found"):
        find_scans(tmp_path / "data")


def test_series_in_one_folder_are_told_apart_and_sorted_by_position(tmp_path: Path) -> None:
    first, second = chest(1, (12, 11, 9)), chest(2, (12, 11, 7))
    write_dicom(tmp_path / "study", first, "1.2.3")
    write_dicom(tmp_path / "study", second, "1.2.4", step_mm=2.0)
    (tmp_path / "study" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    scans = find_scans(tmp_path)
    assert names(scans) == ["subset0/1.2.3", "subset0/1.2.4"]
    for scan, voxels, step in zip(scans, (first, second), (5.0, 2.0), strict=True):
        image = read_image(scan)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), voxels)
        assert image.GetSpacing()[2] == pytest.approx(step)


def test_a_missing_slice_is_reported(tmp_path: Path) -> None:
    write_dicom(tmp_path, chest(shape=(12, 11, 9)), "1.2.3")[4].unlink()
    with pytest.raises(ScanError, match=r"missing or doubled: 1 of 7 .* usual 5 mm, e.g. 10 mm"):
        read_image(find_scans(tmp_path)[0])


def test_a_slice_that_cannot_be_read_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cut_short(write_dicom(tmp_path / "ct", chest(shape=(12, 11, 9)), "1.2.3")[8], 0.5)
    series, unreadable = find_scans(tmp_path)
    assert (series.name, unreadable.name) == ("subset0/1.2.3", "subset0/ct_unreadable")
    with pytest.raises(ScanError, match=r"1 DICOM files cannot be read, the first is 1.2.3-1.dcm"):
        read_image(unreadable)
    assert capfd.readouterr() == ("", "")


def test_slices_of_almost_even_distance_pass() -> None:
    check_slice_distances(np.array([0.62, 0.63, 0.62, 0.63]))
    for distances in ([2.5, 2.5, 0.0], [0.0, 0.0]):
        with pytest.raises(ScanError, match="missing or doubled"):
            check_slice_distances(np.array(distances))


@pytest.mark.parametrize("name", ["lung_5mm", "thorax_abdomen_3mm", "dicom_series"])
def test_real_scans_are_read_and_resampled_as_by_simpleitk(name: str) -> None:
    data = Path(__file__).parents[4] / "shared" / "data" / "own_ct"
    if not data.is_dir():
        pytest.skip("needs the real CT in ../shared/data, which is no part of the project")
    scan = next(scan for scan in find_scans(data) if scan.uid == name)
    image = read_image(scan)
    low = [n // 3 for n in shape_at_1mm(image)]
    high = [first + 30 for first in low[:2]] + [low[2] + 10]
    expected = by_simpleitk(image)[tuple(map(slice, low, high))]
    assert np.abs(resample(image, low, high) - expected.astype(float)).max() <= 1
