"""Commands that find no room on the disk: one line that says so, no traceback, nothing half-written."""

from __future__ import annotations

import errno
import os
import tempfile
from multiprocessing.forkserver import ensure_running
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from tests.checkpoints import save_checkpoint
from tests.conftest import FULL, ROOT, write_pairs
from tests.inprocess import run_script
from tests.processes import largest_file
from utils.errors import run_cli

FITTED = "only a part of the file was written; is the disk full?"
TRAINING = ("--n", "luna", "--ratio", "1.0", "--b", "2", "--gpus", "", "--workers", "0", "--narrow", "8")


def run_short_of_room(limit: int, *argv: object) -> str:
    """A script of the project where no file may have more than ``limit`` bytes; -> its line about that."""
    with tempfile.TemporaryDirectory() as folder:
        pipes = [
            Path(folder, name) for name in ("out", "err")
        ]  # unlike files, they take what is said whatever the limit
        for pipe in pipes:
            os.mkfifo(pipe)
        ends = [os.fdopen(os.open(pipe, os.O_RDWR | os.O_NONBLOCK), "rb", buffering=0) for pipe in pipes]
        ensure_running()  # the server of the forks itself has no limit
        with largest_file(limit):
            status = run_script([str(ROOT / str(argv[0])), *map(str, argv[1:])], Path(folder), *pipes)
        printed, said = (end.read(1 << 16) or b"" for end in ends)
        for end in ends:
            end.close()
    assert status == 2, printed + said
    assert b"Traceback" not in said
    *_, last = said.decode().splitlines()
    assert last.startswith("error: "), said
    return last


def assert_nothing_half_written(folder: Path) -> None:
    assert not [path for path in folder.rglob("*") if ".tmp" in path.name]


def test_training_cannot_begin(pairs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    said = run_short_of_room(0, "main.py", *TRAINING, "--data", pairs, "--output", output)
    assert said == f"error: {output}: nothing can be written there: File too large"
    said = run_short_of_room(200, "main.py", *TRAINING, "--data", pairs, "--output", output)  # not even run.json
    assert said == f"error: {output / 'run.json'} cannot be written: File too large; make room and start again"
    assert not (output / "run.json").exists()
    assert_nothing_half_written(output)


def test_features_and_exported_weights(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs")
    checkpoint = tmp_path / "checkpoint.pt"
    save_checkpoint(checkpoint, "luna")
    flags = (
        "--phase",
        "embed",
        *TRAINING,
        *FULL,
        "--data",
        data,
        "--weight",
        checkpoint,
        "--output",
        tmp_path / "features",
    )
    said = run_short_of_room(2000, "main.py", *flags, "--output", tmp_path / "features")
    assert "the features cannot be written" in said
    said = run_short_of_room(10**6, "export.py", "--checkpoint", checkpoint, "--save", tmp_path / "weights")
    assert said == f"error: --save {tmp_path / 'weights'}: cannot be written in {tmp_path}: File too large"
    assert not (tmp_path / "weights").exists()
    assert_nothing_half_written(tmp_path)


def test_preprocessing(tmp_path: Path) -> None:
    scan = np.random.default_rng(0).normal(-600, 100, (70, 90, 90)).astype(np.int16)
    (tmp_path / "scans").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(scan), tmp_path / "scans" / "scan.nii.gz")
    sizes = ("--input_rows", 32, "--input_cols", 32, "--input_deps", 16)
    flags = ("--data", tmp_path / "scans", "--save", tmp_path / "pairs", *sizes)
    said = run_short_of_room(5000, "preprocess/luna_pre.py", *flags)
    assert said == f"error: --save {tmp_path / 'pairs'}: cannot write there: {FITTED}"
    save = ("--save", tmp_path / "phantoms")
    said = run_short_of_room(5000, "preprocess/phantoms.py", *save, "--scans", 0, "--patients", 1, "--size", 128)
    assert said.endswith(("cannot be written: File too large", f"cannot be written: {FITTED}"))
    assert f"--save {tmp_path / 'phantoms'}: {tmp_path / 'phantoms'}" in said
    assert_nothing_half_written(tmp_path)


def test_other_errors_of_the_system_are_defects_and_keep_their_traceback() -> None:
    def fail() -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        run_cli(fail)
