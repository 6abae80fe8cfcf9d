"""Two commands that would write the same crops: one at a time; subsets of their own, at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preprocess.jobs.hold import holding, holding_lists
from preprocess.jobs.records import read_record
from tests.conftest import run_preprocess
from tests.preprocess.small_scans import chest, write
from utils.errors import UserError

IN_USE = rf"in use by process {os.getpid()} on "
SMALL = ("--workers", "1", "--input_rows", "32", "--input_cols", "32", "--input_deps", "16", "--scale", "2")


def test_the_same_folder_is_one_commands(tmp_path: Path) -> None:
    data, save = tmp_path / "data", tmp_path / "save"
    for subset in (0, 1):
        write(data / f"subset{subset}" / f"s{subset}.nii.gz", chest(subset, (52, 52, 20)))
    with holding(save, fold=0):
        for fold, status in (((), 2), (("--fold", "0"), 2), (("--fold", "1"), 0)):
            done = run_preprocess("luna_pre", "--data", data, "--save", save, *SMALL, *fold)
            assert done.returncode == status, done.stderr
            assert ("in use by process" in done.stderr) == bool(status)
    assert [path.name for path in sorted(save.iterdir())] == [".stamps.json", "luna_train.txt", "subset1"]
    done = run_preprocess("luna_pre", "--data", data, "--save", save, *SMALL)
    assert done.returncode == 0, done.stderr
    assert len(list(save.rglob("*_img_*.npy"))) == 4
    assert not list(save.rglob(".lock"))


def test_the_lists_are_written_by_one_at_a_time(tmp_path: Path) -> None:
    with holding(tmp_path), holding_lists(tmp_path, None), pytest.raises(UserError, match=IN_USE), holding(tmp_path):
        pass
    with holding(tmp_path, 3), holding(tmp_path, 4), holding_lists(tmp_path, 3):
        pass
    assert not list(tmp_path.iterdir()), "nothing was made"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file: run the tests as another user")
def test_the_record_of_another_user_is_no_missing_one(tmp_path: Path) -> None:
    record = tmp_path / "a.json"
    record.write_text("{}")
    record.chmod(0)
    with pytest.raises(UserError, match=r"a\.json cannot be read: Permission denied; make it readable"):
        read_record(record)


def test_a_record_that_is_a_folder_is_no_missing_one(tmp_path: Path) -> None:
    assert read_record(tmp_path / "missing.json") is None
    with pytest.raises(UserError, match=r"cannot be read: Is a directory"):
        read_record(tmp_path)
