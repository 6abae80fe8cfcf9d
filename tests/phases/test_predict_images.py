"""Tables of a classifier: of its test part, of a folder of X-rays, of nodule candidates."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from options import Options
from phases import phase
from tasks import score_images as module
from tasks.outputs import as_numbers
from tasks.prediction_files import PartialTable
from tests.conftest import run_preprocess, write_xrays
from tests.phases.segmenter import predict
from tests.processes import largest_file
from training.devices import Devices
from utils.errors import Unfinished, UserError
from utils.process_group import SINGLE


def finetune(data: Path, output: Path, **flags: Any) -> Path:
    common: dict[str, Any] = {"b": 4, "workers": 0, "gpus": "", "narrow": 8, "epochs": 1, "ratio": 1.0}
    options = Options(phase="finetune", data=str(data), output=str(output), **{**common, **flags})
    phase("finetune")(options, Devices("", None), SINGLE)
    return output


@pytest.fixture(scope="module")
def xrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve X-rays in three lists, and in ``out`` a classifier of two classes."""
    folder = write_xrays(tmp_path_factory.mktemp("labelled") / "data", count=12, size=64)
    for name, part in (("train", range(1, 5)), ("valid", range(5, 8)), ("test", range(8, 13))):
        lines = (f"{i:08d}_000.png {i % 2} {i // 2 % 2}\n" for i in part)
        (folder / f"chest_{name}.txt").write_text("".join(lines))
    finetune(folder, folder.parent / "out", n="chest", size=64, optimizer="adamw", lr=1e-3)
    return folder.parent


def table(output: Path) -> tuple[list[str], dict[str, list[float]]]:
    with open(output / "predictions.csv", newline="") as file:
        header, *rows = csv.reader(file)
    return header, {row[0]: [float(value) for value in row[-(len(header) - 1) :]] for row in rows}


