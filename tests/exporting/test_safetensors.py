"""Exported weights lie there in safetensors as well: the same tensors, and the card names the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from export import export, sha256
from models.pcrl import build_network
from models.weights import load_weights
from tests.checkpoints import save_checkpoint


@pytest.mark.parametrize(("n", "name", "dims"), [("chest", "resnet18", 2), ("luna", "unet3d", 3)])
def test_the_same_tensors_in_both_files(n: str, name: str, dims: int, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint.pt", n)
    export(tmp_path / "checkpoint.pt", tmp_path / "weights", None, teacher=False)
    path = tmp_path / "weights" / f"{name}.safetensors"
    found, expected = load_file(path), torch.load(path.with_suffix(".pt"), weights_only=True)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert sha256(path) in (tmp_path / "weights" / "README.md").read_text()
    channels = 3 if dims == 2 else 1
    assert load_weights(build_network(dims, channels, channels, "bn", "none"), path).used
