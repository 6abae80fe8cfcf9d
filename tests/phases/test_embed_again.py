"""``--phase embed`` into a folder that has features already says that it replaces them."""

from __future__ import annotations

from pathlib import Path

import pytest

from options import Options
from phases import phase
from tests.conftest import write_xrays
from training.devices import Devices
from utils.process_group import SINGLE


def test_features_are_not_replaced_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_xrays(tmp_path / "data", size=64)
    flags = {"workers": 0, "gpus": "", "narrow": 8, "size": 64, "train_list": "none"}
    options = Options(phase="embed", n="chest", data=str(data), output=str(tmp_path / "out"), **flags)
    said = []
    for _ in range(2):
        phase("embed")(options, Devices("", None), SINGLE)
        said.append(capsys.readouterr().err)
    assert "will be replaced" not in said[0]
    assert f"{tmp_path / 'out' / 'features.npy'} and features.csv are there already" in said[1]
