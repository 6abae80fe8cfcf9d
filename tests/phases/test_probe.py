"""The probe while pre-training: what it finds, that it changes no bit, what best.pt is, resumption, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import Ridge

from options import Options
from options.command_line import parse_options
from phases import phase
from phases.probe import STRENGTHS, linear_scores
from tests.conftest import write_pairs, write_xrays
from training.devices import Devices
from training.reporting.reporter import _cut_rows
from utils.errors import UserError
from utils.process_group import SINGLE

SMALL: dict[str, Any] = {"n": "chest", "size": 64, "narrow": 8, "b": 4, "workers": 0, "gpus": "", "moco_k": 32}
SMALL |= {"train_list": "none", "ratio": 1.0, "epochs": 2, "without": "mixup", "log_every": 1, "image_every": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight X-rays of four patients to train on are sixteen of eight to probe by; those that are ill are bright."""
    folder = write_xrays(tmp_path_factory.mktemp("data"), count=16, size=64)
    lines = ["image,patient_id,ill,none,age\n"]
    for n in range(16):
        path = folder / "images" / f"{n + 1:08d}_000.png"
        pixels = np.asarray(Image.open(path)) // 4 + 128 * (n % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        lines.append(f"{path.name},{n // 2},{n % 2},0,{30 + n}\n")
    (folder / "probe.csv").write_text("".join(lines))
    return folder


def pretrain(data: Path, output: Path, **flags: object) -> list[dict[str, Any]]:
    """A run's rows of metrics.jsonl."""
    options = Options(data=str(data), output=str(output), **{**SMALL, **flags})
    phase("pretask")(options, Devices("", None), SINGLE)
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def state(output: Path) -> dict[str, Any]:
    return torch.load(output / "last.pt", weights_only=True)


