"""Scans of another kind than the others, or than the window is for, are told of: no HU, slices of another direction."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from preprocess.jobs.kinds import AIR_HU, no_air, slices_of
from tests.conftest import run_preprocess
from tests.preprocess.small_scans import chest, write

SMALL = ("--workers", "1", "--input_rows", "32", "--input_cols", "32", "--input_deps", "16", "--scale", "2")
HEAD_FEET, LEFT_RIGHT, FRONT_BACK = np.eye(3), np.eye(3)[:, [1, 2, 0]], np.eye(3)[:, [0, 2, 1]]


def luna_pre(data: Path, save: Path, *flags: str) -> str:
    """Run the command; returns its warnings."""
    run = run_preprocess("luna_pre", "--data", data, "--save", save, *SMALL, *flags)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stderr


def stored(path: Path, direction: np.ndarray, seed: int) -> None:
    """Write a scan whose axes run as the columns of ``direction``."""
    image = sitk.GetImageFromArray(chest(seed, (20, 20, 20)))
    image.SetSpacing((5.0, 5.0, 5.0))
    image.SetDirection(direction.ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def test_scans_that_are_not_in_hu_are_named_each_time(tmp_path: Path) -> None:
    write(tmp_path / "data" / "hu.nii.gz", chest(0))
    write(tmp_path / "data" / "plus1024.nii.gz", np.maximum(chest(1) + 1024, 0).astype(np.int16))
    told = (
        "warning: 1 scan has no value below -500 (subset0/plus1024), as if not in Hounsfield units; for MR give "
        "--percentiles 0.5 99.5, for CT mend the rescale intercept"
    )
    for _ in range(2):  # the second run finds what the first one wrote, and knows the same of it
        warnings = luna_pre(tmp_path / "data", tmp_path / "save", "--hu_max", "2000")
        assert warnings.startswith(told), warnings
        assert warnings.count("\n") == 1
    records = {name: json.loads((tmp_path / f"save/subset0/{name}.json").read_text()) for name in ("hu", "plus1024")}
    assert records["plus1024"]["lowest"] == 0
    assert "lowest" not in records["hu"], "the record of a scan in HU is what it was"


@pytest.mark.parametrize("flags", [["--percentiles", "0.5", "99.5"], ["--hu_min", "0", "--hu_max", "2000"]])
def test_windows_that_are_not_of_hu_need_no_hu(flags: list[str], tmp_path: Path) -> None:
    write(tmp_path / "data" / "mr.nii.gz", np.random.default_rng(0).gamma(2, 300, (40, 52, 52)).astype(np.int16))
    assert "Hounsfield" not in luna_pre(tmp_path / "data", tmp_path / "save", *flags)
    assert "lowest" not in json.loads((tmp_path / "save" / "subset0" / "mr.json").read_text())


def test_air_begins_below_its_limit() -> None:
    values = np.full((4, 4, 4), 40, np.int16)
    values[1, 2, 3] = AIR_HU
    assert no_air(sitk.GetImageFromArray(values)) == {"lowest": AIR_HU}
    values[1, 2, 3] -= 1
    assert no_air(sitk.GetImageFromArray(values)) == {}


def test_nodule_crops_name_scans_that_are_not_in_hu(tmp_path: Path) -> None:
    write(tmp_path / "data" / "plus1024.nii.gz", np.maximum(chest(1) + 1024, 0).astype(np.int16))
    (tmp_path / "data" / "candidates_V2.csv").write_text("seriesuid,coordX,coordY,coordZ,class\nplus1024,90,90,90,1\n")
    for _ in range(2):
        run = run_preprocess("nodule_crops", "--data", tmp_path / "data", "--save", tmp_path / "save", *SMALL[:-2])
        assert run.returncode == 0, run.stderr
        assert "warning: 1 scan has no value below -500 (subset0/plus1024)" in run.stderr


def test_scans_that_are_stored_otherwise_than_most_are_named(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        stored(tmp_path / "data" / f"{name}.nii.gz", HEAD_FEET, seed)
    assert luna_pre(tmp_path / "data", tmp_path / "save") == ""
    stored(tmp_path / "data" / "knee.nii.gz", LEFT_RIGHT, 2)
    told = (
        "warning: 2 scans stored in axial slices, 1 in sagittal ones (subset0/knee): crops are thin across the slices, "
        "so in different directions of the body; store all scans alike, e.g. in axial slices\n"
    )
    for _ in range(2):
        assert luna_pre(tmp_path / "data", tmp_path / "save") == told
    cubes = ("--input_deps", "32", "--crop_rows", "32", "--crop_cols", "32")
    assert luna_pre(tmp_path / "data", tmp_path / "cubes", *cubes) == "", "cubes are thin nowhere"


def test_scans_that_are_all_sagittal_are_alike(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        stored(tmp_path / "data" / f"{name}.nii.gz", LEFT_RIGHT, seed)
    assert luna_pre(tmp_path / "data", tmp_path / "save") == ""


def test_slices_are_called_by_what_lies_between_them() -> None:
    tilted = np.array([[1, 0, 0], [0, 0.9, -0.43], [0, 0.43, 0.9]])
    kinds = [slices_of(each.ravel().tolist()) for each in (HEAD_FEET, LEFT_RIGHT, FRONT_BACK, -HEAD_FEET, tilted)]
    assert kinds == ["axial", "sagittal", "coronal", "axial", "axial"]
    for unknown in (None, [], "axial", [1, 0], {"a": 1}):  # as of earlier and of damaged records
        assert slices_of(unknown) == ""
