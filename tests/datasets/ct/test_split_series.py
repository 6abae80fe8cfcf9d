"""One DICOM series in several folders is no scan; copies, time points and other patients of one UID are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from datasets.segmentation.scans import find_scans as find_scans_to_segment
from preprocess.volumes.files import find_scans
from tests.cases_ct import AXIAL, corners, write_series
from tests.preprocess.small_scans import chest, write
from utils.errors import UserError

TOLD = "warning: 1 DICOM series passed over, since the slices lie in several folders (1.2.3: {}); put all slices of a "
TOLD += "series into one folder\n"


def deal(data: Path, folders: int, together: int = 1, **tags: Any) -> None:
    """Write a series of 12 slices and deal so many of them at a time to the folders a, b, .. in turn."""
    files = write_series(data / "whole", corners(12), **tags)
    for number, file in enumerate(files):
        folder = data / "abcdefghijkl"[number // together % folders]
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    (data / "whole").rmdir()


def found(data: Path) -> tuple[list[str], list[str]]:
    """The scans to cut, and those to segment."""
    return [scan.uid for scan in find_scans(data)], [scan.name for scan in find_scans_to_segment(data, 1)]


@pytest.mark.parametrize(
    ("folders", "together", "where"),
    [(2, 1, "a and b"), (2, 6, "a and b"), (3, 1, "a, b and c"), (4, 3, "a, b, c and 1 more")],
)
def test_a_series_in_several_folders_is_passed_over(
    folders: int, together: int, where: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    deal(tmp_path, folders, together)
    write(tmp_path / "other.nii.gz", chest(shape=(4, 4, 4)))
    assert found(tmp_path) == (["other"], ["other"])
    assert capfd.readouterr().err == 2 * TOLD.format(f"12 slices in {where}")


def test_slices_in_a_folder_each_are_no_single_images(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    deal(tmp_path, 12)
    with pytest.raises(UserError, match=r"no scan found.* \(1 DICOM series passed over, .*12 slices in a, b, c and 9"):
        find_scans(tmp_path)
    with pytest.raises(UserError, match=r"holds no scans .*; 1 DICOM series passed over, .*12 slices in a, b, c and 9"):
        find_scans_to_segment(tmp_path, 1)
    write_series(tmp_path / "one", np.zeros((1, 3)), SeriesInstanceUID="1.2.5")
    write(tmp_path / "other.nii.gz", chest(shape=(4, 4, 4)))
    assert found(tmp_path) == (["other"], ["other"])
    printed = capfd.readouterr()
    assert printed.err == 2 * TOLD.format("12 slices in a, b, c and 9 more")
    assert printed.out == "passed over, since they hold no volume of the body: 1 single image\n"


def test_missing_slices_do_not_make_parts_whole(tmp_path: Path) -> None:
    deal(tmp_path, 2)
    next(iter((tmp_path / "b").iterdir())).unlink()
    with pytest.raises(UserError, match=r"11 slices in a and b"):
        find_scans(tmp_path)


def test_a_subset_of_luna16_may_hold_split_series_alone(tmp_path: Path) -> None:
    deal(tmp_path / "subset0", 2)
    write(tmp_path / "more" / "other.nii.gz", chest(shape=(4, 4, 4)))
    with pytest.raises(UserError, match=r"12 slices in subset0/a and subset0/b"):
        find_scans(tmp_path)


@pytest.mark.parametrize(
    ("places", "orientation", "numbers_from"),
    [
        pytest.param(corners(14), AXIAL, 1, id="copy"),
        pytest.param(corners(14), AXIAL, 101, id="time point"),
        pytest.param(np.add(corners(14), (0, 0, 0.3)), AXIAL, 101, id="time point, the table moved"),
        pytest.param(np.add(corners(14), (0, 0, 1.25)), AXIAL, 1, id="another patient, of the UID that all were given"),
        pytest.param(corners(4) - (0, 0, 300), AXIAL, 101, id="another part of the body"),
        pytest.param(corners(14, (2.5, 0, 0)), (0, 1, 0, 0, 0, -1), 101, id="other slices"),
    ],
)
def test_what_shares_a_uid_without_being_a_part(
    places: np.ndarray,
    orientation: tuple[float, ...],
    numbers_from: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    write_series(tmp_path / "first")
    for file in write_series(tmp_path / "second", places, orientation):
        header = pydicom.dcmread(file)
        header.InstanceNumber += numbers_from - 1
        header.save_as(file)
    uids, names = found(tmp_path)
    assert names == ["first", "second"]
    assert len(uids) == 2
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("tag", ["InstanceNumber", "SeriesInstanceUID"])
def test_slices_without_numbers_or_a_uid_are_not_known_to_be_parts(
    tag: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    deal(tmp_path, 2, **{tag: None})
    uids, names = found(tmp_path)
    assert names == ["a", "b"]
    assert len(uids) == 2
    assert capfd.readouterr().err == ""
