"""A store belongs to the images that it was made of, not to their names."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.xray.store import Store
from preprocess import chest_store
from utils.errors import UserError


def write(folder: Path, value: int) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((8, 8), value, np.uint8)).save(folder / name)
    return folder


def make(data: Path, save: Path) -> int:
    assert chest_store.main(["--data", str(data), "--save", str(save), "--workers", "1"]) == 0
    return int(Store(save).read(str(save / "b.png")).max())


def test_images_of_the_same_names_from_another_folder(tmp_path: Path) -> None:
    assert make(write(tmp_path / "a", 10), tmp_path / "store") == 10
    with pytest.raises(UserError, match=r"store has another image than \S+other/a\.png by that name"):
        make(write(tmp_path / "other", 20), tmp_path / "store")


def test_images_that_have_changed(tmp_path: Path) -> None:
    data = write(tmp_path / "a", 10)
    assert make(data, tmp_path / "store") == 10
    Image.fromarray(np.full((8, 8), 20, np.uint8)).save(data / "b.png")
    os.utime(data / "b.png", (1, 1))
    with pytest.raises(UserError, match=r"another image than \S+b\.png"):
        make(data, tmp_path / "store")


def test_a_copy_of_the_images_and_a_store_of_an_earlier_version_are_fine(tmp_path: Path) -> None:
    assert make(write(tmp_path / "a", 10), tmp_path / "store") == 10
    copy = write(tmp_path / "copy", 10)
    os.utime(copy / "a.png", (1, 1))
    assert make(copy, tmp_path / "store") == 10
    (tmp_path / "store" / "shard_00000.json").unlink()
    assert make(write(tmp_path / "other", 20), tmp_path / "store") == 10
