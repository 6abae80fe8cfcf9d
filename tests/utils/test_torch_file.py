"""Loading runs nobody's code, and damaged files are named in one line."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from utils import torch_file
from utils.errors import UserError


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


def test_hostile_pickle_is_refused_without_running(tmp_path: Path) -> None:
    target = tmp_path / "made by the pickle"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "opt": Hostile(target)}, tmp_path / "hostile.pt")
    with pytest.raises(UserError, match=r"hostile\.pt: refused"):
        torch_file.load(tmp_path / "hostile.pt")
    assert not target.exists()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    good = tmp_path / "good.pt"
    torch_file.save(good, {"a": torch.arange(1000.0)})
    assert torch.equal(torch_file.load(good)["a"], torch.arange(1000.0))
    content = good.read_bytes()
    cut, other = "cannot be read, it is cut short or damaged", "cannot be read: not a checkpoint written by torch.save"
    damaged = {
        "empty.pt": (b"", "is empty: it has 0 bytes"),
        "half.pt": (content[: len(content) // 2], cut),
        "no_tail.pt": (content[:-30], cut),
        "zeros.pt": (bytes(100), other),
        "store.json": (b'{"format": 1}', other),
    }
    for name, (data, words) in damaged.items():
        (tmp_path / name).write_bytes(data)
        for read in (torch_file.load, torch_file.check):
            with pytest.raises(UserError) as error:
                read(tmp_path / name)
            assert str(error.value).startswith(f"{tmp_path / name}: {words}")
            assert "\n" not in str(error.value)
            assert "PyTorch" not in str(error.value)
    with pytest.raises(UserError, match=r"missing\.pt: no such file"):
        torch_file.load(tmp_path / "missing.pt")
    with pytest.raises(UserError):
        torch_file.load(tmp_path)


def test_save_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    torch_file.save(path, {"a": torch.zeros(1)})
    with pytest.raises(Exception, match="pickle"):
        torch_file.save(path, {"a": lambda: None})
    assert torch.equal(torch_file.load(path)["a"], torch.zeros(1))
    assert os.listdir(tmp_path) == ["file.pt"], "no temporary file stays behind"


@pytest.mark.parametrize("zipped", [True, False])
def test_numpy_numbers_are_let_in_and_nothing_else_of_it(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "file.pt"
    numbers = {"a": np.float64(0.1), "b": np.float32(0.1), "c": np.int64(-3), "d": np.bool_(True), "e": np.uint8(7)}
    torch.save({"numbers": numbers}, path, _use_new_zipfile_serialization=zipped)
    loaded = torch_file.load(path)["numbers"]
    assert loaded == {name: number.item() for name, number in numbers.items()}
    assert {type(value) for value in loaded.values()} == {float, int, bool}, "plain Python numbers"

    for foreign, name in ((np.zeros(3), "_reconstruct"), (Path("x"), "Path"), (Hostile(tmp_path / "made"), "mkdir")):
        torch.save({"state_dict": {"a": torch.zeros(1)}, "extra": foreign}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(UserError, match=rf"file\.pt: refused.*it holds a \S*{name}"):
            torch_file.load(path)
    assert not (tmp_path / "made").exists()


def test_numpy_number_from_an_older_numpy(tmp_path: Path) -> None:
    """Until numpy 2 its module was `numpy.core`."""
    path = tmp_path / "file.pt"
    torch.save({"number": np.float64(0.1)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for module in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        path.write_bytes(content.replace(b"numpy._core.multiarray", module).replace(b"numpy.core.multiarray", module))
        assert torch_file.load(path)["number"] == 0.1


@pytest.mark.filterwarnings("ignore")  # of damaged values
def test_no_damage_makes_a_traceback(tmp_path: Path) -> None:
    path, rng = tmp_path / "file.pt", np.random.default_rng(0)
    payload = {"state_dict": {"a": torch.rand(3, 4)}, "opt": argparse.Namespace(b=16), "best": np.float64(2)}
    torch.save(payload, path, _use_new_zipfile_serialization=False)  # has no checksums
    content, refused = path.read_bytes(), 0
    for _ in range(500):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            torch_file.load(path)
        except UserError as error:
            refused += "\n" not in str(error)
    assert refused > 100
