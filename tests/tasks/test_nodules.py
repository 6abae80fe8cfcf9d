"""Nodule classification from crops to a table, by the command's own code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.ct.nodules import find_candidates
from options import Options
from tasks.nodules import find_nodules
from tests.conftest import run_main
from utils.errors import UserError


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of scans in subsets 0-9, with a bright ball or without."""
    data = tmp_path_factory.mktemp("crops")
    lines = ["file,seriesuid,subset,label,coordX,coordY,coordZ"]
    ball = np.linalg.norm(np.indices((16, 16, 16)) - 8, axis=0) < 4
    for subset in range(10):
        (data / f"subset{subset}").mkdir()
        for index in range(4):
            name = f"subset{subset}/1.2.{subset}_crop_{index}.npy"
            noise = np.random.default_rng([subset, index]).random((16, 16, 16), np.float32)
            np.save(data / name, 0.3 * noise + np.float32(0.6) * (ball & (index < 2)))
            lines.append(f"{name},1.2.{subset},{subset},{int(index < 2)},0,0,0")
    (data / "labels.csv").write_text("\n".join(lines) + "\n")
    return data


def test_balls_are_told_from_noise(crops: Path, tmp_path: Path) -> None:
    flags = ("--n", "nodules", "--phase", "finetune", "--data", crops, "--ratio", 1.0, "--b", 7, "--epochs", 3)
    more = ("--workers", 0, "--gpus", ",", "--norm", "gn", "--optimizer", "adamw", "--lr", 1e-3)
    done = run_main(*flags, *more, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (results["images"], results["positives"]) == (8, {"nodule": 4})
    assert results["auroc"]["nodule"] == results["mean_auroc"] > 0.9
    facts = torch.load(tmp_path / "out" / "best.pt", weights_only=True)["run"]
    assert (facts["classes"], facts["windows"], facts["shape"]) == (["nodule"], [], [16, 16, 16])


def test_the_parts_are_those_of_luna16(crops: Path) -> None:
    data = find_nodules(Options(n="nodules", phase="finetune", data=str(crops), ratio=1.0))
    subsets = [{Path(file).parent.name for file in part.files} for part in (data.train, data.valid, data.test)]
    assert subsets == [{f"subset{n}" for n in range(7)}, {"subset7"}, {"subset8", "subset9"}]
    assert data.test.labels.tolist() == [[1], [1], [0], [0]] * 2
    assert len(data.augmented) == 28
    uses = "each epoch uses the 14 crops without a nodule once, and as many crops of the other class"
    assert data.note == f"balanced classes: {uses}"
    assert (data.listed, data.windows) == (28, [])
    sample = data.test.samples[0, 6]
    np.testing.assert_array_equal(sample["image"][0].numpy(), np.load(data.test.files[6]))
    assert sample["label"].tolist() == data.test.labels[6].tolist()


def test_the_window_of_their_records_is_known(crops: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(crops, tmp_path / "crops"))
    (data / "subset3" / "1.2.3.json").write_text('{"recipe": {"hu_min": -150, "hu_max": 250}}')
    found = find_nodules(Options(n="nodules", phase="finetune", data=str(data), ratio=1.0))
    assert found.windows == [{"hu": [-150, 250]}]


def test_what_a_ratio_leaves_is_said(crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = tmp_path / "luna_train.txt"
    seen.write_text("".join(f"1.2.{subset}\n" for subset in range(4)))
    half = Options(n="nodules", phase="finetune", data=str(crops), ratio=0.5, train_list=str(seen))
    find_nodules(half).announce(half.ratio)
    left = "5 scans; --ratio 0.5: the others are reserved for pre-training; --ratio 1.0 uses all"
    labels = "labels: yes or no of 1 class (nodule)\n"
    printed = capsys.readouterr()
    assert printed.out == f"images: 20 of 28 training ({left}), 4 validation (1), 8 test (2)\n{labels}"
    assert printed.err == "warning: 2 test scans: the result and its interval say little (fewer than 30)\n"
    find_nodules(Options(n="nodules", phase="finetune", data=str(crops), ratio=1.0)).announce(1.0)
    assert capsys.readouterr().out == f"images: 28 training (7 scans), 4 validation (1), 8 test (2)\n{labels}"


def test_a_line_of_the_list_that_ends_early_is_named(crops: Path, tmp_path: Path) -> None:
    """Else its prediction would be lost."""
    lines = (crops / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join([*lines[:3], lines[3].split(",")[0]]) + "\n")
    with pytest.raises(UserError, match=r"labels\.csv is no list of crops \(line 4 has no seriesuid\)"):
        find_candidates(tmp_path)
