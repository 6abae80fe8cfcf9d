"""NIfTI against nibabel: values, places, what is odd; and grids that are sheared, whatever the format."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from preprocess.volumes.files import Scan
from preprocess.volumes.volume import read_image
from tests.cases_ct import field, write_nifti
from tests.conftest import ROOT

SHAPE = (9, 8, 7)
TURNED = np.array([[0.0, -2.0, 0.0, 5.0], [1.5, 0.0, 0.0, -6.0], [0.0, 0.0, 3.0, 7.0], [0, 0, 0, 1]])
TO_LPS = np.diag([-1.0, -1.0, 1.0])
CASES = ROOT.parent / "shared" / "cases"


def read(path: Path) -> sitk.Image:
    return read_image(Scan(0, "scan", (path,)))


def noise(kind: Any = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 120, SHAPE).astype(kind)


def check_as_nibabel(path: Path) -> sitk.Image:
    """Values and the place of every voxel are nibabel's."""
    image, expected = read(path), nibabel.load(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, np.squeeze(expected.get_fdata()))
    for index in ((0, 0, 0), (8, 0, 0), (0, 7, 0), (3, 2, 6)):
        place = TO_LPS @ (expected.affine[:3] @ (*index, 1))
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), place, atol=1e-4)
    return image


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", ["u1", "i1", "i2", ">i2", "u2", "i4", "u4", "f4", ">f4", "f8"])
def test_every_kind_of_number(tmp_path: Path, kind: str, suffix: str) -> None:
    check_as_nibabel(write_nifti(tmp_path / f"a{suffix}", noise(kind), TURNED))


def test_nifti_2_and_one_time_point(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti2Image(noise(), TURNED), tmp_path / "a.nii")
    check_as_nibabel(tmp_path / "a.nii")
    nibabel.save(nibabel.Nifti1Image(noise()[..., None], TURNED), tmp_path / "b.nii.gz")
    check_as_nibabel(tmp_path / "b.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.stack([noise()] * 3, axis=-1), TURNED), tmp_path / "c.nii.gz")
    with pytest.raises(Exception, match="not a 3D image with one number a voxel: its size is 9 x 8 x 7 x 3"):
        read(tmp_path / "c.nii.gz")


def with_scaling(path: Path, slope: float, intercept: float) -> Path:
    """Put slope and intercept into a header as they are; nibabel would check or replace them."""
    write_nifti(path, noise(), TURNED)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("slope", "intercept"), [(1, -1024), (2.5, 10), (0, 0), (0, 7), (np.nan, np.nan), (np.nan, 3), (-1, 4)]
)
def test_scaling_is_that_of_nibabel(tmp_path: Path, slope: float, intercept: float) -> None:
    check_as_nibabel(with_scaling(tmp_path / "a.nii", slope, intercept))


def test_an_intercept_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"scaled by 1 plus nan \(scl_inter\)"):
        read(with_scaling(tmp_path / "a.nii", 1, np.nan))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_finite_number_is_found_in_every_format(tmp_path: Path, suffix: str, value: float) -> None:
    voxels = noise(np.float32)
    voxels[2:4] = value
    path = tmp_path / f"a{suffix}"
    if suffix in (".nii", ".nii.gz"):
        write_nifti(path, voxels, TURNED)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    with pytest.raises(Exception, match="voxels that are not finite numbers"):
        read(path)


@pytest.mark.parametrize(
    ("codes", "of_sform"), [((1, 1), True), ((1, 0), True), ((0, 1), False), ((2, 1), False), ((4, 0), True)]
)
def test_where_sform_and_qform_differ_the_scanner_s_counts(
    tmp_path: Path, codes: tuple[int, int], of_sform: bool
) -> None:
    image = nibabel.Nifti1Image(noise(), None)
    image.header.set_sform(np.diag([3.0, 3.0, 4.0, 1.0]), codes[0])
    image.header.set_qform(np.diag([1.0, 2.0, 2.0, 1.0]), codes[1])
    image.to_filename(tmp_path / "a.nii")
    written = nibabel.load(tmp_path / "a.nii").header
    assert (int(written["sform_code"]), int(written["qform_code"])) == codes
    assert read(tmp_path / "a.nii").GetSpacing() == pytest.approx((3, 3, 4) if of_sform else (1, 2, 2))


