"""``--onnx``: onnxruntime gives the encoder's maps, for images of any number and size."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from export import export, sha256
from exporting.onnx_encoder import OUTPUTS
from models.unet import UNet
from models.unet2d import UNet2d
from models.unet3d import UNet3d
from tests.checkpoints import lively
from utils.errors import UserError


def save(path: Path, n: str, **flags: Any) -> UNet:
    """A checkpoint of a U-Net whose tensors all differ."""
    unet: UNet = UNet2d(flags.get("inchannel", 3)) if n == "chest" else UNet3d(norm=flags.get("norm", "bn"))
    lively(unet)
    content = unet.library_parts() or {"state_dict": unet.state_dict()}
    torch.save(content | {"opt": {"n": n, **flags}}, path)
    return unet.eval()


CASES: list[tuple[str, str, dict[str, Any], str, tuple[int, ...]]] = [
    ("chest", "torchvision", {}, "resnet18", (3, 3, 32, 64)),
    ("chest", "smp", {"inchannel": 1}, "resnet18", (1, 1, 64, 32)),
    ("luna", "unet3d", {}, "unet3d", (3, 1, 8, 16, 24)),
    ("luna", "unet3d", {"norm": "gn"}, "unet3d", (1, 1, 32, 8, 16)),
    ("luna", "unet3d", {"norm": "in"}, "unet3d", (2, 1, 16, 32, 16)),
]


@pytest.mark.parametrize(("n", "target", "flags", "name", "shape"), CASES)
def test_maps_in_onnxruntime(
    n: str, target: str, flags: dict[str, Any], name: str, shape: tuple[int, ...], tmp_path: Path, capsys: Any
) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    ours = save(tmp_path / "checkpoint.pt", n, **flags)
    export(tmp_path / "checkpoint.pt", tmp_path / "weights", target, teacher=False, onnx=True)
    assert f"{name}_encoder.onnx: onnxruntime" in capsys.readouterr().out
    path = tmp_path / "weights" / f"{name}_encoder.onnx"
    assert sha256(path) in (tmp_path / "weights/README.md").read_text()
    (*_, code) = re.findall(r"```python\n(.*?)```", (tmp_path / "weights/README.md").read_text(), re.DOTALL)
    assert f'InferenceSession("{path.name}")' in code
    onnx.checker.check_model(str(path))
    images = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert tuple(output.name for output in session.get_outputs()) == OUTPUTS[ours.dims]
    found = session.run(None, {"image": images.numpy()})
    with torch.no_grad():
        maps = ours.encode(images)
        for theirs, expected in zip(found, [*maps, ours.pooled(images)], strict=True):
            assert expected.abs().max() > 1e-3, "maps of zeros prove nothing"
            torch.testing.assert_close(torch.from_numpy(theirs), expected, rtol=1e-3, atol=1e-4)


def test_a_missing_package_is_said_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "checkpoint.pt", "luna")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="--onnx needs the packages onnx and onnxruntime; pip install"):
        export(tmp_path / "checkpoint.pt", tmp_path / "weights", None, teacher=False, onnx=True)
    assert not (tmp_path / "weights").exists()
