"""Every flag in every phase: the run looks at it, or it is warned of or refused by name."""

from __future__ import annotations

import dataclasses
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from methods import METHODS
from options import NO_EFFECT, PHASES, Options
from options.command_line import parse_options
from phases import phase as work_of
from tests.conftest import ROOT, write_pairs, write_xrays
from training.devices import Devices
from utils.errors import UserError
from utils.process_group import SINGLE

FLAGS = [field.name for field in dataclasses.fields(Options)]
READ_BY_MAIN = set(re.findall(r"options\.(\w+)", (ROOT / "main.py").read_text()))
READ_BY_METHODS = {name for spec in METHODS.values() for name in spec.flags}  # in pre-training
VALUES = {  # of flags whose other values do not fit every run
    "model": "pcrl",
    "norm": "bn",
    "backbone": "resnet18",
    "parallel": "dp",
    "gpus": "",
    "train_list": "none",
    "patch": "8,8,8",
    "spacing_mm": "1,1,1",
    "split": "70,10,20",
    "accumulate": "1",
    "d": "",
    "size": "",
    "weight": "w.pt",
    "output": "out",
    "data": "d",
    "resume": "none",
    "phase": "",
    "n": "",
}
looked_at: set[str] = set()


class Settings(dict[str, Any]):
    """Options as a dict that notes what is read; in a file it is a plain one."""

    def __getitem__(self, name: str) -> Any:
        looked_at.add(name)
        return super().__getitem__(name)

    def __reduce__(self) -> Any:
        return OrderedDict, (), None, None, iter(self.items())


class Watched(Options):
    """Options that note which of them a run reads; checking them at the start is no reading."""

    def __post_init__(self) -> None:
        former = set(looked_at)
        super().__post_init__()
        looked_at.intersection_update(former)

    def __getattribute__(self, name: str) -> Any:
        looked_at.add(name)
        return super().__getattribute__(name)

    def plain(self) -> dict[str, Any]:
        former = set(looked_at)
        plain = Settings(super().plain())
        looked_at.intersection_update(former)
        return plain


def labelled(folder: Path) -> Path:
    write_xrays(folder, count=6, size=64)
    for name, numbers in (("train", (1, 2)), ("valid", (3, 4)), ("test", (5, 6))):
        (folder / f"chest_{name}.txt").write_text("".join(f"{i:08d}_000.png {i % 2}\n" for i in numbers))
    return folder


def nodules(folder: Path) -> Path:
    lines = ["file,seriesuid,subset,label"]
    folder.mkdir()
    for subset, label in ((s, k) for s in (0, 7, 8) for k in (0, 1)):
        np.save(folder / f"{subset}_{label}.npy", np.full((16, 16, 16), 0.5, np.float32))
        lines.append(f"{subset}_{label}.npy,1.{subset},{subset},{label}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def volumes(folder: Path) -> Path:
    for number in range(3):
        for part, voxels in (("imagesTr", np.random.default_rng(0).random((8, 8, 8))), ("labelsTr", np.eye(8) > 0)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            array = np.broadcast_to(voxels, (8, 8, 8)).astype(np.float32 if part == "imagesTr" else np.uint8)
            sitk.WriteImage(sitk.GetImageFromArray(array.copy()), str(folder / part / f"case_{number}.nii.gz"))
    return folder


MAKERS = {"luna": write_pairs, "chest": labelled, "nodules": nodules, "msd": volumes}
RUN = [("pretask", "chest"), ("finetune", "msd"), ("linear", "chest"), ("knn", "nodules"), ("embed", "chest")]
RUN += [("predict", "chest")]
NEEDED = {"predict": ["--weight", "w.pt"]}  # in a phase


@pytest.fixture(autouse=True)
def nothing_seen_before() -> None:
    looked_at.clear()


def warned_or_refused(name: str, phase: str, n: str) -> bool:
    """Whether the command line names the flag when it is given here."""
    default = getattr(Options(data="x"), name)
    words = [f"--{name}"] if isinstance(default, bool) else [f"--{name}", VALUES.get(name, str(default)) or "1"]
    try:
        _, warnings = parse_options(["--data", "x", "--n", n, "--phase", phase, *NEEDED.get(phase, ()), *words])
    except UserError as error:
        return f"--{name}" in str(error)
    return any(f"--{name} " in warning for warning in warnings)


@pytest.mark.parametrize(("phase", "n"), RUN)
def test_no_flag_is_ignored_in_silence(phase: str, n: str, tmp_path: Path) -> None:
    data = MAKERS[n](tmp_path / "data")
    flags: dict[str, Any] = {
        "phase": phase,
        "n": n,
        "data": str(data),
        "ratio": 1.0,
        "output": str(tmp_path / "out"),
        "b": 2,
    }
    flags |= {"workers": 0, "gpus": "", "epochs": 1, "folds": 3, "patch": "8,8,8"}
    flags |= {"size": 64 if n == "chest" else 0, "moco_k": 16, "without": "mixup,gate" if phase == "pretask" else ""}
    if phase == "predict":
        tuned = Options(**{**flags, "phase": "finetune", "output": str(tmp_path / "tuned")})
        work_of("finetune")(tuned, Devices("", None), SINGLE)
        flags |= {"weight": str(tmp_path / "tuned" / "best.pt")}
    work_of(phase)(Watched(**flags), Devices("", None), SINGLE)
    seen = looked_at | READ_BY_MAIN | (READ_BY_METHODS if phase == "pretask" else set())
    silent = [name for name in FLAGS if name not in seen and not warned_or_refused(name, phase, n)]
    assert silent == []


def test_the_flags_of_the_published_code_that_do_nothing_are_warned_of() -> None:
    for phase, names in PHASES.items():
        for name in NO_EFFECT:
            words = [*NEEDED.get(phase, ()), "--n", names[0], f"--{name}", "1"]
            _, warnings = parse_options(["--data", "x", "--phase", phase, *words])
            assert f"--{name} has no effect in {phase}" in warnings
