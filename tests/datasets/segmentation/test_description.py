"""dataset.json of nnU-Net beyond plain classes, and cases whose grid is odd."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from datasets.segmentation.files import find_cases, read_case, read_description, read_spacing
from datasets.segmentation.scans import find_scans
from tests.cases_ct import write_nifti
from tests.conftest import ROOT
from utils.errors import UserError

CASES = ROOT.parent / "shared" / "cases" / "28-nnunet-dataset-json"


def describe(folder: Path, **content: object) -> Path:
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_regions_and_the_ignore_label_are_refused_by_name(tmp_path: Path) -> None:
    describe(tmp_path, labels={"background": 0, "whole tumour": [1, 2], "core": [2]})
    with pytest.raises(UserError, match=r"regions of several classes \(whole tumour, core\) are not supported"):
        read_description(tmp_path)
    for labels in ({"background": 0, "liver": 1, "ignore": 2}, {"0": "background", "1": "liver", "2": "Ignore"}):
        with pytest.raises(UserError, match="the label ignore is not supported"):
            read_description(describe(tmp_path, labels=labels))


def test_channels_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = {str(number): "CT" if number == 2 else "PET" for number in range(12)}
    is_ct = read_description(describe(tmp_path, channel_names=names)).is_ct
    assert is_ct == [number == 2 for number in range(12)]
    assert read_description(describe(tmp_path, modality="CT")).is_ct == [True]


def test_four_digits_at_the_end_of_a_name_can_number_scans(tmp_path: Path) -> None:
    """As in training, where the names of the labels tell; each file has all channels then."""
    for names, scans in (
        (("case_0001", "case_0002", "case_0003"), ["case_0001", "case_0002", "case_0003"]),
        (("case_0000", "case_0001", "case_0002"), ["case_0000", "case_0001", "case_0002"]),
        (("case_0000", "case_0001"), ["case"]),
    ):
        folder = tmp_path / names[-1] / str(len(names))
        folder.mkdir(parents=True)
        for name in names:
            (folder / f"{name}.nii.gz").touch()
        found = find_scans(folder, channels=2)
        assert [scan.name for scan in found] == scans
        assert not any(scan.problem for scan in found)


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the cases in ../shared, which are no part of the project")
def test_shared_cases() -> None:
    for name in ("regions", "ignore"):
        with pytest.raises(UserError, match="not supported"):
            read_description(CASES / name)
    assert [n for n, ct in enumerate(read_description(CASES / "eleven").is_ct or []) if ct] == [2]


def write_case(data: Path, affine: np.ndarray, name: str = "a") -> None:
    label = np.zeros((12, 10, 8), np.uint8)
    label[3:9, 2:8, 2:6] = 1
    write_nifti(data / "imagesTr" / f"{name}.nii.gz", (label * 100).astype(np.int16), affine)
    write_nifti(data / "labelsTr" / f"{name}.nii.gz", label, affine)


def test_a_grid_that_is_nearly_upright_is_read(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[1, 2] = 0.002  # 0.06 degrees
    write_case(tmp_path, affine)
    (case,) = find_cases(tmp_path)
    assert read_spacing(case) == pytest.approx((1, 1, 2), rel=1e-4)
    assert read_case(case).label.shape == (12, 10, 8)


def test_a_sheared_case_is_upright_with_its_label_on_the_same_grid(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[1, 2] = 0.8
    write_case(tmp_path, affine)
    (case,) = find_cases(tmp_path)
    raw = read_case(case)
    assert raw.spacing_mm == pytest.approx((1, 1, 2))
    assert read_spacing(case) == pytest.approx((1, 1, 2))
    assert raw.label.shape == raw.image.shape[1:] == (12, 16, 8)
    assert set(np.unique(raw.label)) == {0, 1}
    assert raw.label.sum() == 6 * 6 * 4
    clear = np.abs(raw.image[0] - 50) > 49
    np.testing.assert_array_equal(raw.label[clear] * 100.0, raw.image[0][clear])


def test_channels_of_a_sheared_4d_file_are_upright_too(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[1, 2] = 0.8
    write_case(tmp_path, affine)
    (case,) = find_cases(tmp_path)
    one = read_case(case).image
    voxels = np.asarray(nibabel.load(case.images[0]).dataobj)
    nibabel.Nifti1Image(np.stack([voxels, voxels * 2], axis=-1), affine).to_filename(case.images[0])
    np.testing.assert_allclose(read_case(case).image, np.concatenate([one, one * 2]), atol=1)


def test_a_header_that_is_no_use_is_told_with_the_case(tmp_path: Path) -> None:
    write_case(tmp_path, np.diag([1.0, 1.0, 2.0, 1.0]))
    (case,) = find_cases(tmp_path)
    nibabel.Nifti1Image(np.zeros((4, 4, 4), np.complex64), np.eye(4)).to_filename(case.images[0])
    with pytest.raises(UserError, match=r"the case a: a.nii.gz cannot be read: its voxels are no single numbers"):
        read_spacing(case)


def test_a_time_axis_of_one_is_no_channel(tmp_path: Path) -> None:
    write_case(tmp_path, np.eye(4))
    (case,) = find_cases(tmp_path)
    voxels = np.asarray(nibabel.load(case.images[0]).dataobj)[..., None]
    nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(case.images[0])
    assert read_case(case).image.shape == (1, 12, 10, 8)


def test_not_a_number_is_found(tmp_path: Path) -> None:
    write_case(tmp_path, np.eye(4))
    (case,) = find_cases(tmp_path)
    voxels = np.zeros((12, 10, 8), np.float32)
    voxels[3] = np.nan
    write_nifti(case.images[0], voxels, np.eye(4))
    with pytest.raises(UserError, match="the case a: it has voxels that are not finite numbers"):
        read_case(case)
