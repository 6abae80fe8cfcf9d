"""--narrow: an eighth of the channels under the same names; it goes through every command or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.build import build_unet
from options import Options
from tests.conftest import FULL, run_main
from utils.errors import UserError


@pytest.mark.parametrize("norm", ["bn", "gn", "in"])
@pytest.mark.parametrize("dims", [2, 3])
def test_names_stay_and_channels_are_divided(dims: int, norm: str) -> None:
    if dims == 2 and norm != "bn":
        pytest.skip("in 2D there is bn alone")
    full, narrow = (build_unet(dims, 1, 1, norm, "none", narrow=number) for number in (1, 8))
    assert list(narrow.state_dict()) == list(full.state_dict())
    assert [8 * channels for channels in narrow.feature_channels] == list(full.feature_channels)
    weights, fewer = (sum(value.numel() for value in unet.state_dict().values()) for unet in (full, narrow))
    assert 50 < weights / fewer < 70
    image = torch.rand(2, 1, *(32,) * dims)
    assert narrow.decode(narrow.encode(image)).shape == image.shape


def test_other_widths_are_refused() -> None:
    with pytest.raises(UserError, match="--narrow 3: give one of 1, 2, 4, 8"):
        Options(data="x", narrow=3)


def test_a_narrow_run_is_told_from_a_full_one(pairs: Path, tmp_path: Path) -> None:
    argv = ("--data", pairs, "--b", 3, "--ratio", 1, "--workers", 0, "--epochs", 1)
    run = run_main(*argv, "--output", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    checkpoint = tmp_path / "out" / "last.pt"
    assert torch.load(checkpoint, weights_only=True)["opt"]["narrow"] == 8
    resumed = run_main(*argv, *FULL, "--output", tmp_path / "out", "--resume", "auto", "--epochs", 2)
    assert resumed.returncode == 2
    assert "--resume: that run had --narrow 8, not 1" in resumed.stderr
    begun = run_main(*argv, *FULL, "--output", tmp_path / "other", "--weight", checkpoint)
    assert begun.returncode == 2
    assert f"{checkpoint}: its network has --narrow 8, not 1; give --narrow 8" in begun.stderr


def test_export_refuses_a_narrow_network(tmp_path: Path) -> None:
    from exporting.portable import make_portable

    state = build_unet(3, 1, 1, "bn", "none", narrow=8).state_dict()
    with pytest.raises(UserError, match="its network has --narrow"):
        make_portable({"model": state, "opt": {"narrow": 8}})
