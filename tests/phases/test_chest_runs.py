"""The phases after pre-training on X-rays, from the command line."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from methods.pcrl import PCRL, PCRLConfig
from models.pcrl import build_network
from models.unet import published_state
from options.command_line import parse_options
from phases.pretask import build_loader, view_shape
from tasks.chest import find_chest_labels
from tests.conftest import ROOT, rows, write_pairs, write_xrays
from tests.inprocess import run_script
from training.devices import Devices
from utils.process_group import ProcessGroup

COMMON = "--narrow 8 --n chest --size 64 --b 4 --workers 0 --gpus , --ratio 1"


def run(tmp_path: Path, *argv: object) -> tuple[int, str]:
    """``python main.py ...`` -> the exit status and what it printed."""
    log = tmp_path / "log.txt"
    status = run_script([str(ROOT / "main.py"), *map(str, argv)], tmp_path, log)
    return status, log.read_text()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve X-rays in three lists. Class 1 is in every other one, class 2 in none."""
    folder = write_xrays(tmp_path_factory.mktemp("labelled"), count=12, size=64)
    for name, part in (("train", range(1, 7)), ("valid", range(7, 10)), ("test", range(10, 13))):
        (folder / f"chest_{name}.txt").write_text("".join(f"{i:08d}_000.png {i % 2} 0\n" for i in part))
    return folder