def test_a_qform_with_a_mirrored_axis_and_metres(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(noise(), None)
    mirrored = TURNED.copy()
    mirrored[:, 2] *= -1
    image.header.set_qform(mirrored, 1)
    image.header.set_sform(None, 0)
    image.to_filename(tmp_path / "a.nii")
    check_as_nibabel(tmp_path / "a.nii")
    image.header.set_xyzt_units("meter")
    image.header.set_qform(np.diag([0.001, 0.001, 0.003, 1]), 1)
    image.to_filename(tmp_path / "b.nii")
    assert read(tmp_path / "b.nii").GetSpacing() == pytest.approx((1, 1, 3))


def test_a_header_that_does_not_say_how_large_voxels_are_is_refused(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", noise(), TURNED)
    content = bytearray(path.read_bytes())
    content[80:92], content[252:256] = bytes(12), bytes(4)  # pixdim; both codes
    path.write_bytes(content)
    with pytest.raises(Exception, match="does not say how large its voxels are"):
        read(path)


def test_corrupt_gzip_is_found(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", noise(), TURNED)
    content = bytearray(path.read_bytes())
    content[-8] ^= 0xFF  # of the checksum
    path.write_bytes(content)
    with pytest.raises(Exception, match=r"a.nii.gz cannot be read: .*CRC"):
        read(path)


def test_zipped_or_not_counts_by_content(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", noise(), TURNED)
    path.rename(tmp_path / "b.nii.gz")
    (tmp_path / "c.nii").write_bytes(gzip.compress((tmp_path / "b.nii.gz").read_bytes()))
    for name in ("b.nii.gz", "c.nii"):
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read(tmp_path / name)).T, noise())


# -- the other formats, written and read by hand --------------------------------------------------------------------

META = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 0 1 0 -1 0 0 0 0 1
Offset = -10.5 20 30
ElementSpacing = 1.5 2 3
DimSize = 9 8 7
ElementType = MET_SHORT
ElementDataFile = {data}
"""
NRRD = """NRRD0005
type: int16
dimension: 3
space: right-anterior-superior
sizes: 9 8 7
space directions: (0,-1.5,0) (2,0,0) (0,0,3)
endian: little
encoding: raw
space origin: (10.5,-20,30)

"""


@pytest.mark.parametrize("name", ["a.mhd", "a.mha", "a.nrrd"])
def test_values_and_places_of_the_other_formats(tmp_path: Path, name: str) -> None:
    voxels = (noise().astype(np.int32) * 50 - 3000).astype("<i2")
    data = voxels.tobytes(order="F")  # x runs fastest
    header = NRRD if name == "a.nrrd" else META.format(data="a.raw" if name == "a.mhd" else "LOCAL")
    if name == "a.mhd":
        (tmp_path / "a.raw").write_bytes(data)
    (tmp_path / name).write_bytes(header.encode() + (b"" if name == "a.mhd" else data))
    image = read(tmp_path / name)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, voxels)
    assert image.GetSpacing() == pytest.approx((1.5, 2, 3))
    # x steps go to the back, y steps to the right, in ITK's LPS
    assert image.TransformIndexToPhysicalPoint((2, 3, 4)) == pytest.approx((-10.5 - 6, 20 + 3, 30 + 12))


# -- axes that are not at right angles -----------------------------------------------------------------------------


@pytest.mark.parametrize("slip", [0.0003, 0.001, 0.003])
def test_a_grid_that_is_nearly_upright_gets_the_nearest_rotation(tmp_path: Path, slip: float) -> None:
    affine = TURNED.copy()
    affine[0, 2] += 3 * slip
    image = read(write_nifti(tmp_path / "a.nii.gz", noise(), affine))
    axes = np.reshape(image.GetDirection(), (3, 3))
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(axes, TO_LPS @ (TURNED[:3, :3] / (1.5, 2, 3)), atol=slip)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, noise())


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
def test_a_sheared_grid_is_resampled_upright(tmp_path: Path, name: str) -> None:
    steps = np.array([[0.0, -2.0, 0.0], [1.5, 0.0, 1.2], [0.0, 0.0, 3.0]])  # LPS; z leans by 22 degrees
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    voxels = field(index @ steps.T + (5, -6, 7)).astype(np.int16)
    if name.endswith("gz"):
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = TO_LPS @ steps, TO_LPS @ (5, -6, 7)
        image = nibabel.Nifti1Image(voxels, affine)
        image.header.set_qform(None, 0)
        image.to_filename(tmp_path / name)
    else:
        lengths = np.linalg.norm(steps, axis=0)
        stored = sitk.GetImageFromArray(voxels.T)
        stored.SetSpacing(lengths.tolist())
        stored.SetDirection((steps / lengths).ravel().tolist())
        stored.SetOrigin((5, -6, 7))
        sitk.WriteImage(stored, str(tmp_path / name))
    image = read(tmp_path / name)
    axes = np.reshape(image.GetDirection(), (3, 3))
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    assert image.GetSpacing() == pytest.approx((1.5, 2, 3))
    got, right, met = sitk.GetArrayFromImage(image), 0, 0
    for x, y, z in np.ndindex(image.GetSize()):
        place = np.array(image.TransformIndexToPhysicalPoint((x, y, z)))
        where = np.linalg.solve(steps, place - (5, -6, 7))
        if (where >= -1e-6).all() and (where <= np.array(SHAPE) - 1 + 1e-6).all():
            met += 1
            right += abs(got[z, y, x] - field(place)) <= 2
    assert right == met > 0.85 * voxels.size


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the cases in ../shared, which are no part of the project")
def test_shared_cases() -> None:
    for name in ("a_0.0003", "b_0.001", "c_tilt"):
        axes = np.reshape(read(CASES / f"18-not-quite-orthonormal-nifti/data/{name}.nii.gz").GetDirection(), (3, 3))
        np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    with pytest.raises(Exception, match="not finite numbers"):
        read(CASES / "08-nifti-nan/data/nan.nii.gz")


def test_a_real_scan_is_that_of_nibabel() -> None:
    path = ROOT.parent / "shared" / "data" / "own_ct" / "thorax_abdomen_3mm.nii.gz"
    if not path.is_file():
        pytest.skip("needs the real CT in ../shared/data, which is no part of the project")
    check_as_nibabel(path)
    by_itk = sitk.ReadImage(str(path))
    image = read(path)
    assert image.GetPixelID() == by_itk.GetPixelID()
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(image, name)() == pytest.approx(getattr(by_itk, name)(), abs=1e-5)
