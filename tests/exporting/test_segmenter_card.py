"""The card of an exported segmenter is enough to get the run's own Dice."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from export import export
from tests.conftest import FULL, run_main

SIZE, SPACING = (20, 18, 28), (1.5, 1.0, 1.25)  # of x, y, z in LPS
STORED = "PIR"  # the orientation of the files: other axes, other directions
CLASSES = ["left", "right"]  # so that training does not mirror, and an orientation that is wrong shows


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training on a CT and an MR channel; in its folder ``data`` and ``out``."""
    folder = tmp_path_factory.mktemp("segmenter")
    data, rng = folder / "data", np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr"):
        (data / part).mkdir(parents=True)
    for number in range(3):
        label = np.zeros(SIZE, np.uint8)
        a, b, c = rng.integers(0, 3, 3)
        label[11 + a : 17 + a, 3 + b : 12 + b, 5 + c : 18 + c], label[3 + b : 8 + b, 4 + a : 13 + a, 8 + c : 22 + c] = (
            1,
            2,
        )
        hu = np.array([-900.0, 60.0, 60.0])[label] + rng.normal(0, 40, SIZE)  # both classes look alike
        mr = 300 + 5.0 * np.arange(SIZE[0])[:, None, None] + 200 * (label > 0) + rng.normal(0, 40, SIZE)
        for name, voxels in ((f"imagesTr/case_{number}_0000", hu), (f"imagesTr/case_{number}_0001", mr)):
            write(data / f"{name}.nii.gz", voxels.astype(np.float32))
        write(data / f"labelsTr/case_{number}.nii.gz", label)
    content = {"labels": {"background": 0, "left": 1, "right": 2}, "channel_names": {"0": "CT", "1": "MRI"}}
    (data / "dataset.json").write_text(json.dumps(content))
    names = [f"case_{number}" for number in range(3)]
    (data / "splits.json").write_text(json.dumps([{"train": names[:1], "val": names[1:2], "test": names[2:]}]))
    flags = ("--data", data, "--n", "msd", "--phase", "finetune", "--split", data / "splits.json", "--norm", "in")
    flags += ("--patch", "16,16,8", "--b", 2, "--optimizer", "adamw", "--lr", 2e-3, "--epochs", 3, "--val_every", 3)
    flags += ("--patches", 4, "--hu_min", -1000, "--hu_max", 300, "--spacing_mm", "1.25,1.25,1.25", "--workers", 0)
    done = run_main(*FULL, *flags, "--gpus", "", "--output", folder / "out")
    assert done.returncode == 0, done.stderr
    return folder


def write(path: Path, voxels: np.ndarray) -> None:
    """``voxels``: in LPS; the file has STORED."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    image.SetSpacing(SPACING)
    image.SetOrigin((-30.0, 12.0, 5.0))
    sitk.WriteImage(sitk.DICOMOrient(image, STORED), str(path))


def code_of(card: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return code


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def test_the_code_of_the_card_gives_the_runs_own_dice(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights"
    export(run / "out/best.pt", weights, None, teacher=False)
    for channel in range(2):
        shutil.copyfile(run / f"data/imagesTr/case_2_000{channel}.nii.gz", weights / f"scan_000{channel}.nii.gz")
    monkeypatch.chdir(weights)
    monkeypatch.syspath_prepend(str(weights))
    monkeypatch.delitem(sys.modules, "unet3d", raising=False)
    names: dict[str, Any] = {}
    exec(code_of((weights / "README.md").read_text()), names)
    assert names["CLASSES"] == ["background", *CLASSES]

    mask, truth = sitk.ReadImage("mask.nii.gz"), sitk.ReadImage(str(run / "data/labelsTr/case_2.nii.gz"))
    assert mask.GetSize() == truth.GetSize()
    assert np.allclose(mask.GetDirection(), truth.GetDirection())
    assert np.allclose(mask.GetOrigin(), truth.GetOrigin())
    found, true = (sitk.GetArrayFromImage(image) for image in (mask, truth))
    results = json.loads((run / "out/metrics.json").read_text())["by_volume"]["case_2"]
    for number, name in enumerate(CLASSES, 1):
        assert 0.1 < results[name] < 1, "a mask of nothing or of everything would prove nothing"
        assert dice(found == number, true == number) == pytest.approx(results[name], abs=1e-3)


def test_the_card_lists_what_a_volume_needs(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(run / "out/best.pt", tmp_path / "weights", None, teacher=False)
    said = capsys.readouterr().out.splitlines()[-1]
    files = [file.name for file in (tmp_path / "weights").iterdir()]
    assert all(name in said for name in files)
    assert len(files) == 4
    card = (tmp_path / "weights/README.md").read_text()
    for fact in (
        "| channel 0 | CT: -1000..300 HU become 0..1",
        "| channel 1 | MR: the percentiles 0.5 and 99.5 of the resampled volume",
        "| orientation | LPS: x from the patient's right to left",
        "| spacing | 1.25 x 1.25 x 1.25 mm",
        "| patch | 16 x 16 x 8 voxels",
        "| classes | 0 background, 1 left, 2 right |",
        "overlap by 0.5 of their length",
    ):
        assert fact in card, fact
    assert ".encode(" not in card
