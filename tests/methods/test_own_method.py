"""A method in a file of its own, that no line of the project names, trains, resumes and is exported."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from methods import METHODS
from options import FLAGS, MODELS, Options
from tests.conftest import ROOT, rows, write_pairs
from tests.inprocess import run_script

OWN = Path(__file__).with_name("own_method.py")


def run(script: str, folder: Path, *argv: object) -> str:
    log = folder / "log"
    status = run_script([str(ROOT / script), *map(str, argv)], folder, log)
    text = log.read_text()
    assert status == 0, text
    return text


def test_a_method_in_a_file_of_its_own_trains_resumes_and_is_exported(pairs: Path, tmp_path: Path) -> None:
    flags = ("--data", pairs, "--model", OWN, "--ratio", 0.5, "--b", 2, "--workers", 0, "--gpus", ",", "--moco_k", 8)
    full, flags = flags, (*flags, "--narrow", 8)
    whole = run("main.py", tmp_path, *flags, "--output", "whole", "--epochs", 2, "--save_every", 1)
    assert "--moco_k has no effect with --model own_method" in whole
    assert "error" in rows(tmp_path / "whole")[-1]
    assert (tmp_path / "whole" / "curves.png").exists()
    assert list((tmp_path / "whole" / "reconstructions").iterdir())

    first = tmp_path / "whole" / "own_method_luna_pretask_0.5_1.pt"
    resumed = run("main.py", tmp_path, *flags, "--output", "resumed", "--epochs", 2, "--resume", first)
    assert "going on at epoch 2" in resumed
    name = "own_method_luna_pretask_0.5_2.pt"
    a, b = (torch.load(tmp_path / each / name, weights_only=True)["model"] for each in ("whole", "resumed"))
    assert all(torch.equal(a[key], b[key]) for key in a)

    few = write_pairs(tmp_path / "few", scans=2)
    run("main.py", tmp_path, *full, "--data", few, "--epochs", 1, "--image_every", 0, "--output", "full")
    run("export.py", tmp_path, "--checkpoint", "full/last.pt", "--save", "weights")
    a = torch.load(tmp_path / "full" / "last.pt", weights_only=True)["model"]
    weights = torch.load(tmp_path / "weights" / "unet3d.pt", weights_only=True)
    assert torch.equal(weights["down_tr64.ops.0.conv1.weight"], a["down_tr64.ops.0.conv1.weight"])


def test_a_file_that_is_no_method_is_one_line(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("SPEC = 1\n")
    for model, expected in (
        ("empty.py", "it defines no SPEC"),
        ("missing.py", "no such file"),
        ("moco", "choose from"),
    ):
        log = tmp_path / "log"
        assert run_script([str(ROOT / "main.py"), "--data", str(pairs), "--model", model], tmp_path, log) == 2
        assert expected in log.read_text()
        assert "Traceback" not in log.read_text()


def test_the_names_of_methods_are_those_of_their_specs_and_of_the_options() -> None:
    assert tuple(METHODS) == MODELS
    assert all(spec.name == name for name, spec in METHODS.items())
    for spec in METHODS.values():
        known = {field.name for field in dataclasses.fields(Options)}
        assert spec.flags <= known
        assert spec.flags == {name for name, metadata in FLAGS.items() if spec.name in metadata["models"]}
        assert spec.fixed.keys() <= known
