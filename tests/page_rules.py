"""What the pages' commands are run with to be small, and how to look at what they have written.

RULES tell it of each kind of command: flags to append (of a flag given twice the last counts), and what to look at.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.conftest import rows

TRAIN = "--workers 0 --ratio 1.0 --log_every 1 --gpus ''"
SMALL_PAIRS = "--input_rows 32 --input_cols 32 --input_deps 16"


@dataclass(frozen=True)
class Command:
    """A command of a page, as words."""

    page: str
    line: int
    words: list[str]

    def value(self, flag: str, default: str = "") -> str:
        """What ``flag`` has in the command."""
        return self.words[self.words.index(flag) + 1] if flag in self.words else default

    @property
    def kind(self) -> str:
        """What RULES knows it by: its script; of main.py the phase as well."""
        words = self.words
        script = next((word for word in words if word.endswith(".py")), " ".join(words[:2]))
        if script != "main.py":
            return script
        return "main.py --preview" if "--preview" in words else f"main.py {self.value('--phase', 'pretask')}"

    @property
    def target(self) -> str:
        """The folder that it writes to."""
        if self.kind == "scripts/report.py":
            return self.words[-1]
        default = "pcrl_output" if self.kind.startswith("main.py") else ""
        return self.value("--save", self.value("--output", default))

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"


def look_at_run(command: Command, folder: Path) -> None:
    """A finished run of pre-training: its checkpoint, its metrics, its pictures."""
    name = f"{command.value('--model', 'pcrl')}_{command.value('--n', 'luna')}"
    paths = folder.glob(f"{name}_pretask_1.0_*.pt")
    path = max(paths, key=lambda path: path.stat().st_mtime)
    checkpoint = torch.load(path, weights_only=True)
    assert all(value.isfinite().all() for value in checkpoint["model"].values())
    for flag in ("--backbone", "--norm", "--lr", "--weight"):
        if flag in command.words:
            assert str(checkpoint["opt"][flag[2:]]) == str(type(checkpoint["opt"][flag[2:]])(command.value(flag)))
    table = rows(folder)
    assert all(math.isfinite(row["loss"]) for row in table if "loss" in row)
    assert any("val_loss" in row for row in table) == ("--val_every" in command.words)
    assert any("probe_linear" in row for row in table) == ("--probe_list" in command.words)
    assert list((folder / "reconstructions").glob("*.png"))


def look_at_pairs(command: Command, folder: Path) -> None:
    """Pairs of the shape that was asked for, with something to see, and their list."""
    kind = "global" if command.value("--recipe") == "pcrlv2" else "img"
    files = sorted(folder.glob(f"subset*/*_{kind}_*.npy"))
    assert files
    sides = "input_rows", "input_cols", "input_deps"
    shape = [int(command.value(f"--{side}", "0")) for side in sides]
    for file in files:
        pair = np.load(file)
        if shape not in ([0, 0, 0], [64, 64, 32]):
            wanted = [side or published for side, published in zip(shape, (64, 64, 32), strict=True)]
            assert pair.shape == (2, *wanted)
        assert pair.std() > 0.01
    assert (folder / "luna_train.txt").read_text()
    assert (folder / "preview.png").exists() == ("--preview" in command.words)


def look_at_pictures(command: Command, folder: Path) -> None:
    """A sheet that is no blank sheet."""
    pixels = np.asarray(Image.open(folder / "views.png").convert("L"))
    assert pixels.std() > 20


def look_at_store(command: Command, folder: Path) -> None:
    """A store with shards."""
    assert any(file.stat().st_size > 1_000 for file in folder.iterdir())


def look_at_weights(command: Command, folder: Path) -> None:
    """Plain weights and their card."""
    (path,) = folder.glob("*.pt")
    assert torch.load(path, weights_only=True)
    assert path.name in (folder / "README.md").read_text()


def look_at_phantoms(command: Command, folder: Path) -> None:
    """Scans, X-rays, or both, as asked for."""
    assert bool(list(folder.glob("LUNA16/subset*/*.mhd"))) == (command.value("--scans") != "0")
    assert bool(list(folder.glob("Chest14/images/*.png"))) == (command.value("--patients") != "0")


def look_at_results(command: Command, folder: Path) -> None:
    """The table's figures: of all classes that have any, a share."""
    results = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert (results["phase"], results["task"]) == (command.value("--phase"), command.value("--n"))
    if "regression" in command.words:
        assert results["mae"] > 0
    else:
        assert 0 <= results["mean_dice" if results["task"] == "msd" else "mean_auroc"] <= 1
    assert (folder / "split_train.csv").exists() == ("--split" in command.words)


