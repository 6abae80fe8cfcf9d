"""Loading runs nobody's code, and damaged files are named in one line."""

from __future__ import annotations

import os
from pathlib import Path

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
    damaged = {
        "empty.pt": b"",
        "half.pt": content[: len(content) // 2],
        "zeros.pt": bytes(100),
        "text.pt": b"hello",
        "no_tail.pt": content[:-30],
    }
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=name) as error:
            torch_file.load(tmp_path / name)
        assert "\n" not in str(error.value)
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
