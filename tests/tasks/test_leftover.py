"""Which part of the training list is learned from, where nobody says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from options import Options
from options.command_line import parse_options
from tasks.leftover import with_ratio
from training.checkpoint import checkpoint_name
from training.reporting.run_record import list_hash
from utils.process_group import SINGLE

NAMES = [f"{number:08d}_000.png" for number in range(10)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "chest_train.txt").write_text("".join(f"images/{name} 1 0\n" for name in NAMES))
    (tmp_path / "luna_train.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return tmp_path


def pretrained(data: Path, names: list[str], ratio: float = 0.6, n: str = "chest", **run: Any) -> str:
    """A checkpoint of a pre-training that took the first part of these."""
    taken = names[: int(ratio * len(names))]
    opt = {"phase": "pretask", "n": n, "ratio": ratio}
    torch.save({"opt": opt, "list_sha256": list_hash(taken), "run": run}, data / "weight.pt")
    return str(data / "weight.pt")


def chosen(data: Path, *flags: str, n: str = "chest", phase: str = "finetune") -> float:
    options, _ = parse_options(["--data", str(data), "--n", n, "--phase", phase, *flags])
    return with_ratio(options, SINGLE).ratio


@pytest.mark.parametrize("phase", ["finetune", "linear", "knn"])
def test_all_by_default(phase: str, data: Path) -> None:
    assert chosen(data, phase=phase) == 1
    assert chosen(data, "--ratio", "0.8", phase=phase) == 0.8
    assert chosen(data, "--weight", "imagenet", phase=phase) == 1


def test_what_pre_training_left_of_the_same_list(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weight = pretrained(data, NAMES)
    assert chosen(data, "--weight", weight) == 0.6
    (said,) = capsys.readouterr().out.splitlines()
    assert said == (
        f"{weight} was pre-trained on the first 60 % of the list chest_train.txt: this run trains on the rest of "
        f"the list (--ratio 1.0: on the whole list)"
    )
    assert chosen(data, "--weight", weight, "--ratio", "1.0") == 1
    assert chosen(data, "--weight", weight, "--ratio", "0.7") == 0.7
    assert capsys.readouterr().out == ""


def test_all_of_another_list(data: Path) -> None:
    assert chosen(data, "--weight", pretrained(data, NAMES[::-1])) == 1
    assert chosen(data, "--weight", pretrained(data, NAMES, ratio=1.0)) == 1
    assert chosen(data, "--weight", pretrained(data, NAMES, n="luna")) == 1


def test_crops_know_the_list_of_scans_by_its_hash(data: Path) -> None:
    pairs = [f"{name}_img_0.npy" for name in NAMES]  # whose names alone tell no list
    assert chosen(data, "--weight", pretrained(data, pairs, n="luna"), n="nodules") == 1
    known = pretrained(data, pairs, n="luna", whole_list_sha256=list_hash(NAMES))
    assert chosen(data, "--weight", known, n="nodules") == 0.6
    (data / "luna_train.txt").unlink()
    assert chosen(data, "--weight", known, n="nodules") == 1


def test_a_run_from_when_the_default_was_another_goes_on_as_it_began(data: Path) -> None:
    torch.save({"opt": {"phase": "finetune", "n": "chest", "ratio": 0.8}}, data / "last.pt")
    assert chosen(data, "--output", str(data), "--resume", "auto") == 0.8
    assert chosen(data, "--output", "elsewhere", "--resume", str(data / "last.pt")) == 0.8
    assert chosen(data, "--output", str(data), "--resume", "none") == 1


def test_names_of_checkpoints_have_a_ratio_where_it_means_something() -> None:
    assert checkpoint_name(Options(data="x"), 3) == "pcrl_luna_pretask_0.8_3.pt"
    assert checkpoint_name(Options(data="x", n="chest", phase="finetune"), 3) == "pcrl_chest_finetune_1.0_3.pt"
    assert checkpoint_name(Options(data="x", n="msd", phase="finetune"), 3) == "pcrl_msd_finetune_3.pt"
