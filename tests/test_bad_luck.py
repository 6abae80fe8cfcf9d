"""Runs that meet unreadable samples, steps that are not finite and hostile checkpoints."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.ct.luna import LunaPairs
from datasets.loader import Loader
from models.pcrl import build_network
from models.weights import load_weights
from options import Options
from tests.conftest import rows, run_main, write_pairs
from training.checkpoint import check_same_run, find_resume
from utils import torch_file
from utils.errors import UserError

SAMPLES = 100  # of which one bad is just the 1 % that is put up with
LEAN = ("--without", "reconstruction,mixup", "--ratio", 1, "--log_every", 1)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A hundred pairs, and the first one of them, which is cut short."""
    data = write_pairs(tmp_path_factory.mktemp("damaged"), scans=SAMPLES, pairs=1)
    first = data / "subset0" / "1.2.0_img_0.npy"
    first.write_bytes(first.read_bytes()[:5000])
    return data, first


def loader(data: Path, workers: int, on_bad_sample: str) -> Loader:
    files = sorted(data.rglob("*.npy"))
    return Loader(LunaPairs(files, 0), 10, 0, workers, torch.device("cpu"), on_bad_sample)


def test_one_in_a_hundred_is_replaced_counted_and_said(damaged: tuple[Path, Path], tmp_path: Path) -> None:
    data, bad = damaged
    argv = ("--data", data, "--b", 50, "--epochs", 1, "--workers", 2, "--output", tmp_path / "out", *LEAN)
    run = run_main(*argv, "--on_bad_sample", "skip")
    assert run.returncode == 0, run.stderr
    assert f"warning: 1 sample was replaced by others, the first: {bad}" in run.stderr
    assert rows(tmp_path / "out")[-1]["replaced"] == 1


def test_what_takes_its_place_is_the_same_whatever_the_workers(damaged: tuple[Path, Path]) -> None:
    data, bad = damaged
    first, second = loader(data, 0, "skip"), loader(data, 2, "skip")
    for epoch in range(2):  # each counts anew
        for batch, other in zip(first.epoch(epoch), second.epoch(epoch), strict=True):
            assert all(torch.equal(value, other[name]) for name, value in batch.items())
        for each in (first, second):
            (fault,) = each.take_faults()
            assert str(bad) in fault
    with pytest.raises(UserError, match=rf"{bad.name}.*; --on_bad_sample skip replaces such a sample by another one"):
        loader(data, 0, "stop")


def test_one_is_always_replaced_however_few_there_are(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", scans=3, pairs=1)
    (data / "subset1" / "1.2.1_img_0.npy").write_bytes(b"")
    few = loader(data, 0, "skip")
    for epoch in range(20):  # in some of them the first draw of a replacement is the bad one itself
        list(few.epoch(epoch))
        assert len(few.take_faults()) == 1


def test_more_than_one_in_a_hundred_stop_the_run(damaged: tuple[Path, Path], tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", scans=SAMPLES, pairs=1)
    for name in ("subset1/1.2.1_img_0.npy", "subset2/1.2.2_img_0.npy"):
        np.save(data / name, np.zeros((2, 16, 16, 8), np.float32))
    for workers in (0, 1):
        skipping = loader(data, workers, "skip")
        with pytest.raises(
            UserError, match=r"2 of 100 samples of epoch 1 cannot be read, more than 1%; the last: .*1\.2\.[12]_img_0"
        ):
            list(skipping.epoch(0))
        del skipping


def test_bad_steps_stop_the_run_with_a_diagnosis(pairs: Path, tmp_path: Path) -> None:
    """The first step throws the weights out of all bounds; the next three compute nothing finite."""
    output = tmp_path / "out"
    argv = ("--data", pairs, "--b", 3, "--epochs", 9, "--workers", 0, "--output", output, *LEAN)
    run = run_main(*argv, "--lr", 1e38, "--max_bad_steps", 3, "--save_minutes", 0)
    assert run.returncode == 2, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    assert "error: 3 steps in a row up to step 4 had a loss or gradient that is not finite" in run.stderr
    assert "precision float32" in run.stderr
    assert "Try a smaller --lr" in run.stderr
    assert "NaN or Inf found" not in run.stderr, "a library's words, at each step"
    assert "warning: 1 of 2 steps was skipped: loss or gradient not finite" in run.stderr
    assert [row.get("skipped", False) for row in rows(output)] == [False, True, True]
    torch_file.check(output / "last.pt")
    checkpoint = torch.load(output / "last.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in checkpoint["model_ema"].values())
    assert torch.isfinite(checkpoint["contrast"]["memory"]).all()
    assert checkpoint["contrast"]["pointer"] == 3, "keys of the good step alone"


class Hostile:
    """Unpickling this makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["checkpoint", "old format", "pickle"])
def test_a_hostile_checkpoint_is_refused_and_not_run(kind: str, tmp_path: Path) -> None:
    target, path = tmp_path / "ran", tmp_path / "last.pt"
    payload = {"model": {"fc1.weight": torch.zeros(128, 512)}, "torch_rng": torch.zeros(1), "opt": Hostile(target)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=kind == "checkpoint")
    with pytest.raises(UserError, match=r"last\.pt"):
        load_weights(build_network(3, 1, 1, "bn", "sigmoid"), path)
    for resume in (str(path), "auto"):
        with pytest.raises(UserError, match=r"last\.pt"):
            find_resume(resume, tmp_path)
    assert not target.exists()


@pytest.mark.parametrize("content", [5, [1, 2], torch.zeros(3), {"model": {}}, {}])
def test_files_that_are_no_checkpoints_are_not_resumed(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    checkpoint = find_resume(str(tmp_path / "other.pt"), tmp_path)
    with pytest.raises(UserError, match="holds no training state"):
        check_same_run(checkpoint, Options(data="x"), "", {})  # type: ignore[arg-type]


def test_a_damaged_run_has_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"half")
    with pytest.raises(
        UserError, match=r"--resume auto: .*last\.pt: .*: begin anew with another --output, or --resume none"
    ):
        find_resume("auto", tmp_path)
    numbered = tmp_path / "pcrl_luna_pretask_1.0_60.pt"
    torch.save({}, numbered)
    with pytest.raises(UserError, match=rf"last\.pt: .*go on from another checkpoint, --resume {numbered}, or begin"):
        find_resume("auto", tmp_path)
    assert find_resume(str(numbered), tmp_path) == {}


def test_all_options_that_differ_are_named() -> None:
    former = Options(data="x")
    checkpoint = {"model": {}, "torch_rng": None, "opt": former.plain(), "list_sha256": "a"}
    now = Options(data="y", lr=0.01, optimizer="adamw", moco_k=64)
    others = "--lr 0.001, not 0.01, and --optimizer sgd, not adamw, and --moco_k 16384, not 64; give the same"
    with pytest.raises(UserError, match=f"--resume: that run had {others}"):
        check_same_run(checkpoint, now, "a", {})
