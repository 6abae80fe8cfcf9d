"""Pairs that show nothing are not made, and a run that makes none says so and what would help."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from datasets.ct.luna import find_luna
from datasets.ct.nodules import read_crops
from preprocess import luna_pre
from preprocess.jobs.pairs import FLAT, PairJob, PairOptions, is_flat, make_pairs
from preprocess.volumes.files import find_scans
from tests.conftest import run_preprocess, write_pairs
from tests.preprocess.small_scans import chest, cut_short, write
from utils.errors import UserError

SMALL = ["--workers", "1", "--input_rows", "32", "--input_cols", "32", "--input_deps", "16"]


def options(min_std: float, pairs: int = 6) -> PairOptions:
    return PairOptions((32, 32, 16), (32, 32, 16), pairs, 0, -1000, 1000, None, "float32", min_std)


def air_around(voxels: np.ndarray) -> np.ndarray:
    """A scan of which a half holds nothing."""
    return np.concatenate([np.full_like(voxels, -1000), voxels], axis=0)


def cut(data: Path, save: Path, wanted: PairOptions) -> list[np.ndarray]:
    (scan,) = find_scans(data)
    job = PairJob(scan, wanted, save)
    outcome = make_pairs(job)
    assert not outcome.problem
    return [np.load(job.pair(index)) for index in range(outcome.pairs)]


def test_others_are_drawn_in_the_place_of_flat_pairs_alone(tmp_path: Path) -> None:
    write(tmp_path / "data" / "half.nii.gz", air_around(chest(0, (60, 60, 30)) * 3))
    published = cut(tmp_path / "data", tmp_path / "all", options(0, 12))
    chosen = cut(tmp_path / "data", tmp_path / "some", options(FLAT))
    seen = [pair for pair in published if not is_flat(pair)]
    assert 0 < len(seen) < len(published), "the scan has both kinds"
    assert len(chosen) == 6
    assert not any(map(is_flat, chosen))
    for pair, expected in zip(chosen, seen, strict=False):
        np.testing.assert_array_equal(pair, expected)
    record = json.loads((tmp_path / "some" / "subset0" / "half.json").read_text())
    assert record["redrawn"] > 0
    assert record["flat"] == 0


def test_scans_that_are_grey_in_the_window_are_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 1, (40, 52, 52))
    write(tmp_path / "data" / "abdomen.nii.gz", (-250 + 60 * noise).astype(np.int16))
    write(tmp_path / "data" / "lung.nii.gz", np.where(np.arange(52) % 16 < 8, -900, 0 * noise).astype(np.int16))
    argv = ["--data", tmp_path / "data", "--save", tmp_path / "save", *SMALL]
    told = "low contrast in the window -1000..1000: 1 scan (subset0/abdomen); see --preview, --hu_min"
    for _ in range(2):  # the second run finds the pairs, and knows the same of them
        made = run_preprocess("luna_pre", *argv)
        assert made.returncode == 0, made.stderr
        assert told in made.stdout.splitlines(), made.stdout


def test_where_no_pair_is_flat_the_files_are_the_published_ones(tmp_path: Path) -> None:
    rough = np.random.default_rng(0).normal(-700, 200, (40, 52, 52)).astype(np.int16)
    write(tmp_path / "data" / "rough.nii.gz", rough)
    published = cut(tmp_path / "data", tmp_path / "all", options(0))
    chosen = cut(tmp_path / "data", tmp_path / "some", options(FLAT))
    assert len(published) == 6
    np.testing.assert_array_equal(chosen, published)


def test_what_was_drawn_anew_is_said_and_a_scan_of_air_gives_nothing(tmp_path: Path) -> None:
    write(tmp_path / "data" / "half.nii.gz", air_around(chest(0, (60, 60, 30)) * 3))
    argv = ["--data", str(tmp_path / "data"), "--save", str(tmp_path / "pairs"), *SMALL, "--scale", "4"]
    for _ in range(2):  # the second time they are there
        made = run_preprocess("luna_pre", *argv)
        assert made.returncode == 0
        assert "nearly constant; others were drawn instead (--min_std 0.01)" in made.stdout
        assert "almost no contrast" not in made.stdout
    write(tmp_path / "air" / "air.nii.gz", np.full((40, 40, 40), -1000, np.int16), (2.0, 2.0, 2.0))
    argv = ["--data", str(tmp_path / "air"), "--save", str(tmp_path / "none"), *SMALL, "--scale", "1"]
    none = run_preprocess("luna_pre", *argv)
    assert none.returncode == 1
    assert "no pairs: subset0/air: the boxes that were tried hold too much tissue, are nearly" in none.stdout
    assert none.stderr.startswith(f"error: --data {tmp_path / 'air'} gives no pair: ")
    argv[1], argv[3] = str(tmp_path / "data"), str(tmp_path / "pairs")
    with pytest.raises(UserError, match=r"--min_std 0\.01, not 0"):
        luna_pre.main([*argv, "--min_std", "0"])


def test_mr_with_the_window_of_lungs_says_what_helps(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).gamma(2, 300, (30, 40, 40)).astype(np.uint16)
    write(tmp_path / "mr" / "mr.nii.gz", voxels, (2.0, 2.0, 2.0))
    argv = ["--data", str(tmp_path / "mr"), "--save", str(tmp_path / "pairs"), *SMALL, "--scale", "1"]
    none = run_preprocess("luna_pre", *argv)
    assert none.returncode == 1
    assert "for MR give --percentiles 0.5 99.5" in none.stderr
    assert not (tmp_path / "pairs" / "luna_train.txt").exists()
    assert run_preprocess("luna_pre", *argv, "--percentiles", "0.5", "99.5", "--replace").returncode == 0
    write(tmp_path / "tiny" / "tiny.nii.gz", chest(0, (10, 10, 10)), (1.0, 1.0, 1.0))
    argv[1] = str(tmp_path / "tiny")
    none = run_preprocess("luna_pre", *argv)
    assert none.returncode == 1
    assert "take smaller boxes: --crop_rows" in none.stderr


def test_no_crop_at_all_is_no_success(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "data" / f"{name}.nii.gz", np.full((20, 40, 40), 40, np.int16), (2.0, 2.0, 2.0))
    cut_short(tmp_path / "data" / "a.nii.gz", 0.5)
    (tmp_path / "data" / "annotations.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\na,10,10,10,5\n")
    argv = ["--data", str(tmp_path / "data"), "--save", str(tmp_path / "crops"), *SMALL, "--max_negatives", "1"]
    none = run_preprocess("nodule_crops", *argv)
    assert none.returncode == 1
    assert "gives no crop: its readable scans have no nodule in the table, and too little" in none.stderr


def test_each_kind_of_crops_names_the_flag_that_it_needs(tmp_path: Path) -> None:
    crops = tmp_path / "crops" / "subset0"
    crops.mkdir(parents=True)
    np.save(crops / "a_crop_0.npy", np.zeros((16, 16, 16), np.float32))
    with pytest.raises(UserError, match=r"holds single crops \(<uid>_crop_<k>\.npy\), not pairs: .* --n nodules"):
        find_luna(crops.parent, None, 1.0)
    write_pairs(tmp_path / "pairs")
    with pytest.raises(UserError, match=r"holds pairs of crops to pre-train on \(--n luna\)"):
        read_crops(tmp_path / "pairs")


@pytest.mark.parametrize("value", ["-0.1", "0.5", "nan"])
def test_thresholds_that_make_no_sense_are_refused(value: str) -> None:
    with pytest.raises(UserError, match="--min_std"):
        luna_pre.parse(["--data", "d", "--save", "s", f"--min_std={value}"])
