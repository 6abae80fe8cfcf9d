"""Files in the format safetensors give the tensors that their library gives; damaged ones are one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.foreign_weights import write_safetensors
from utils import torch_file
from utils.errors import UserError

TENSORS = {
    "a": torch.rand(2, 3),
    "empty": torch.zeros(0, 4),
    "scalar": torch.tensor(7),
    "half": torch.rand(5).half(),
    "flags": torch.tensor([True, False]),
}


def test_the_tensors_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, TENSORS)
    loaded = torch_file.load(path)
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor), name


def test_a_file_of_their_library(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    tensors = TENSORS | {"bf16": torch.rand(3).bfloat16()}
    library.save_file(tensors, tmp_path / "model.safetensors")
    loaded = torch_file.load(tmp_path / "model.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


@pytest.mark.filterwarnings("error")
def test_damage_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, TENSORS)
    content = path.read_bytes()
    unknown = content.replace(b'"F32"', b'"F4X"')
    negative = content.replace(b'"data_offsets": [0, 24]', b'"data_offsets": [-9, 9]')
    assert unknown != content != negative
    for damaged in (content[:-5], content[:100], content[:12], unknown, negative, content.replace(b"shape", b"shap_")):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"model\.safetensors: cannot be read: a damaged .safetensors file, or"):
            torch_file.load(path)
