"""The held-out data of pre-training: apart from what is trained on, whole, and the same when a run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.registry import DATASETS
from options import Options
from phases import phase
from tests.conftest import ROOT, rows, write_pairs, write_xrays
from tests.inprocess import run_script
from tests.test_resume import assert_equal
from training.devices import Devices
from utils.errors import UserError
from utils.process_group import SINGLE

SMALL: dict[str, Any] = {"n": "chest", "size": 64, "narrow": 8, "b": 4, "workers": 0, "gpus": "", "moco_k": 16}
SMALL |= {"ratio": 1.0, "epochs": 1, "image_every": 0, "val_every": 1}


def write_list(path: Path, numbers: range) -> str:
    path.write_text("".join(f"{number:08d}_000.png\n" for number in numbers))
    return str(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve X-rays: eight to train on, four held out."""
    folder = write_xrays(tmp_path / "data", count=12, size=64)
    write_list(folder / "chest_train.txt", range(1, 9))
    write_list(folder / "chest_valid.txt", range(9, 13))
    return folder


def pretrain(data: Path, output: Path, **flags: object) -> None:
    options = Options(data=str(data), output=str(output), **{**SMALL, **flags})
    phase("pretask")(options, Devices("", None), SINGLE)


def test_held_out_images_that_are_trained_on_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = r"--val_every: 4 held-out samples are also trained on \(00000009_000.png, ...\): the loss on them means noth"
    with pytest.raises(UserError, match=both):
        pretrain(data, tmp_path / "out", train_list="none")
    pretrain(data, tmp_path / "out", train_list="none", val_every=0)
    capsys.readouterr()
    pretrain(data, tmp_path / "out", train_list="none", resume="auto", epochs=2)
    assert "warning: --val_every: 4 held-out samples are also trained on" in capsys.readouterr().err


def test_patients_in_both_parts_are_told(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "images" / "00000009_000.png").rename(data / "images" / "00000003_001.png")
    (data / "chest_valid.txt").write_text("00000003_001.png\n00000010_000.png\n00000011_000.png\n")
    pretrain(data, tmp_path / "out")
    told = "warning: --val_every: patient 00000003 is both in the training and in the held-out data: their loss is too"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("epochs", [2, 1])