def look_at_features(command: Command, folder: Path) -> None:
    """A row for each image."""
    features = np.load(folder / "features.npy")
    assert features.shape[1] == 512 // int(command.value("--narrow", "1"))
    assert features.std() > 0
    assert len((folder / "features.csv").read_text(encoding="utf-8").splitlines()) == 1 + len(features)


def look_at_crops(command: Command, folder: Path) -> None:
    """Crops of the shape that was asked for, and their table."""
    files = sorted(folder.glob("subset*/*.npy"))
    assert len((folder / "labels.csv").read_text(encoding="utf-8").splitlines()) == 1 + len(files) > 1
    assert np.load(files[0]).shape == (32, 32, 16)


def look_at_page(command: Command, folder: Path) -> None:
    """A whole page, with curves."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.endswith("</html>\n")
    assert "<svg" in page


def look_at_predictions(command: Command, folder: Path) -> None:
    """A mask for each scan, or a row of probabilities for each image."""
    if (folder / "predictions.csv").exists():
        header, *table = (folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
        assert header.startswith("file,")
        assert table
        assert all(0 <= float(value) <= 1 for row in table for value in row.split(",")[1:])
        return
    masks = list((folder / "masks").glob("*.nii.gz"))
    assert len(masks) == (1 if "LUNA16" in command.value("--data") else 3)
    probabilities = list(folder.glob("probabilities/*_1.nii.gz"))
    assert len(probabilities) == len(masks) * ("--save_probabilities" in command.words)


@dataclass(frozen=True)
class Rule:
    """``small``: flags to append. ``look``: asserts on what the command left in its target."""

    small: Callable[[Command], str]
    look: Callable[[Command, Path], None]


def small_phantoms(command: Command) -> str:
    scans, patients = (min(int(command.value(flag, "1")), 1) for flag in ("--scans", "--patients"))
    scans = 4 if command.page == "FINETUNING_3D.md" else scans  # three parts, each with a nodule
    return f"--scans {scans} --patients {patients} --xrays_per_patient 1 --size 64 --workers 1"


def small_run(command: Command) -> str:
    epochs = 2 if "--resume" in command.words else 1  # the runs of the sample have one
    more = f" --epochs {epochs} --warmup_epochs 0" + " --val_every 1" * ("--val_every" in command.words)
    more += " --processes 2" * ("ddp" in command.words)
    more += " --size 64" * ("chest" in command.words)
    more += " --weight none" * ({"chest", "pcrlv2"} <= {*command.words})  # else it looks for weights elsewhere
    return f"{TRAIN} {more} --b {2 if {'ddp', 'torchrun', 'pcrlv2'} & {*command.words} else 1}"


def small_pairs(command: Command) -> str:
    published = command.value("--input_rows", "64") == command.value("--input_cols", "64") == "64"
    scale = 2 if command.value("--recipe") == "pcrlv2" else 1  # pairs that a batch of two is made of
    return f"--scale {scale} --workers 1 {SMALL_PAIRS * published}"


def small_task(command: Command) -> str:
    batch = 1 if command.value("--phase") in ("finetune", "linear") else 2
    steps = "--epochs 1 --val_every 1" if batch == 1 else ""
    if command.value("--n") == "msd":
        steps += " --patch 16,16,8 --patches 1 --folds 3" + " --spacing_mm 12,12,12" * ("--spacing_mm" in command.words)
    steps += " --size 64" * ("chest" in command.words)
    return f"--workers 0 --gpus '' --b {batch} {steps}"


RULES = {
    **{f"main.py {phase}": Rule(small_task, look_at_results) for phase in ("finetune", "linear", "knn")},
    "main.py embed": Rule(small_task, look_at_features),
    "main.py predict": Rule(lambda command: "--workers 0 --gpus '' --b 2", look_at_predictions),
    "preprocess/nodule_crops.py": Rule(lambda command: "--workers 1 --max_negatives 2", look_at_crops),
    "main.py pretask": Rule(small_run, look_at_run),
    "main.py --preview": Rule(lambda command: "--preview 1", look_at_pictures),
    "scripts/report.py": Rule(lambda command: "", look_at_page),
    "export.py": Rule(lambda command: "", look_at_weights),
    "preprocess/luna_pre.py": Rule(small_pairs, look_at_pairs),
    "preprocess/chest_store.py": Rule(lambda command: "--workers 1", look_at_store),
    "preprocess/phantoms.py": Rule(small_phantoms, look_at_phantoms),
}
