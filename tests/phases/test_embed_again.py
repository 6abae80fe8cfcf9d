"""``--phase embed`` into a folder that has features, or a run, already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from options import Options
from phases import phase
from tests.conftest import write_pairs, write_xrays
from training.devices import Devices
from utils.errors import UserError
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


def test_a_list_of_scans_that_is_used_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_pairs(tmp_path / "data", scans=3, pairs=1)
    uid = min(path.name.partition("_img_")[0] for path in data.glob("subset*/*.npy"))
    (data / "luna_train.txt").write_text(f"{uid}\n")
    flags = {"workers": 0, "gpus": "", "narrow": 8, "phase": "embed", "n": "luna", "data": str(data)}
    for number, (train_list, images) in enumerate(((None, 2), ("none", 6))):
        output = tmp_path / str(number)
        phase("embed")(Options(output=str(output), train_list=train_list, **flags), Devices("", None), SINGLE)
        assert len(np.load(output / "features.npy")) == images
        words = f"scans: those of {data / 'luna_train.txt'}; for all give --train_list none\n"
        assert (words in capsys.readouterr().out) == (train_list is None)


def test_a_run_in_the_folder_does_not_keep_the_weights_from_being_read(tmp_path: Path) -> None:
    """--resume is of trainings: the features would be those of random values."""
    data, output = write_xrays(tmp_path / "data", size=64), tmp_path / "out"
    output.mkdir()
    (output / "previous.pt").write_bytes(b"of a run")
    (tmp_path / "weights.pt").write_bytes(b"no weights")
    flags = {"workers": 0, "gpus": "", "narrow": 8, "size": 64, "train_list": "none", "resume": "auto"}
    for work in ("embed", "knn"):
        options = Options(
            phase=work, n="chest", data=str(data), output=str(output), weight=str(tmp_path / "weights.pt"), **flags
        )
        assert not options.goes_on
    with pytest.raises(UserError, match=r"weights\.pt"):
        phase("embed")(replace(options, phase="embed"), Devices("", None), SINGLE)
