"""A small segmenter, trained once, on scans that are stored in another orientation than the network sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from options import Options
from phases import phase
from training.devices import Devices
from utils.process_group import SINGLE

CLASSES = ["front", "back"]
SIZE = (20, 18, 24)  # of x, y, z as stored
AFFINE = np.array([[0.0, 1.2, 0.1, -30.0], [0.0, -0.1, 1.3, 12.0], [-1.5, 0.0, 0.0, 5.0], [0, 0, 0, 1]])
FLAGS: dict[str, Any] = {"n": "msd", "patch": "16,16,16", "b": 4, "workers": 0, "gpus": "", "norm": "in", "narrow": 8}
FLAGS |= {"optimizer": "adamw", "lr": 5e-3, "patches": 4, "mirror": "on"}


def straightened() -> np.ndarray:
    """AFFINE with axes at right angles."""
    steps = np.linalg.norm(AFFINE[:3, :3], axis=0)
    left, _, right = np.linalg.svd(AFFINE[:3, :3] / steps)
    affine = AFFINE.copy()
    affine[:3, :3] = left @ right * steps
    return affine


def case(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of two boxes of different brightness."""
    rng = np.random.default_rng(number)
    label = np.zeros(SIZE, np.uint8)
    a, b, c = rng.integers(0, 3, 3)
    label[3 + a : 9 + a, 3 + b : 12 + b, 5 + c : 18 + c], label[9 + a : 16 + a, 4 + b : 13 + b, 8 + c : 20 + c] = 1, 2
    return (np.array([40.0, 200.0, 120.0])[label] + rng.normal(0, 10, SIZE)).astype(np.float32), label


def write_scan(path: Path, voxels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, straightened()), path)
    return path


def train(folder: Path, seed: int = 0, epochs: int = 6) -> Path:
    """A run in ``folder``/``out<seed>``, of data in ``folder``/``data``: two cases to train on, two to test."""
    data = folder / "data"
    names = [f"case_{number}" for number in range(5)]
    if not data.exists():
        for number, name in enumerate(names):
            for part, voxels in zip(("imagesTr", "labelsTr"), case(number), strict=True):
                write_scan(data / part / f"{name}.nii.gz", voxels)
        labels = {"background": 0, **{name: number for number, name in enumerate(CLASSES, 1)}}
        (data / "dataset.json").write_text(json.dumps({"labels": labels, "channel_names": {"0": "MRI"}}))
        split = [{"train": names[:2], "val": names[2:3], "test": names[3:]}]
        (data / "splits.json").write_text(json.dumps(split))
    output, spacing = folder / f"out{seed}", "1.25,1.25,1.25" if seed else "1.4,1.3,1.2"
    more: dict[str, Any] = {"split": str(data / "splits.json"), "spacing_mm": spacing, "seed": seed}
    options = Options(
        phase="finetune", data=str(data), epochs=epochs, val_every=epochs, output=str(output), **FLAGS, **more
    )
    phase("finetune")(options, Devices("", None), SINGLE)
    return output


def predict(weight: Path | str, data: Path, output: Path, **flags: Any) -> None:
    """``--phase predict`` in this process."""
    flags = {"gpus": "", "workers": 0, "b": 4, **flags}
    options = Options(phase="predict", weight=str(weight), data=str(data), output=str(output), **flags)
    phase("predict")(options, Devices("", None), SINGLE)