@pytest.fixture(scope="module")
def weight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pre-training leaves."""
    torch.manual_seed(1)
    method = PCRL(build_network(2, 3, 3, "bn", "none", narrow=8), PCRLConfig(n_data=1, queue_size=64))
    path = tmp_path_factory.mktemp("weight") / "pretrained.pt"
    torch.save(
        method.export() | {"opt": {"phase": "pretask", "n": "chest", "narrow": 8}, "run": {"samples": 300}}, path
    )
    return path


def test_finetune(labelled: Path, weight: Path, tmp_path: Path) -> None:
    argv = [*COMMON.split(), "--phase", "finetune", "--data", labelled, "--weight", weight, "--output", "out"]
    argv += ["--moco_t", 0.1]
    status, printed = run(tmp_path, *argv, "--epochs", 2)
    assert status == 0, printed
    assert "warning: --moco_t has no effect in finetune" in printed
    assert "120 tensors used; 2 missing (fc.weight, fc.bias); pre-training's decoder and heads (70 tensors) " in printed
    assert re.search(r"^epoch 1/2: on held-out data loss \S+, auroc \d\.\d{3} \(\d of 2 classes\)$", printed, re.M)
    assert re.search(r"^warning: no positives in (.* and )?test images: class_2$", printed, re.M)
    results = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert results["phase"] == "finetune"
    assert list(results["auroc"]) == ["class_1"]
    assert results["mean_auroc"] == results["auroc"]["class_1"]
    assert results["skipped"] == {"class_2": "no positives"}
    assert re.search(rf"^class_1 +1  {results['mean_auroc']:.4f}  ", printed, re.MULTILINE)
    scores = [row["val_auroc"] for row in rows(tmp_path / "out") if "val_auroc" in row]
    assert len(scores) == 2
    best = torch.load(tmp_path / "out" / "best.pt", weights_only=True)
    assert results["best_epoch"] == best["epoch"] == 1 + int(np.argmax(scores))
    assert best["best"] == -max(scores)
    run_facts = torch.load(tmp_path / "out" / "pcrl_chest_finetune_1.0_2.pt", weights_only=True)["run"]
    assert (run_facts["list"], run_facts["classes"]) == ("chest_train.txt", ["class_1", "class_2"])
    assert (run_facts["weight"]["file"], run_facts["weight"]["run"]) == ("pretrained.pt", {"samples": 300})
    # a finished run that is resumed only reports again, and its checkpoint is a start for others
    assert run(tmp_path, *argv, "--epochs", 2, "--resume", "auto")[0] == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == results
    assert json.loads((tmp_path / "out" / "run.json").read_text())["data"]["weight"] == run_facts["weight"]
    argv[argv.index(weight)] = tmp_path / "out" / "best.pt"
    status, printed = run(tmp_path, *argv, "--phase", "knn")
    assert status == 2, printed
    assert "error: --output out holds a training run" in printed


def test_a_damaged_test_image_costs_no_training(labelled: Path, tmp_path: Path) -> None:
    """It is met after the last epoch; mended, the same command evaluates."""
    shutil.copytree(labelled, tmp_path / "data")
    image = tmp_path / "data" / "images" / "00000012_000.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:100])
    argv = [*COMMON.split(), "--phase", "finetune", "--data", "data", "--output", "out", "--epochs", 1]
    status, printed = run(tmp_path, *argv)
    assert status == 2, printed
    assert re.search(
        r"^error: .*00000012_000\.png.*; the training is saved: mend this, then --resume auto", printed, re.M
    )
    image.write_bytes(whole)
    status, printed = run(tmp_path, *argv, "--resume", "auto")
    assert status == 0, printed
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["images"] == 3


def test_linear_stops_early_and_keeps_the_encoder(labelled: Path, weight: Path, tmp_path: Path) -> None:
    argv = [*COMMON.split(), "--phase", "linear", "--data", labelled, "--weight", weight, "--output", tmp_path / "out"]
    status, printed = run(tmp_path, *argv, "--lr", 0, "--epochs", 9, "--patience", 2)
    assert status == 0, printed
    checkpoint = torch.load(tmp_path / "out" / "pcrl_chest_linear_1.0_3.pt", weights_only=True)  # not 9
    for name, tensor in torch.load(weight, weights_only=True)["state_dict"].items():
        assert torch.equal(checkpoint["state_dict"][name], tensor), name
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["best_epoch"] == 1


def test_knn_and_embed_agree(labelled: Path, weight: Path, tmp_path: Path) -> None:
    common = [*COMMON.split(), "--data", labelled, "--weight", weight]
    status, printed = run(tmp_path, *common, "--phase", "knn", "--output", "knn", "--seed", 0)
    assert status == 0, printed
    status, printed = run(tmp_path, *common, "--phase", "embed", "--train_list", "none", "--output", "embed")
    assert status == 0, printed
    assert "--ratio has no effect in embed" in printed
    features = np.load(tmp_path / "embed" / "features.npy")
    assert (features.shape, features.dtype) == ((12, 64), np.float32)
    with open(tmp_path / "embed" / "features.csv", newline="") as file:
        header, *table = csv.reader(file)
    assert header[:2] == ["name", "feature_0"]
    assert [row[0] for row in table] == [f"images/{i:08d}_000.png" for i in range(1, 13)]
    np.testing.assert_allclose([[float(v) for v in row[1:]] for row in table], features, rtol=1e-6)
    # six training images: all are neighbours, so every score is the mean label and the AUROC one half
    results = json.loads((tmp_path / "knn" / "metrics.json").read_text())
    assert (results["neighbours"], results["mean_auroc"]) == (6, 0.5)
    assert roc_auc_score([0, 1, 0], [0.5] * 3) == 0.5


def test_embed_crops(pairs: Path, tmp_path: Path) -> None:
    status, printed = run(
        tmp_path,
        *["--phase", "embed", "--n", "luna", "--b", "4", "--workers", "0", "--narrow", "8", "--output", "e"],
        "--data",
        pairs,
    )
    assert status == 0, printed
    assert "without --weight" in printed
    assert np.load(tmp_path / "e" / "features.npy").shape == (12, 64)
    names = [line.split(",")[0] for line in (tmp_path / "e" / "features.csv").read_text().splitlines()]
    assert names[1:3] == ["subset0/1.2.0_img_0.npy:0", "subset0/1.2.0_img_0.npy:1"]


def test_weights_of_another_window_are_warned_of(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs", scans=2, pairs=1)
    recipe = {"percentiles": None, "hu_min": -1000, "hu_max": 1000, "shape": [16, 16, 16], "nominal": [16, 16, 16]}
    (data / "subset0" / "1.2.0.json").write_text(json.dumps({"recipe": recipe}))
    made = {"run": {"recipes": [{"hu": [-150, 250], "scans": 2}]}}
    network = build_network(3, 1, 1, "bn", "sigmoid")
    torch.save({"model": published_state(network), **made}, tmp_path / "weight.pt")
    argv = ["--n", "luna", "--b", 4, "--workers", 0, "--gpus", ",", "--data", data, "--weight", "weight.pt"]
    status, printed = run(tmp_path, *argv, "--phase", "embed", "--output", "e")
    assert status == 0, printed
    trained = "weight.pt was trained on images with other preprocessing"
    said = f"warning: {trained}: window -150 to 250 HU, not -1000 to 1000 HU; "
    assert said in printed
    assert printed.count("warning") == 1


@pytest.mark.parametrize("more", [["--size", "96"], ["--size", "64", "--augment", "device"], []], ids=str)
def test_size_is_that_of_all_views(labelled: Path, more: list[str]) -> None:
    options, _ = parse_options(["--data", str(labelled), *COMMON.replace("--size 64", "").split(), *more])
    size = int(more[1]) if more else 224
    loader, _ = build_loader(options, Devices(""), ProcessGroup())
    assert view_shape(loader) == (size, size)
    assert next(iter(loader.epoch(0)))["input1"].shape == (4, 3, size, size)
    found = find_chest_labels(options)
    for samples in (found.augmented, found.test.samples):
        assert samples[(0, 0)]["image"].shape == (3, size, size)


def test_bad_input_is_one_line(labelled: Path, tmp_path: Path) -> None:
    common = [*COMMON.split(), "--data", labelled, "--output", "out"]
    for argv, message in (
        (["--phase", "finetune", "--train_list", "none"], "images without a list have no labels"),
        (["--phase", "knn", "--n", "luna"], "--phase knn does not support --n luna, only --n chest, nodules; --n luna"),
        (["--phase", "linear", "--val_every", 0], "--val_every 0: --phase linear selects"),
        (["--phase", "finetune", "--b", 7], "--b 7: "),
    ):
        status, printed = run(tmp_path, *common, *argv)
        assert status == 2, printed
        assert f"error: {message}" in printed or message in printed.splitlines()[-1]
        assert "Traceback" not in printed
    # a file that is no weight is all that is said: no word on the labels before it
    (tmp_path / "bad.pt").write_text("no weights")
    status, printed = run(tmp_path, *common, "--phase", "finetune", "--weight", tmp_path / "bad.pt")
    assert status == 2, printed
    assert "warning" not in printed
    assert "bad.pt" in printed.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_pre_training_says_what_a_ratio_leaves(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, _ = parse_options(["--data", str(labelled), *COMMON.split(), "--ratio", "0.7"])
    build_loader(options, Devices(""), ProcessGroup())
    expected = "4 of 6 samples (--ratio 0.7: the others are left for fine-tuning; 1.0 takes all)\n"
    assert capsys.readouterr().out == expected


def test_the_list_that_comes_with_the_images_has_no_labels(labelled: Path, tmp_path: Path) -> None:
    """Pre-training takes NIH's list, fine-tuning this project's, of which these images are not."""
    data = Path(shutil.copytree(labelled, tmp_path / "data"))
    (data / "chest_train.txt").unlink()
    (data / "train_val_list.txt").write_text("00000001_000.png\n")
    for work in ("finetune", "knn"):
        status, printed = run(tmp_path, *COMMON.split(), "--data", data, "--output", "out", "--phase", work)
        assert status == 2, printed
        assert f"since {data / 'train_val_list.txt'} has no labels\n" in printed
        assert "has no labels: a line is" not in printed
        assert "train_val_txt/chest_train.txt" in printed.splitlines()[-1]
    (data / "train_val_list.txt").write_text((labelled / "chest_train.txt").read_text())  # with labels it is a list
    argv = [*COMMON.split(), "--data", data, "--output", "out", "--phase", "knn"]
    status, printed = run(tmp_path, *argv)
    assert status == 0, printed
    assert "has no labels" not in printed
