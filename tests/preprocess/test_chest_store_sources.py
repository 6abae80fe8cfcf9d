"""A store belongs to the images that it was made of, not to their names."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.xray.store import Store
from tests.conftest import run_preprocess


def write(folder: Path, value: int) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((8, 8), value, np.uint8)).save(folder / name)
    return folder


def chest_store(data: Path, save: Path) -> subprocess.CompletedProcess[str]:
    return run_preprocess("chest_store", "--data", data, "--save", save, "--workers", 1)


def make(data: Path, save: Path) -> int:
    assert chest_store(data, save).returncode == 0
    return int(Store(save).read(str(save / "b.png")).max())


def test_images_of_the_same_names_from_another_folder(tmp_path: Path) -> None:
    assert make(write(tmp_path / "a", 10), tmp_path / "store") == 10
    refused = chest_store(write(tmp_path / "other", 20), tmp_path / "store")
    assert refused.returncode == 2
    assert re.search(r"store has another image than \S+other/a\.png by that name", refused.stderr)


def test_images_that_have_changed(tmp_path: Path) -> None:
    data = write(tmp_path / "a", 10)
    assert make(data, tmp_path / "store") == 10
    Image.fromarray(np.full((8, 8), 20, np.uint8)).save(data / "b.png")
    os.utime(data / "b.png", (1, 1))
    refused = chest_store(data, tmp_path / "store")
    assert refused.returncode == 2
    assert re.search(r"another image than \S+b\.png", refused.stderr)


def test_a_copy_of_the_images_and_a_store_of_an_earlier_version_are_fine(tmp_path: Path) -> None:
    assert make(write(tmp_path / "a", 10), tmp_path / "store") == 10
    copy = write(tmp_path / "copy", 10)
    os.utime(copy / "a.png", (1, 1))
    assert make(copy, tmp_path / "store") == 10
    (tmp_path / "store" / "shard_00000.json").unlink()
    assert make(write(tmp_path / "other", 20), tmp_path / "store") == 10