def test_the_table_of_the_test_part_has_the_reported_auroc(xrays: Path) -> None:
    header, rows = table(xrays / "out")
    assert header == ["file", "class_1", "class_2"]
    assert list(rows) == [f"images/{i:08d}_000.png" for i in range(8, 13)]
    results = json.loads((xrays / "out" / "metrics.json").read_text())
    values = np.array(list(rows.values()))
    assert ((values > 0) & (values < 1)).all()
    for column, labels in enumerate(([i % 2 for i in range(8, 13)], [i // 2 % 2 for i in range(8, 13)])):
        expected = roc_auc_score(labels, values[:, column])
        assert results["auroc"][f"class_{column + 1}"] == pytest.approx(expected, abs=1e-9)
    assert np.asarray(Image.open(xrays / "out" / "roc.png").convert("L")).std() > 15


def test_predicting_a_folder_gives_the_same_numbers_and_goes_on(
    xrays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = table(xrays / "out")
    data, out = tmp_path / "new", tmp_path / "out"
    shutil.copytree(xrays / "data" / "images", data / "deep" / "er")
    (data / "deep" / "00000000_000.png").write_bytes(b"\x89PNG and no more")

    def killed(self: PartialTable) -> None:
        self._file.flush()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.PartialTable, "flush", killed)
        with pytest.raises(KeyboardInterrupt):
            predict(xrays / "out" / "best.pt", data, out)
    assert "run the same command again to continue" in capsys.readouterr().out
    (part,) = out.glob("*.jsonl")
    part.write_text(part.read_text() + '{"file": "deep/er/00000012_000.png", "class_1": "0.1')  # cut short
    done = part.read_text().count("\n") - 1
    assert 0 < done < 12
    capsys.readouterr()
    with pytest.raises(Unfinished, match="1 of 13 images could not be read"):
        predict(xrays / "out" / "best.pt", data, out)
    ended = capsys.readouterr()
    assert f"{done} of 13 images are in " in ended.out
    assert "warning: the image " in ended.err
    assert "00000000_000.png cannot be decoded" in ended.err
    _, rows = table(out)
    assert list(rows) == sorted(f"deep/er/{i:08d}_000.png" for i in range(1, 13))
    for name, values in expected.items():
        np.testing.assert_allclose(rows[f"deep/er/{Path(name).name}"], values, rtol=1e-6)
    assert not list(out.glob("*.jsonl"))
    # an image that is added is all that is then done; the others keep their numbers
    shutil.copy(xrays / "data" / "images" / "00000001_000.png", data / "added.png")
    (data / "deep" / "00000000_000.png").unlink()
    predict(xrays / "out" / "best.pt", data, out)
    assert "12 of 13 images are in" in capsys.readouterr().out
    again = table(out)[1]
    assert again.pop("added.png") == pytest.approx(rows["deep/er/00000001_000.png"], abs=1e-6)
    assert again == rows


def test_a_full_disk_is_one_line_and_nothing_is_lost(
    xrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "number_text", "{:.900f}".format)  # a batch of rows is more than Python holds back
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with (
        largest_file(5000),
        pytest.raises(UserError, match=r"predictions\.part0\.jsonl cannot be written: .*make room"),
    ):
        predict(xrays / "out" / "best.pt", xrays / "data", tmp_path)
    monkeypatch.undo()
    predict(xrays / "out" / "best.pt", xrays / "data", tmp_path)
    assert len(table(tmp_path)[1]) == 12


def test_a_wrong_folder_leaves_the_output_to_the_right_one(xrays: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        predict(xrays / "out" / "best.pt", tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    predict(xrays / "out" / "best.pt", xrays / "data", tmp_path / "out")
    assert len(table(tmp_path / "out")[1]) == 12


@pytest.mark.parametrize("stored", [False, True])
def test_an_image_that_was_replaced_is_predicted_again(
    stored: bool, xrays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    shutil.copytree(xrays / "data" / "images", images)
    data = tmp_path / "store" if stored else images
    rows = []
    for replaced in (False, True):
        if replaced:
            shutil.copy(images / "00000002_000.png", images / "00000001_000.png")
        if stored:
            shutil.rmtree(data, ignore_errors=True)
            assert run_preprocess("chest_store", "--data", images, "--save", data, "--workers", 1).returncode == 0
        predict(xrays / "out" / "best.pt", data, out)
        rows.append(table(out)[1])
    first, second = (np.array(list(each.values())) for each in rows)
    assert abs(first[0] - first[1]).max() > 1e-5
    np.testing.assert_allclose(second, first[[1, 1, *range(2, 12)]], atol=1e-6)
    changed = "12 images changed" if stored else "1 image changed"  # a store's are known by their shard
    assert f"{changed} since the last prediction (00000001_000.png" in capsys.readouterr().out
    predict(xrays / "out" / "best.pt", data, out)
    assert "12 of 12 images are in" in capsys.readouterr().out


def test_weights_as_people_write_several(
    xrays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(xrays)
    predict(" out/best.pt, out/last.pt,", Path("data"), tmp_path)
    assert "warning: --weight names out/last.pt again, or a copy of it: it counts as often" in capsys.readouterr().err
    weights = json.loads((tmp_path / "predict.json").read_text())["weights"]
    assert [weight["file"] for weight in weights] == ["out/best.pt", "out/last.pt"]
    with pytest.raises(UserError, match="--weight is needed"):
        predict(" , ", Path("data"), tmp_path)


def test_mirror_images_and_folds_are_averaged(xrays: Path, tmp_path: Path) -> None:
    images, best = xrays / "data" / "images", xrays / "out" / "best.pt"
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["model"] = {
        name: -tensor if name.startswith("fc.") else tensor for name, tensor in checkpoint["model"].items()
    }
    torch.save(checkpoint, tmp_path / "opposite.pt")
    predict(f"{best},{tmp_path / 'opposite.pt'}", images, tmp_path / "both")
    np.testing.assert_allclose(list(table(tmp_path / "both")[1].values()), 0.5, atol=1e-6)
    mirrored = tmp_path / "turned"
    mirrored.mkdir()
    for path in images.iterdir():
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored / path.name)
    predict(best, images, tmp_path / "plain")
    predict(best, mirrored, tmp_path / "flipped")
    predict(best, images, tmp_path / "tta", tta=True)
    plain, flipped, tta = (np.array(list(table(tmp_path / name)[1].values())) for name in ("plain", "flipped", "tta"))
    np.testing.assert_allclose(tta, (plain + flipped) / 2, atol=1e-6)
    torch.save(
        torch.load(best, weights_only=True) | {"opt": checkpoint["opt"] | {"mirror": "off"}}, tmp_path / "off.pt"
    )
    predict(f"{tmp_path / 'off.pt'},{best}", images, tmp_path / "one", tta=True)
    one = np.array(list(table(tmp_path / "one")[1].values()))
    np.testing.assert_allclose(one, (plain + (plain + flipped) / 2) / 2, atol=1e-6)  # each as it was trained
    assert np.abs(plain - flipped).max() > 1e-5


def test_the_flags_that_say_how_it_is_computed(xrays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = list(table(xrays / "out")[1].values())
    images, best = tmp_path / "images", xrays / "out" / "best.pt"
    images.mkdir()
    for number in range(8, 13):
        shutil.copy(xrays / "data" / "images" / f"{number:08d}_000.png", images)
    flags: dict[str, dict[str, Any]] = {
        "small_batches": {"b": 2, "workers": 2, "prefetch": 1},
        "memory": {"channels_last": "on"},
        "half": {"amp": "native"},
    }
    for name, more in flags.items():
        predict(best, images, tmp_path / name, **more)
        found = list(table(tmp_path / name)[1].values())
        np.testing.assert_allclose(found, expected, rtol=0.05 if name == "half" else 1e-5)
        assert (np.abs(np.array(found) - expected).max() > 1e-5) == (name == "half")
    assert "warning" not in capsys.readouterr().err
    predict(best, images, tmp_path / "scans_alone", save_probabilities=True)
    assert capsys.readouterr().err == "warning: --save_probabilities has no effect with --n chest\n"


def test_a_store_is_read_as_its_folder(xrays: Path, tmp_path: Path) -> None:
    flags = ("--data", xrays / "data", "--save", tmp_path / "store", "--workers", 1, "--size", 64)
    assert run_preprocess("chest_store", *flags).returncode == 0
    predict(xrays / "out" / "best.pt", tmp_path / "store", tmp_path / "of_store")
    predict(xrays / "out" / "best.pt", xrays / "data", tmp_path / "of_folder")
    of_store, of_folder = table(tmp_path / "of_store")[1], table(tmp_path / "of_folder")[1]
    assert [Path(name).name for name in of_store] == [Path(name).name for name in of_folder]
    np.testing.assert_allclose(list(of_store.values()), list(of_folder.values()), atol=1e-3)


def test_outputs_become_numbers_as_the_checkpoint_says(xrays: Path, tmp_path: Path) -> None:
    logits = np.array([[0.0, 2.0], [-800.0, 1.0]], np.float32)
    np.testing.assert_allclose(as_numbers(logits, "sigmoid"), torch.from_numpy(logits).sigmoid(), atol=1e-7)
    np.testing.assert_allclose(as_numbers(logits, "softmax"), torch.from_numpy(logits).softmax(1), atol=1e-7)
    np.testing.assert_array_equal(as_numbers(logits, "identity"), logits)
    checkpoint = torch.load(xrays / "out" / "best.pt", weights_only=True)
    assert checkpoint["run"]["kind"] == "sigmoid"
    for kind, name in ((None, "earlier"), ("softmax", "one_of_many"), ("identity", "measure")):
        run = {key: value for key, value in checkpoint["run"].items() if key != "kind"}
        torch.save({**checkpoint, "run": run | ({"kind": kind} if kind else {})}, tmp_path / f"{name}.pt")
        predict(tmp_path / f"{name}.pt", xrays / "data" / "images", tmp_path / name)
    earlier, one, measure = (
        np.array(list(table(tmp_path / n)[1].values())) for n in ("earlier", "one_of_many", "measure")
    )
    np.testing.assert_allclose(one.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(earlier, as_numbers(measure, "sigmoid"), atol=1e-6)
    measured = {**checkpoint["run"], "kind": "identity", "mean": 50.0, "scale": 10.0}
    torch.save({**checkpoint, "run": measured}, tmp_path / "age.pt")
    predict(tmp_path / "age.pt", xrays / "data" / "images", tmp_path / "age")
    np.testing.assert_allclose(list(table(tmp_path / "age")[1].values()), 50 + 10 * measure, atol=1e-4)
    torch.save({**checkpoint, "run": {**checkpoint["run"], "kind": "riddle"}}, tmp_path / "riddle.pt")
    with pytest.raises(UserError, match="outputs are of the kind 'riddle'"):
        predict(tmp_path / "riddle.pt", xrays / "data" / "images", tmp_path / "riddle")


def test_candidates_are_scored_with_their_place_and_without_labels(tmp_path: Path) -> None:
    data = tmp_path / "crops"
    lines = ["file,seriesuid,subset,label,coordX,coordY,coordZ"]
    for subset, index in ((s, i) for s in (0, 7, 8) for i in range(4)):
        name = f"subset{subset}/1.{subset}_crop_{index}.npy"
        (data / f"subset{subset}").mkdir(parents=True, exist_ok=True)
        np.save(data / name, np.random.default_rng([subset, index]).random((16, 16, 16), np.float32))
        lines.append(f"{name},1.{subset},{subset},{index % 2},{index}.5,-3,4")
    (data / "labels.csv").write_text("\n".join(lines) + "\n")
    finetune(data, tmp_path / "out", n="nodules", norm="in")
    header, _ = table(tmp_path / "out")
    assert header == ["file", "nodule"]
    predict(tmp_path / "out" / "best.pt", data, tmp_path / "listed")
    with open(tmp_path / "listed" / "predictions.csv", newline="") as file:
        listed = list(csv.DictReader(file))
    assert list(listed[0]) == ["file", "seriesuid", "coordX", "coordY", "coordZ", "nodule"]
    assert (listed[1]["seriesuid"], listed[1]["coordX"]) == ("1.0", "1.5")
    (data / "labels.csv").unlink()
    np.save(data / "subset0" / "1.0_crop_9.npy", np.zeros((8, 8, 8), np.float32))
    with pytest.raises(Unfinished, match="1 of 13 images could not be read"):
        predict(tmp_path / "out" / "best.pt", data, tmp_path / "bare")
    _, rows = table(tmp_path / "bare")
    scores = {row["file"]: [pytest.approx(float(row["nodule"]), abs=1e-6)] for row in listed}
    assert rows == scores
    for row in table(tmp_path / "out")[1].items():
        assert rows[row[0]] == pytest.approx(row[1], abs=1e-6)
    np.save(data / "subset0" / "1.0_crop_9.npy", np.zeros((16, 16, 16), np.float32))
    lines.append("subset0/1.0_crop_9.npy,1.0,0,0,9.5,-3,4")
    (data / "labels.csv").write_text("\n".join(lines) + "\n")  # came later than the first predictions
    predict(tmp_path / "out" / "best.pt", data, tmp_path / "bare")
    with open(tmp_path / "bare" / "predictions.csv", newline="") as file:
        assert [row["coordX"] for row in csv.DictReader(file)] == ["0.5", "1.5", "2.5", "3.5"] * 3 + ["9.5"]
