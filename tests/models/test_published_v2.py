"""The files that PCRLv2's authors publish: pre-training goes on from them, and fine-tuning begins with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from export import export
from models.classifier import Classifier
from models.pcrl import build_network as build_pcrl
from models.pcrlv2 import build_network
from models.unet import UNetNetwork, published_state
from models.weights import load_weights
from options import Options
from tests.conftest import FULL, run_main
from tests.crops_v2 import write_crops_v2
from tests.published_v2 import encoder_2d, network_3d, published_v2
from training.network import new_unet, start_from_weight

NAMES = {2: "simance_multi_crop_chest_pretask_1.0_240.pt", 3: "simance_multi_crop_luna_pretask_1.0_240.pt"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """By dimensions."""
    folder = tmp_path_factory.mktemp("published")
    for dims, name in NAMES.items():
        torch.save(published_v2(dims), folder / name)
    return {dims: folder / name for dims, name in NAMES.items()}


def network(dims: int) -> UNetNetwork:
    return build_network(dims, *((3, 3, "none") if dims == 2 else (1, 1, "sigmoid")))


def in_file(dims: int) -> dict[str, Tensor]:
    """The file's tensors by our names."""
    return {f"model.encoder.{name}": value for name, value in encoder_2d().items()} if dims == 2 else network_3d()


def test_the_description_has_as_many_numbers_as_the_published_networks() -> None:
    for state, tensors, numbers in ((network_3d(), 169, 17_118_823), (encoder_2d(), 120, 11_186_132)):
        assert len(state) == tensors
        assert sum(value.numel() for value in state.values()) == numbers


@pytest.mark.parametrize("dims", [2, 3])
def test_pre_training_goes_on_from_all_that_is_in_it(dims: int, files: dict[int, Path]) -> None:
    target, expected = network(dims), in_file(dims)
    before = {name: value.clone() for name, value in published_state(target).items()}
    report = load_weights(target, files[dims])
    assert (len(report.used), report.reshaped, report.left, report.unexpected) == (len(expected), [], [], [])
    assert report.missing == [name for name in before if name not in expected]
    assert report.z_normalised == (dims == 3)
    for name, value in published_state(target).items():
        assert torch.equal(value, expected.get(name, before[name])), name


def test_a_wrapped_networks_names_are_the_same_names(tmp_path: Path) -> None:
    torch.save(published_v2(3, prefix="module."), tmp_path / "file.pt")
    report = load_weights(network(3), tmp_path / "file.pt")
    assert (len(report.used), report.missing, report.unexpected) == (169, [], [])


@pytest.mark.parametrize(("dims", "encoder"), [(2, 120), (3, 56)])
def test_pcrl_takes_its_encoder_alone(dims: int, encoder: int, files: dict[int, Path]) -> None:
    """Half of the decoder would fit."""
    target = build_pcrl(dims, *((3, 3) if dims == 2 else (1, 1)), "bn", "none")
    before = {name: value.clone() for name, value in published_state(target).items()}
    report, expected = load_weights(target, files[dims]), in_file(dims)
    assert len(report.used) == encoder
    for name, value in published_state(target).items():
        of_encoder = name.startswith(("model.encoder.", "down_tr"))
        assert torch.equal(value, (expected if of_encoder else before)[name]), name


def test_what_was_exported_of_it_is_normalised_alike(tmp_path: Path) -> None:
    """The plain tensors say nothing of themselves: the .safetensors beside them does."""
    content = published_v2(3) | {"opt": {"model": "pcrlv2", "n": "luna"}}
    torch.save(content, tmp_path / "checkpoint.pt")
    export(tmp_path / "checkpoint.pt", tmp_path / "weights", None, teacher=False)
    for name in ("unet3d.pt", "unet3d.safetensors"):
        assert load_weights(network(3), tmp_path / "weights" / name).z_normalised, name
    torch.save({"state_dict": build_pcrl(3, 1, 1, "bn", "sigmoid").unet.state_dict()}, tmp_path / "pcrl.pt")
    export(tmp_path / "pcrl.pt", tmp_path / "others", None, teacher=False)
    assert not load_weights(network(3), tmp_path / "others" / "unet3d.pt").z_normalised


@pytest.mark.parametrize("dims", [2, 3])
def test_fine_tuning_begins_with_the_encoder_and_its_normalisation(
    dims: int, files: dict[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    n, shape = ("chest", (64, 64)) if dims == 2 else ("nodules", (16, 16, 16))
    options = Options(data="x", phase="finetune", n=n, d=dims, weight=str(files[dims]))
    target = Classifier(new_unet(options, shape), 1)
    start_from_weight(options, target)
    assert target.z_normalised == (dims == 3)
    assert ("normalised to mean 0 and deviation 1" in capsys.readouterr().out) == (dims == 3)
    expected = in_file(dims)
    own = {name: value for name, value in published_state(target).items() if name in expected}
    assert len(own) == (120 if dims == 2 else 56)
    assert all(torch.equal(value, expected[name]) for name, value in own.items())


def test_pcrl_is_told_of_the_other_normalisation(files: dict[int, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for dims, told in ((3, True), (2, False)):
        options = Options(data="x", n="luna" if dims == 3 else "chest", d=dims, weight=str(files[dims]))
        start_from_weight(options, build_pcrl(dims, *((3, 3) if dims == 2 else (1, 1)), "bn", "none"))
        assert ("values of mean 0 and deviation 1, not 0 .. 1" in capsys.readouterr().err) == told


def test_from_the_command_line(files: dict[int, Path], tmp_path: Path) -> None:
    flags = (*FULL, "--model", "pcrlv2", "--ratio", 1.0, "--b", 2, "--workers", 0, "--gpus", ",", "--dry_run")
    argv = ("--data", write_crops_v2(tmp_path / "crops", scans=1), *flags, "--weight", files[3], "--output", "out")
    found = run_main(*argv, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "169 tensors used; 0 missing; 0 unexpected" in found.stdout
    assert "warning" not in found.stderr
