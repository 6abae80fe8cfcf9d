"""What a run may go on with: the same data and classes, in a folder of its own; and what is left of a former run."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from options import Options
from options.command_line import check_paths, parse_options
from training.best import settle_best
from training.checkpoint import Position, TrainingState, check_same_run, find_resume
from training.reporting.run_record import list_hash, paths_hash
from utils.errors import UserError
from utils.seeding import generator

FACTS: dict[str, Any] = {
    "shape": [32, 32, 16],
    "classes": ["male", "ill"],
    "kind": "sigmoid",
    "segmentation": {"classes": ["front"], "windows": [[-1000, 400]], "spacing_mm": [1.0, 1.0, 2.0], "overlap": 0.5},
}


def checkpoint(**run: object) -> dict[str, Any]:
    return {"model": {}, "torch_rng": None, "opt": Options(data="x").plain(), "list_sha256": "a", "run": FACTS | run}


@pytest.mark.parametrize(
    ("now", "line"),
    [
        ({"shape": [40, 40, 24]}, r"samples of the shape \[32, 32, 16\], and x has \[40, 40, 24\]"),
        ({"classes": ["ill", "male"]}, r"the classes \[male, ill\], and x has \[ill, male\]"),
        ({"kind": "softmax"}, "labels of the kind sigmoid, and x has softmax"),
        ({"segmentation": FACTS["segmentation"] | {"classes": ["back"]}}, r"the classes \[front\], and x has \[back\]"),
        ({"segmentation": FACTS["segmentation"] | {"windows": [None]}}, "the windows of grey values .* x has .null"),
    ],
)
def test_files_that_mean_something_else_are_refused(now: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=f"^--resume: that run had {line}.*; give the same --data and lists$"):
        check_same_run(checkpoint(), Options(data="x"), "a", FACTS | now)


def test_a_file_that_was_removed_is_told_by_numbers() -> None:
    words = (
        r"samples differ from those of that run \(it had 16 samples, not 15\); give the same --data and list, with all"
    )
    with pytest.raises(UserError, match=words):
        check_same_run(checkpoint(samples=16), Options(data="x"), "b", FACTS | {"samples": 15})


@pytest.mark.parametrize(
    ("name", "what"),
    [("paths_sha256", "the training samples"), ("trained_by", "the labels of the training samples")],
)
def test_other_samples_and_labels_are_refused(name: str, what: str) -> None:
    before = checkpoint(**{name: "3e4242"})
    check_same_run(before, Options(data="x"), "a", FACTS | {name: "3e4242"})
    check_same_run(before, Options(data="x"), "a", FACTS)
    with pytest.raises(UserError, match=f"^--resume: {what} differ from those of that run; give the same --data and "):
        check_same_run(before, Options(data="x"), "a", FACTS | {name: "ab12"})


def test_files_of_several_folders_can_share_their_names() -> None:
    patients = [f"chex/patient0000{patient}/study1/view1_frontal.jpg" for patient in range(4)]
    hashes = {paths_hash(files) for files in (patients, patients[::-1], patients[:3])}
    assert len(hashes) == 3
    assert "" not in hashes
    assert paths_hash([f"/moved/to/{file}" for file in patients]) == paths_hash(patients)
    for told_apart in (["a/1.png", "b/2.png"], ["a/1.png", "a/1.png"], ["scan 1", "scan 2"]):
        assert paths_hash(told_apart) == "", "NIH's images can move from images_001 and so on into one folder"


def test_a_name_need_not_be_utf_8() -> None:
    name = os.fsdecode(b"M\xfcller.png")
    assert list_hash([name]) == hashlib.sha256(b"M\xfcller.png").hexdigest()
    assert generator(0, name).random() != generator(0, "Mueller.png").random()


def test_what_an_earlier_version_did_not_tell_is_no_difference() -> None:
    check_same_run(checkpoint(), Options(data="x"), "a", FACTS)
    check_same_run(checkpoint() | {"run": {}}, Options(data="x"), "a", FACTS)
    check_same_run(checkpoint(), Options(data="x"), "a", {})


def test_reporting_may_change_and_an_empty_value_is_said() -> None:
    check_same_run(checkpoint(), Options(data="x", tracker="mlflow"), "a", FACTS)
    probed = Options(data="x", n="chest", label_column="male", probe_list="p.csv")
    check_same_run(checkpoint() | {"opt": Options(data="x", n="chest").plain()}, probed, "a", FACTS)
    labelled = Options(data="x", n="chest", phase="finetune")
    former = checkpoint() | {"opt": labelled.plain()}
    now = Options(data="x", n="chest", phase="finetune", label_column="male")
    with pytest.raises(UserError, match=r"that run had no --label_column \(now male\); give the same values again"):
        check_same_run(former, now, "a", FACTS)


def test_a_weight_that_is_not_used_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    check_same_run(checkpoint(), Options(data="x", weight="other.pt"), "a", FACTS)
    told = "warning: --weight other.pt has no effect: the run goes on from its checkpoint"
    assert told in capsys.readouterr().err
    former = checkpoint() | {"opt": Options(data="x", weight="old/place/other.pt").plain()}
    check_same_run(former, Options(data="x", weight="other.pt"), "a", FACTS)
    assert not capsys.readouterr().err


def test_a_weight_that_is_gone_is_no_matter_to_a_run_that_goes_on(tmp_path: Path) -> None:
    flags: dict[str, Any] = {
        "data": str(tmp_path),
        "output": str(tmp_path / "out"),
        "weight": str(tmp_path / "gone.pt"),
    }
    with pytest.raises(UserError, match=r"--weight .*gone\.pt: no such file"):
        check_paths(Options(**flags))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "last.pt").touch()
    check_paths(Options(**flags, resume="auto"))


def test_the_checkpoint_of_another_run_is_not_mixed_into_a_folder(tmp_path: Path) -> None:
    torch.save({"run": {"started": "Monday"}}, tmp_path / "other.pt")
    (tmp_path / "run.json").write_text(json.dumps({"started": "Tuesday"}))
    with pytest.raises(UserError, match=r"--output .* holds another run than that of --resume; give another --output"):
        find_resume(str(tmp_path / "other.pt"), tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"started": "Monday"}))
    assert find_resume(str(tmp_path / "other.pt"), tmp_path) is not None


def test_a_new_run_renames_the_states_of_a_former_one(tmp_path: Path) -> None:
    """Killed before its first save, it would else go on from them."""
    for name in ("last.pt", "previous.pt", "best.pt"):
        torch.save({"name": name}, tmp_path / name)
    state = TrainingState(None, None, None, Position())  # type: ignore[arg-type]
    settle_best(tmp_path, state, None)
    assert find_resume("auto", tmp_path) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "former_best.pt",
        "former_last.pt",
        "former_previous.pt",
    ]
    assert torch.load(tmp_path / "former_last.pt", weights_only=True) == {"name": "last.pt"}


def test_evaluations_that_never_come_are_told() -> None:
    words = ["--data", "x", "--n", "chest", "--epochs", "3", "--val_every", "10", "--probe_list", "p.csv", "--gpus"]
    _, warnings = parse_options([*words, ""])
    assert warnings == [
        "--val_every 10: the run has only --epochs 3, so held-out data are never used",
        "--probe_every 5: the run has only --epochs 3, so only the untrained network is probed",
    ]


def test_flags_of_a_written_config_that_mean_nothing_are_told(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("data: x\nn: chest\nfolds: 3\n")
    (tmp_path / "run.json").write_text(json.dumps({"options": {"data": "x", "n": "chest", "folds": 3}}))
    for name, expected in (("mine.yaml", ["--folds has no effect with --n chest"]), ("run.json", [])):
        _, warnings = parse_options(["--config", str(tmp_path / name)])
        assert [line for line in warnings if "folds" in line][:1] == expected
