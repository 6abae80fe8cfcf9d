"""Segmentation from files to a table, by the command's own code."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from datasets.segmentation.files import Description, find_cases
from options import Options
from tasks.msd import Scores, build_msd, choose_cases, class_names, make_recipe, read_data, warn_of_absent
from tests.conftest import run_main
from training.devices import Devices
from utils.errors import UserError
from utils.process_group import SINGLE

SIDE = 16
TINY = {"n": "msd", "patch": "16,16,16", "b": 2, "workers": 0, "gpus": "", "optimizer": "adamw", "norm": "in"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two volumes with two boxes each, and copies of both to choose the epoch and to test with."""
    data = tmp_path_factory.mktemp("msd")
    for number in range(6):
        label = np.zeros((SIDE,) * 3, np.uint8)
        label[2:9, 3:10, 4:12], label[9:14, 6:13, 5:13] = 1, 2
        label = label if number % 2 else label[::-1, :, ::-1]
        noise = np.random.default_rng(number % 2).normal(0, 10, label.shape)
        for folder, voxels in (("imagesTr", np.array([40, 200, 120])[label] + noise), ("labelsTr", label)):
            (data / folder).mkdir(exist_ok=True)
            image = sitk.GetImageFromArray(np.ascontiguousarray(voxels))
            sitk.WriteImage(image, str(data / folder / f"case_{number}.nii.gz"))
    content = {"labels": {"0": "background", "1": "front", "2": "back"}, "modality": {"0": "MRI"}}
    (data / "dataset.json").write_text(json.dumps(content))
    names = [f"case_{number}" for number in range(6)]
    (data / "splits.json").write_text(json.dumps([{"train": names[:2], "val": names[2:4], "test": names[4:]}]))
    return data


def test_two_volumes_are_learnt_and_a_frozen_encoder_stays(data: Path, tmp_path: Path) -> None:
    common = ["--data", data, "--split", data / "splits.json", "--gpus", ","]
    common += [word for name, value in TINY.items() if name != "gpus" for word in (f"--{name}", value)]
    learnt = run_main(
        *common,
        *("--phase", "finetune", "--epochs", 12, "--patches", 4, "--lr", 2e-2, "--val_every", 12),
        *("--output", tmp_path / "all"),
    )
    assert learnt.returncode == 0, learnt.stderr
    results = json.loads((tmp_path / "all" / "metrics.json").read_text())
    assert list(results["dice"]) == ["front", "back", "mean"]
    assert results["mean_dice"] == pytest.approx((results["dice"]["front"] + results["dice"]["back"]) / 2)
    assert results["mean_dice"] > 0.95
    assert set(results["by_volume"]) == {"case_4", "case_5"}
    assert np.mean([row["front"] for row in results["by_volume"].values()]) == pytest.approx(results["dice"]["front"])

    weight = tmp_path / "all" / "best.pt"
    flags = ("--phase", "linear", "--epochs", 1, "--patches", 1, "--lr", 1e-3, "--weight", weight)
    frozen = run_main(*common, *flags, "--output", tmp_path / "linear")
    assert frozen.returncode == 0, frozen.stderr
    before, after = (torch.load(tmp_path / run / "best.pt", weights_only=True)["model"] for run in ("all", "linear"))
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith("down_tr")} <= same
    assert not any(name.endswith("conv1.weight") for name in same if name.startswith("up_tr"))


def test_cases_of_a_fold(data: Path) -> None:
    cases = find_cases(data)
    options = Options(phase="finetune", data=str(data), folds=3, fold=1, train_cases=2, **TINY)
    split = choose_cases(options, cases)
    assert (len(split.train), len(split.valid), len(split.test)) == (2, 1, 2)
    everything = choose_cases(Options(phase="finetune", data=str(data), folds=3, fold=1, **TINY), cases)
    assert split.train == everything.train[:2]
    with pytest.raises(UserError, match="--train_cases 9: this split has 3"):
        choose_cases(Options(phase="finetune", data=str(data), folds=3, fold=1, train_cases=9, **TINY), cases)


