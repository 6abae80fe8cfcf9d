"""Masks lie where their scan lies, voxel by voxel, whatever the scan's format and orientation: as nibabel sees them."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from datasets.ct.dicom_series import read_series
from datasets.ct.grid import upright
from datasets.ct.itk import read_file
from datasets.ct.nifti_write import write_nifti
from datasets.ct.stored_grid import back_to_stored, stored_grid
from datasets.segmentation.files import channels_of, stacked
from tests.cases_ct import write_series

SHAPE = (11, 8, 7)
TURNED = np.array([[0.0, -2.0, 0.0, 5.0], [1.5, 0.0, 0.0, -6.0], [0.0, 0.0, 3.0, 7.0], [0, 0, 0, 1]])
OBLIQUE = np.array([[1.8, -0.6, 0.1, 5.0], [0.8, 1.3, -0.4, -6.0], [0.05, 0.45, 2.9, 7.0], [0, 0, 0, 1]])
TO_LPS = np.diag([-1.0, -1.0, 1.0])


def voxels(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, shape).astype(np.int16)


def rotation(affine: np.ndarray) -> np.ndarray:
    """The affine with axes at right angles."""
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / steps)
    new = affine.copy()
    new[:3, :3] = left @ right * steps
    return new


def mask_of(files: tuple[Path, ...], target: Path) -> nibabel.Nifti1Image:
    """What the reader sees of the scan, written back as its mask."""
    image = read_file(files[0]) if len(files) == 1 else upright(read_series(files))
    seen = stacked(channels_of(image)[:1])[0].round().astype(np.uint8)
    grid = stored_grid(files)
    write_nifti(target, back_to_stored(seen, grid), grid)
    return nibabel.load(target)


def written(path: Path, case: str) -> tuple[Path, np.ndarray]:
    """A scan of this case, and its affine as nibabel has it."""
    affine = rotation(OBLIQUE) if case != "turned" else TURNED
    image = nibabel.Nifti1Image(voxels(), affine)
    if case == "qform alone":
        image.set_sform(None, 0)
        image.set_qform(affine, 1)
    elif case == "atlas and scanner":  # nibabel goes by the sform, this project's reader by the qform
        image.set_sform(np.diag([2, 2, 2, 1]), 4)
        image.set_qform(affine, 1)
    elif case == "mirrored":
        affine = affine @ np.diag([-1, 1, 1, 1])
        image = nibabel.Nifti1Image(voxels(), affine)
    elif case == "big-endian":
        image = nibabel.Nifti1Image(voxels().astype(">i2"), affine, nibabel.Nifti1Header(endianness=">"))
    elif case == "NIfTI-2":
        image = nibabel.Nifti2Image(voxels(), affine)
    elif case == "metres":
        scaled = affine.copy()
        scaled[:3] /= 1000
        image = nibabel.Nifti1Image(voxels(), scaled)
        image.header.set_xyzt_units("meter", "sec")
    elif case == "4D":
        image = nibabel.Nifti1Image(np.stack([voxels()] * 2, -1), affine)
    elif case == "rounded":
        image = nibabel.Nifti1Image(voxels(), affine + np.pad(np.full((3, 3), 1e-3), ((0, 1), (0, 1))))
    nibabel.save(image, path)
    return path, nibabel.load(path).affine


CASES = ["turned", "oblique", "qform alone", "atlas and scanner", "mirrored", "big-endian", "NIfTI-2", "metres"]


@pytest.mark.parametrize("case", [*CASES, "4D", "rounded"])
def test_a_mask_of_a_nifti_has_its_affine_and_its_voxels(tmp_path: Path, case: str) -> None:
    path, affine = written(tmp_path / "scan.nii.gz", case)
    mask = mask_of((path,), tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(mask.affine, affine, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), voxels())
    assert mask.get_data_dtype() == np.uint8
    assert mask.header.get_xyzt_units()[0] == nibabel.load(path).header.get_xyzt_units()[0]
    theirs, ours = read_file(path), read_file(tmp_path / "mask.nii.gz")  # where this project reads them
    np.testing.assert_allclose(ours.GetOrigin(), theirs.GetOrigin()[:3], atol=1e-4)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_mask_of_another_format_lies_there_too(tmp_path: Path, suffix: str, mirrored: bool) -> None:
    affine = rotation(OBLIQUE) @ np.diag([1, 1, -1 if mirrored else 1, 1])
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(voxels().T)
    image.SetSpacing(steps.tolist())
    image.SetDirection((TO_LPS @ affine[:3, :3] / steps).ravel().tolist())
    image.SetOrigin((TO_LPS @ affine[:3, 3]).tolist())
    sitk.WriteImage(image, str(tmp_path / f"scan{suffix}"))
    mask = mask_of((tmp_path / f"scan{suffix}",), tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(mask.affine, affine, atol=1e-5)
    np.testing.assert_allclose(mask.get_qform(), affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), voxels())


def test_a_mask_of_a_dicom_series(tmp_path: Path) -> None:
    files = tuple(write_series(tmp_path / "series"))
    scan = read_series(files)
    grid = stored_grid(files)
    seen = stacked(channels_of(upright(scan)))[0]
    write_nifti(tmp_path / "mask.nii.gz", (back_to_stored(seen, grid) > 0).astype(np.uint8), grid)
    mask = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(mask, name)(), getattr(scan, name)(), atol=1e-4)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(scan) > 0)


def test_a_mask_of_a_sheared_scan_has_the_sheared_grid(tmp_path: Path) -> None:
    shear = np.array([[1.5, 0, 0, 3.0], [0, 1.5, 0.9, -4.0], [0, 0, 2.0, 9.0], [0, 0, 0, 1]])
    ball = np.linalg.norm((np.indices((20, 24, 22)).T - (10, 12, 11)) * (1.5, 1.5, 2), axis=-1).T < 11
    nibabel.save(nibabel.Nifti1Image(ball.astype(np.float32), shear), tmp_path / "scan.nii.gz")
    mask = mask_of((tmp_path / "scan.nii.gz",), tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(mask.affine, shear, atol=1e-5)
    found = np.asarray(mask.dataobj) > 0
    assert found.shape == ball.shape
    assert 2 * (found & ball).sum() / (found.sum() + ball.sum()) > 0.93, "resampled to the nearest voxel, twice"


def test_probabilities_keep_their_numbers(tmp_path: Path) -> None:
    path, _ = written(tmp_path / "scan.nii.gz", "oblique")
    values = np.random.default_rng(0).random(SHAPE, np.float32)
    write_nifti(tmp_path / "p.nii.gz", values, stored_grid((path,)))
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "p.nii.gz").dataobj), values)
    with gzip.open(tmp_path / "p.nii.gz") as file:
        assert len(file.read()) == 352 + 4 * values.size


def test_a_volume_of_another_size_is_refused(tmp_path: Path) -> None:
    path, _ = written(tmp_path / "scan.nii.gz", "turned")
    with pytest.raises(ValueError, match="does not belong to a file of"):
        back_to_stored(np.zeros((3, 3, 3), np.uint8), stored_grid((path,)))
