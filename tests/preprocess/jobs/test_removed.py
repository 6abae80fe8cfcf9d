"""Scans that were taken out of --data keep their pairs or crops in --save, and the command says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datasets.layout import STAMPS
from tests.conftest import run_preprocess
from tests.preprocess.small_scans import chest, write

SMALL = ("--workers", "1", "--input_rows", "32", "--input_cols", "32", "--input_deps", "16", "--scale", "2")
SHAPE = (52, 52, 20)


def run(command: str, data: Path, save: Path, *flags: str) -> tuple[str, str]:
    """What a command printed, and its warnings."""
    made = run_preprocess(command, "--data", data, "--save", save, *flags)
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout, made.stderr


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """``data`` with two scans of subset 0 and one of subset 7, and their pairs in ``save``."""
    for seed, place in enumerate(("subset0/good", "subset0/plus1024", "subset7/held_out")):
        write(tmp_path / "data" / f"{place}.nii.gz", chest(seed, SHAPE))
    printed, warnings = run("luna_pre", tmp_path / "data", tmp_path / "save", *SMALL)
    assert warnings == ""
    assert "luna_train.txt names 2 scans\n" in printed
    return tmp_path


def test_a_scan_that_was_removed_is_named_until_its_files_are_deleted(made: Path) -> None:
    data, save = made / "data", made / "save"
    (data / "subset0" / "plus1024.nii.gz").rename(made / "plus1024.nii.gz")
    (data / "subset7" / "held_out.nii.gz").unlink()
    printed, warnings = run("luna_pre", data, save, *SMALL)
    assert f"luna_train.txt names 2 scans, 1 of them not in {data}\n" in printed
    assert warnings == (
        f"warning: {save} holds pairs of 2 scans that {data} no longer has (subset0/plus1024, subset7/held_out), "
        f"and they stay in use; to drop them, delete the .json and .npy files of that name in {save} and run this "
        "again\n"
    )
    assert run("luna_pre", data, save, *SMALL, "--fold", "0")[1] == "", "a run of one subset knows of that alone"
    for path in (*save.glob("subset0/plus1024*"), *save.glob("subset7/held_out*")):
        path.unlink()
    printed, warnings = run("luna_pre", data, save, *SMALL)
    assert "luna_train.txt names 1 scan\n" in printed
    assert warnings == ""
    assert (save / "luna_train.txt").read_text() == "good\n"


def test_folders_put_into_one_save_one_after_another_are_no_removal(made: Path) -> None:
    write(made / "more" / "third.nii.gz", chest(3, SHAPE))
    printed, warnings = run("luna_pre", made / "more", made / "save", *SMALL)
    assert f"luna_train.txt names 3 scans, 2 of them not in {made / 'more'}\n" in printed
    assert warnings == ""
    (made / "data").rename(made / "moved")
    printed, warnings = run("luna_pre", made / "moved", made / "save", *SMALL)
    assert f"names 3 scans, 1 of them not in {made / 'moved'}\n" in printed
    assert warnings == ""


@pytest.mark.parametrize("stamps", ["[damaged", json.dumps({"subset0/plus1024": {"file": 5}}), "{}"])
def test_where_scans_lay_may_not_be_known(stamps: str, made: Path) -> None:
    (made / "save" / STAMPS).write_text(stamps)
    (made / "data" / "subset0" / "plus1024.nii.gz").unlink()
    printed, warnings = run("luna_pre", made / "data", made / "save", *SMALL)
    assert f"names 2 scans, 1 of them not in {made / 'data'}\n" in printed
    assert warnings == ""


def test_a_renamed_scan_is_still_there(made: Path) -> None:
    (made / "data" / "subset0" / "plus1024.nii.gz").rename(made / "data" / "subset0" / "other.nii.gz")
    printed, warnings = run("luna_pre", made / "data", made / "save", *SMALL)
    assert "luna_train.txt names 2 scans\n" in printed
    assert warnings == ""


def test_crops_with_a_label_are_told_of_likewise(tmp_path: Path) -> None:
    data, save, table = tmp_path / "data", tmp_path / "save", tmp_path / "data" / "candidates_V2.csv"
    for seed, name in enumerate(("a", "b", "c")):
        write(data / f"{name}.nii.gz", chest(seed, SHAPE))
    lines = [f"{name},90,128,{z},{label}\n" for name in "abc" for z, label in ((40, 1), (60, 0))]
    table.write_text("seriesuid,coordX,coordY,coordZ,class\n" + "".join(lines))
    crop = ("--workers", "1", "--input_rows", "16", "--input_cols", "16", "--input_deps", "16")
    assert "labels.csv lists 6 crops; to learn" in run("nodule_crops", data, save, *crop)[0]
    (data / "b.nii.gz").unlink()
    table.write_text("seriesuid,coordX,coordY,coordZ,class\n" + "".join(lines[:4]))  # c is in --data all the same
    kept = sorted(save.rglob("*"))
    refused = run_preprocess("nodule_crops", "--data", data, "--save", save, *crop)
    assert refused.returncode == 2
    assert f"error: --save {save} holds 2 crops at other places than the table has, or of scans that" in refused.stderr
    assert "are left out now (the first of subset0/c); give another --save, or --replace" in refused.stderr
    assert sorted(save.rglob("*")) == kept
    printed, warnings = run("nodule_crops", data, save, *crop, "--replace")
    assert "removed the crops of 1 scan, left out now\n" in printed
    assert f"labels.csv lists 4 crops, 2 of them of scans that are not in {data}; to learn" in printed
    assert f"{table} does not name 1 of the 2 scans; they are left out" in warnings
    assert f"warning: {save} holds crops of 1 scan that {data} no longer has (subset0/b)" in warnings
    assert "subset0/c" not in warnings


def test_other_places_of_a_scan_are_another_table(tmp_path: Path) -> None:
    data, save, table = tmp_path / "data", tmp_path / "save", tmp_path / "data" / "candidates_V2.csv"
    write(data / "a.nii.gz", chest(0, SHAPE))
    crop = ("--workers", "1", "--input_rows", "16", "--input_cols", "16", "--input_deps", "16")
    for z, more, lines in ((40, (), 1), (60, ("--replace",), 1)):
        table.write_text(f"seriesuid,coordX,coordY,coordZ,class\na,90,128,{z},1\nb,90,128,{z},1\n")
        if more:
            refused = run_preprocess("nodule_crops", "--data", data, "--save", save, *crop)
            assert f"holds {lines} crop at other places than the table has" in refused.stderr
        _, warnings = run("nodule_crops", data, save, *crop, *more)
        assert f"{table} names 1 scan that {data} does not have (b)\n" in warnings
        assert f",{z}.000000\n" in (save / "labels.csv").read_text()


def test_two_scans_of_the_name_in_the_table_are_left_out(tmp_path: Path) -> None:
    """Without its nodules, a scan would teach that there are none."""
    data, save = tmp_path / "data", tmp_path / "save"
    for seed, name in enumerate(("a.nii.gz", "a.mha", "b.nii.gz")):
        write(data / name, chest(seed, SHAPE))
    (data / "annotations.csv").write_text(
        "seriesuid,coordX,coordY,coordZ,diameter_mm\na,90,128,40,5\nb,90,128,40,5\nB2,90,128,40,5\n"
    )
    crop = ("--workers", "1", "--input_rows", "16", "--input_cols", "16", "--input_deps", "16")
    _, warnings = run("nodule_crops", data, save, *crop)
    assert "names a, and several scans are called so (subset0/a.mha, subset0/a.nii.gz): they are left" in warnings
    assert f"names 1 scan that {data} does not have (B2); if one is there under another name, its nodules" in warnings
    assert {line.split(",")[1] for line in (save / "labels.csv").read_text().splitlines()[1:]} == {"b"}