def test_windows_and_spacing_of_the_recipe(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = find_cases(data)
    plain = Options(phase="finetune", data=str(data), **TINY)
    ct = Options(phase="finetune", data=str(data), modality="ct", hu_min=-500, spacing_mm="2,2,3", **TINY)
    assert make_recipe(plain, Description(is_ct=[True]), cases).windows == ((-1000.0, 1000.0),)
    assert make_recipe(plain, Description(is_ct=[False]), cases).windows == (None,)
    assert make_recipe(plain, Description(), cases).spacing_mm == (1, 1, 1)
    recipe = make_recipe(ct, Description(is_ct=[False]), cases)
    assert (recipe.windows, recipe.spacing_mm) == (((-500.0, 1000.0),), (2, 2, 3))
    assert "warning" not in capsys.readouterr().err
    asked = Options(phase="finetune", data=str(data), hu_max=240, **TINY)
    assert make_recipe(asked, Description(is_ct=[False]), cases).windows == (None,)
    assert "warning: --hu_min and --hu_max have no effect: no channel is CT" in capsys.readouterr().err
    with pytest.raises(UserError, match="lists 2 channel"):
        make_recipe(plain, Description(is_ct=[False, False]), cases)


def test_a_cache_that_cannot_be_made_is_one_line(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = Options(phase="finetune", data=str(data), cache=str(tmp_path / "file"), folds=3, **TINY)
    with pytest.raises(UserError, match=r"^--cache .*file: .*; give a folder that can be written to$"):
        read_data(options)


def test_a_deepest_map_of_one_voxel_needs_more_than_one_patch(data: Path) -> None:
    flags = {**TINY, "patch": "8,8,8", "b": 1, "norm": "bn", "folds": 3}
    message = r"^--patch 8,8,8: the deepest map is one voxel, which --norm bn cannot normalise in a batch of one patch"
    with pytest.raises(UserError, match=message):
        build_msd(Options(phase="finetune", data=str(data), **flags), Devices("", None), SINGLE)


def test_a_single_volume_has_no_deviation() -> None:
    two = Scores(["front"], {"a": [0.5], "b": [0.7]}, [True]).results().table.splitlines()
    assert two[0].startswith("2 test volumes ")
    assert two[1].split() == ["front", "0.6000", "0.1000", "0.500", "..", "0.700"]
    one = Scores(["front"], {"a": [0.5]}, [True]).results().table.splitlines()
    assert one[0].startswith("1 test volume ")
    assert one[1].split() == ["front", "0.5000", "-"]
    assert len({len(line) for line in one}) == 1, "columns are straight"


def test_a_class_that_is_nowhere_is_said_and_not_in_the_mean(capsys: pytest.CaptureFixture[str]) -> None:
    volume = SimpleNamespace(truth=np.array([0, 1, 3]))
    warn_of_absent(["a", "b", "c"], {"training": [volume], "test": [volume]})  # type: ignore[arg-type]
    told = capsys.readouterr().err
    assert "no training volume has a voxel of b\n" in told
    assert "no test volume has a voxel of b; its mean Dice leaves them out\n" in told
    found = Scores(["a", "b", "c"], {"x": [0.5, 1.0, 0.7]}, [True, False, True]).results().values
    assert found["mean_dice"] == pytest.approx(0.6)
    assert list(found["dice"]) == ["a", "c", "mean"]
    with pytest.raises(UserError, match="all labels of the test volumes are background"):
        warn_of_absent(["a"], {"test": [SimpleNamespace(truth=np.array([0]))]})  # type: ignore[list-item]


def test_names_of_classes() -> None:
    volumes = [SimpleNamespace(truth=np.array([0, top])) for top in (2, 1)]
    assert class_names(Description(), volumes) == ["class 1", "class 2"]  # type: ignore[arg-type]
    assert class_names(Description(["a", "b", "c"]), volumes) == ["a", "b", "c"]  # type: ignore[arg-type]
    gap = [SimpleNamespace(truth=np.array([0, 255]))]
    with pytest.raises(
        UserError, match=r"the labels have the values 0, 255: number the classes 0 \(background\), 1, 2"
    ):
        class_names(Description(), gap)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="has the class 2, but"):
        class_names(Description(["a"]), volumes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"patch": "16,16"}, "--patch 16,16: give three numbers"),
        ({"patch": "16,16,12"}, "multiples of 8"),
        ({"spacing_mm": "1,0,1"}, "must be three numbers above 0"),
        ({"spacing_mm": "nan,1,1"}, "must be three numbers above 0"),
        ({"spacing_mm": "inf,1,1"}, "must be three numbers above 0"),
        ({"folds": 1}, "--folds 1: must be 2 or more"),
        ({"hu_min": 5, "hu_max": 5}, "--hu_min must be less than --hu_max"),
        ({"modality": "us"}, "--modality us is not known"),
    ],
)
def test_bad_flags_are_refused(flags: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Options(data="x", n="msd", phase="finetune", **flags)  # type: ignore[arg-type]
