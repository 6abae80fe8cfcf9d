"""Weights that are no numbers: whatever reads them says so, before it computes features, masks or files of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from export import export
from models.build import build_unet
from models.classifier import Encoder
from models.weights import load_weights
from tasks.finetuned import read_finetuned
from tests.foreign_weights import resnet
from utils.errors import UserError

MESSAGE = r"weights\.pt: 1 tensor of its network hold values that are not finite numbers \(layer1\.0\.conv1\.weight\)"


def failed(tmp_path: Path, value: float, **more: Any) -> Path:
    state = resnet()
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = value
    torch.save({"model": state, **more}, tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_where_training_begins(tmp_path: Path, value: float) -> None:
    with pytest.raises(UserError, match=MESSAGE):
        load_weights(Encoder(build_unet(2, 3, 3, "bn", "none")), failed(tmp_path, value))


def test_where_a_fine_tuned_network_is_applied(tmp_path: Path) -> None:
    path = failed(tmp_path, float("nan"), opt={"phase": "finetune", "n": "chest"}, run={"classes": ["mass"]})
    with pytest.raises(UserError, match=MESSAGE):
        read_finetuned(str(path))


def test_where_weights_are_exported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finite numbers"):
        export(failed(tmp_path, float("nan")), tmp_path / "out", None, teacher=False)
    assert not (tmp_path / "out").exists()