def same(one: Any, other: Any) -> bool:
    """Whether two nested containers have the same bits."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


PROBED = ("probe_knn", "probe_linear")


def test_it_changes_no_bit_and_tells_what_is_learned(data: Path, tmp_path: Path) -> None:
    plain = pretrain(data, tmp_path / "plain")
    probed = pretrain(data, tmp_path / "probed", probe_list=str(data / "probe.csv"), probe_every=1)
    one, other = state(tmp_path / "plain"), state(tmp_path / "probed")
    for key in ("model", "model_ema", "contrast", "optimizer", "torch_rng"):
        assert same(one[key], other[key]), key
    found = [row for row in probed if "probe_linear" in row]
    assert [(row["epoch"], row["step"]) for row in found] == [(0, 0), (1, 4), (2, 8)]
    assert all(row["probe_linear"] == row["probe_linear/ill"] > 0.9 for row in found), "a bright image is easy to tell"
    assert all(0 <= row["probe_knn"] <= 1 for row in found)
    assert "probe_linear/none" not in found[0], "a class without positives has no AUROC"
    losses = [[row["loss"] for row in rows if "loss" in row] for rows in (plain, probed)]
    assert losses[0] == losses[1]


def test_resumed_it_is_the_run_that_never_stopped(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"probe_list": str(data / "probe.csv"), "probe_every": 1, "keep": "best-probe", "target": "regression"}
    flags |= {"label_column": "age", "save_every": 1}
    whole = pretrain(data, tmp_path / "whole", **flags)
    (told,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("best.pt: ")]
    first = tmp_path / "whole" / "pcrl_chest_pretask_1.0_1.pt"
    rows = pretrain(data, tmp_path / "again", resume=str(first), **flags)
    results = [
        [{key: row[key] for key in ("epoch", *PROBED)} for row in run if "probe_knn" in row] for run in (whole, rows)
    ]
    assert results[1] == results[0][2:]
    assert same(state(tmp_path / "whole")["model"], state(tmp_path / "again")["model"])
    best = torch.load(tmp_path / "whole" / "best.pt", weights_only=True)
    errors = {row["epoch"]: row["probe_linear"] for row in results[0][1:]}
    assert told.startswith(f"best.pt: epoch {best['epoch']}, probe linear {best['best']:.3f}")
    assert ("; the untrained network had" in told) == (results[0][0]["probe_linear"] < best["best"])
    assert (best["epoch"], best["best"]) == (min(errors, key=lambda epoch: errors[epoch]), min(errors.values()))
    with pytest.raises(UserError, match="--keep best-probe, not best-loss; give the same values again"):
        pretrain(data, tmp_path / "other", resume=str(first))


def test_a_new_run_keeps_no_row_of_a_former_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    written = '{"epoch": 0, "step": 0, "probe_linear": 0.5}\n{"epoch": 1, "step": 3, "loss": 1.0}\n'
    for done, kept in ((0, 0), (2, 1), (3, 2)):
        path.write_text(written)
        _cut_rows(path, done, within_epoch=False)
        assert len(path.read_text().splitlines()) == kept


@pytest.mark.parametrize("model", ["pcrl", "pcrlv2"])
def test_crops_in_3d(model: str, tmp_path: Path) -> None:
    from tests.test_flags_in_phases import nodules

    crops = nodules(tmp_path / "crops")
    pairs = write_pairs(tmp_path / "pairs", scans=2)
    if model == "pcrlv2":
        for path in sorted(pairs.glob("subset*/*_img_*.npy")):
            np.save(path.with_name(path.name.replace("_img_", "_local_")), np.full((6, 16, 16, 16), 0.5, np.float32))
            path.rename(path.with_name(path.name.replace("_img_", "_global_")))
    flags = {"n": "luna", "size": 0, "train_list": "", "epochs": 1, "model": model, "without": "", "b": 2}
    rows = pretrain(pairs, tmp_path / "out", probe_data=str(crops), probe_every=1, **flags)
    assert [row["epoch"] for row in rows if "probe_linear" in row] == [0, 1]


def test_the_linear_fit_is_the_ridge_of_the_best_strength() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 7)).astype(np.float32) * 5 + 3
    features[:, 6] = 2
    labels = (features[:, :2] @ [[1, 0], [1, 1]] + rng.normal(size=(40, 2)) > 7).astype(np.float32)
    labels[:5, 1] = np.nan
    queries = rng.normal(size=(6, 7))
    found = linear_scores(features, labels, queries)
    spread = np.where(features.std(axis=0) > 0, features.std(axis=0), 1)
    for column, rows in ((0, np.arange(40)), (1, np.arange(5, 40))):
        inputs = ((features - features.mean(axis=0)) / spread)[rows]
        targets = labels[rows, column]
        errors = []
        for strength in STRENGTHS:  # leaving each out, one at a time
            left_out = [
                Ridge(alpha=strength).fit(np.delete(inputs, row, 0), np.delete(targets, row)).predict(inputs[[row]])[0]
                for row in range(len(rows))
            ]
            errors.append(np.mean((left_out - targets) ** 2))
        best = Ridge(alpha=STRENGTHS[int(np.argmin(errors))]).fit(inputs, targets)
        expected = best.predict((queries - features.mean(axis=0)) / spread)
        np.testing.assert_allclose(found[:, column], expected, atol=1e-4)
    assert (linear_scores(features, np.ones((40, 1), np.float32), queries) == 1).all()


HEAD = "image,patient,split,ill\n"
ROWS = "".join(f"{n + 1:08d}_000.png,{n},{'train' if n < 3 else 'test'},{n % 2}\n" for n in range(6))


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        (HEAD + ROWS, {"label_column": "b"}, "--label_column b: the table .* has no such column"),
        (HEAD + ROWS, {"label_column": "split,ill"}, "the column split has 'train', which must be 0, 1"),
        (HEAD + ROWS.replace(",4,test", ",0,test"), {}, "patient 0 is in both the train rows of .* and the other rows"),
        (HEAD + ROWS.replace(",1\n", ",0\n"), {}, "probe's training images: no class has both positives and negatives"),
        ("image,patient,ill\n00000001_000.png,1,0\n00000002_000.png,1,1\n", {}, "images of 1 patient; 2 parts need"),
        (
            "image,ill\na.png,0\nb.png,1\n",
            {},
            "2 of the 2 images that .* names are not in .*take those out of the list",
        ),
        ("image,ill\n", {}, "has a header and no rows"),
    ],
)
def test_lists_that_tell_nothing_are_refused(
    text: str, flags: dict[str, str], message: str, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        pretrain(data, tmp_path / "out", probe_list=str(tmp_path / "bad.csv"), **flags)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--n chest --probe_every 2", "--probe_every 2: probes need labels; give --probe_list"),
        ("--n luna --probe_every 2", "--probe_every 2: probes need labels; give --probe_data"),
        ("--n chest --probe_list x --probe_every 0", "--probe_list x: --probe_every 0 switches probes off"),
        ("--n chest --keep best-probe", "--keep best-probe: the run has no probe; give --probe_list"),
        ("--n chest --keep best", "--keep best is not known; choose from best-loss, best-probe"),
        (
            "--n chest --label_column a",
            "--label_column: pre-training reads labels only for a probe; give a --probe_list",
        ),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_options(["--data", "x", *flags.split()])
    assert parse_options(["--data", "x", "--n", "chest", "--probe_list", "y"])[0].probe_every == 5
    assert parse_options(["--data", "x", "--n", "chest"])[0].probe_every == 0


def test_patience_without_results_has_no_effect_as_published() -> None:
    _, warnings = parse_options(["--data", "x", "--n", "chest", "--patience", "3"])
    (told,) = warnings
    assert told.startswith("--patience 3 has no effect without results on held-out data; give --val_every N")
    for more in (["--val_every", "5"], ["--probe_list", "y", "--keep", "best-probe"]):
        assert not parse_options(["--data", "x", "--n", "chest", "--patience", "3", *more])[1]