def test_results_that_data_kept_from_coming_are_made_up_for(
    epochs: int, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The training is saved; once the image is mended, the run is as one that met no such image."""
    flags: dict[str, Any] = {"epochs": epochs, "save_minutes": 60, "val_every": 1}
    pretrain(data, tmp_path / "whole", **flags)
    path = data / "images" / "00000011_000.png"
    content = path.read_bytes()
    path.write_bytes(content[:100])
    with pytest.raises(UserError, match=r"00000011_000.png"):
        pretrain(data, tmp_path / "out", **flags)
    assert f"saved {tmp_path / 'out'}; go on with --resume auto\n" in capsys.readouterr().out
    saved = torch.load(tmp_path / "out" / "last.pt", weights_only=True)
    assert (saved["epoch"], saved["step"], saved["owes_results"]) == (1, 0, True)
    path.write_bytes(content)
    pretrain(data, tmp_path / "out", **flags, resume="auto")
    assert f"going on with the results on held-out data after epoch 1/{epochs}\n" in capsys.readouterr().out
    name = f"pcrl_chest_pretask_1.0_{epochs}.pt"
    ours, expected = (torch.load(tmp_path / run / name, weights_only=True) for run in ("out", "whole"))
    for key in ("model", "optimizer", "best", "best_epoch", "waited", "owes_results", "epoch"):
        assert_equal(ours[key], expected[key], key)
    ours_rows, expected_rows = (
        [{key: row[key] for key in row if key in ("step", "loss", "val_loss")} for row in rows(tmp_path / run)]
        for run in ("out", "whole")
    )
    assert ours_rows == expected_rows


def test_a_held_out_image_is_never_replaced(data: Path, tmp_path: Path) -> None:
    path = data / "images" / "00000011_000.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"00000011_000.png") as caught:
        pretrain(data, tmp_path / "out", on_bad_sample="skip")
    assert "on_bad_sample" not in str(caught.value)


def test_without_an_own_list_the_message_says_what_to_write(data: Path) -> None:
    (data / "chest_valid.txt").unlink()
    with pytest.raises(
        UserError, match=rf"or write {data}/chest_valid.txt, a list of images of other patients"
    ) as told:
        DATASETS["chest"].views["pcrl"].find_held_out(data)
    assert "--train_list" not in str(told.value)


def test_a_store_takes_the_held_out_list_along(data: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    flags = ["--data", str(data), "--save", str(store), "--workers", "1"]
    assert run_script([str(ROOT / "preprocess" / "chest_store.py"), *flags], tmp_path, tmp_path / "log.txt") == 0
    find = DATASETS["chest"].views["pcrl"].find_held_out
    assert [Path(file).name for file in find(store)] == [Path(file).name for file in find(data)]


def test_other_held_out_data_or_probe_labels_begin_the_choice_of_the_best_anew(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = (
        "warning: --resume: the data that select the best state changed: it is chosen among the epochs that follow"
    )
    pretrain(data, tmp_path / "out", epochs=3)
    assert torch.load(tmp_path / "out" / "last.pt", weights_only=True)["best_epoch"] > 0
    write_list(data / "chest_valid.txt", range(10, 13))
    capsys.readouterr()
    pretrain(data, tmp_path / "out", epochs=4, resume="auto")
    assert changed in capsys.readouterr().err
    assert torch.load(tmp_path / "out" / "last.pt", weights_only=True)["best_epoch"] in (0, 4)

    table = data / "probe.csv"
    flags = {"val_every": 0, "probe_list": str(table), "probe_every": 1, "keep": "best-probe"}
    rows = [f"{number:08d}_000.png,{number % 2}" for number in range(1, 13)]
    table.write_text("image,ill\n" + "\n".join(rows) + "\n")
    pretrain(data, tmp_path / "probed", **flags)
    capsys.readouterr()
    pretrain(data, tmp_path / "probed", **flags, epochs=2, resume="auto")
    assert changed not in capsys.readouterr().err
    table.write_text("image,ill\n" + "\n".join([*rows[1:], "00000001_000.png,0"]) + "\n")
    pretrain(data, tmp_path / "probed", **flags, epochs=3, resume="auto")
    assert changed in capsys.readouterr().err


def test_the_probe_leaves_the_test_rows_of_a_table_alone(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = ["train"] * 4 + ["valid"] * 4 + ["test"] * 4
    for words, said in (
        (parts, "fitted on 4 images, tested on 4 images"),
        (parts[:4] * 2 + parts[8:], "fitted on 8 images, tested on 4 images"),
        (parts[4:8] * 2 + parts[8:], "fitted on 4 images, tested on 4 images"),  # both of the eight to validate on
    ):
        rows = [f"{number:08d}_000.png,{number % 2},{part}" for number, part in enumerate(words, 1)]
        (data / "probe.csv").write_text("image,ill,split\n" + "\n".join(rows) + "\n")
        pretrain(data, tmp_path / words[0] / said, val_every=0, probe_list=str(data / "probe.csv"), probe_every=1)
        printed = capsys.readouterr()
        assert said in printed.out
        assert ("warning: probe: judged on the test rows of" in printed.err) == ("valid" not in words)


def with_records(folder: Path, low: int, seed: int = 0) -> None:
    recipe = {
        "seed": seed,
        "hu_min": low,
        "hu_max": 400,
        "percentiles": None,
        "shape": [16, 16, 16],
        "nominal": [16, 16, 16],
    }
    for pair in folder.glob("*_img_*.npy"):
        pair.with_name(f"{pair.name.rpartition('_img_')[0]}.json").write_text(json.dumps({"recipe": recipe}))


def test_pairs_of_another_window_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Held out with another one than those trained on; and all with another one when the run goes on."""
    pairs = write_pairs(tmp_path / "pairs", scans=4, pairs=2)
    held_out = (pairs / "subset3").rename(pairs / "subset7")
    training = [pairs / f"subset{number}" for number in range(3)]
    for folder, low in zip((held_out, *training), (-200, -1000, -1000, -1000), strict=True):
        with_records(folder, low)
    flags: dict[str, Any] = {"n": "luna", "b": 2, "size": 0, "train_list": "none"}
    pretrain(pairs, tmp_path / "out", **flags)
    told = "warning: --val_every: the held-out pairs have another recipe than those trained on: window -200 to 400 HU"
    assert told in capsys.readouterr().err
    told = f"warning: --resume: the samples in {pairs} were cut "
    for folder in training:
        with_records(folder, -200)
    pretrain(pairs, tmp_path / "out", **flags, epochs=2, resume="auto")
    printed = capsys.readouterr().err
    assert f"{told}in another way than before" in printed
    assert "held-out pairs" not in printed
    for folder in training:
        with_records(folder, -200, seed=1)
    pretrain(pairs, tmp_path / "out", **flags, epochs=3, resume="auto")
    assert f"{told}anew, from other scans or with other flags than before; " in capsys.readouterr().err
    pretrain(pairs, tmp_path / "out", **flags, epochs=4, resume="auto")
    assert told not in capsys.readouterr().err
