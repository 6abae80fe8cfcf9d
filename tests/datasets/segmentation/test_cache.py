"""Volumes in ``--cache`` belong to the voxels that they were made of, not to names and times of files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from datasets.segmentation.files import find_cases
from datasets.segmentation.msd import Recipe, load_volume

RECIPE = Recipe((1.0, 1.0, 1.0), ((0.0, 255.0),))


def write(data: Path, suffix: str, value: int, time: float) -> None:
    """A case whose image has this value throughout, in files of this time."""
    for part, voxels in (("imagesTr", np.full((8, 8, 8), value)), ("labelsTr", np.eye(8) * np.ones((8, 1, 1)))):
        (data / part).mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(voxels.astype(np.uint8)), str(data / part / f"case{suffix}"))
        for file in (data / part).iterdir():
            os.utime(file, (time, time))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mhd"])
@pytest.mark.parametrize("elsewhere", [True, False])
def test_other_voxels_in_files_of_the_same_name_size_and_time(tmp_path: Path, suffix: str, elsewhere: bool) -> None:
    """As archives unpack them, and copies that keep times."""
    cache = tmp_path / "cache"
    cache.mkdir()
    found = []
    for folder, value in (("a", 51), ("b" if elsewhere else "a", 102)):
        write(tmp_path / folder, suffix, value, 1e9)
        (case,) = find_cases(tmp_path / folder)
        found.append(load_volume(case, RECIPE, cache).image.max())
    assert found == pytest.approx([0.2, 0.4], abs=1e-3)


def test_voxels_beside_an_unchanged_header(tmp_path: Path) -> None:
    write(tmp_path / "a", ".mhd", 51, 1e9)
    (case,) = find_cases(tmp_path / "a")
    load_volume(case, RECIPE, tmp_path)
    (tmp_path / "a" / "imagesTr" / "case.raw").write_bytes(bytes([102]) * 512)
    assert load_volume(case, RECIPE, tmp_path).image.max() == pytest.approx(0.4, abs=1e-3)
