"""--weight on files of other projects: prefixes are taken off by rule, parts are taken wholly or not at all."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from export import export
from models.build import build_unet
from models.classifier import Encoder
from models.pcrl import PCRLNetwork, build_network
from models.segmenter import build_segmenter
from models.unet import UNetNetwork, published_state
from models.weights import load_weights
from options import Options
from tests.checkpoints import save_checkpoint
from tests.conftest import FULL, ROOT, run_main, write_xrays
from tests.foreign_weights import of_other_projects, other, pcrlv2, published_2d, resnet, under, write_safetensors
from tests.inprocess import run_captured
from training.checkpoint import check_same_run, find_resume
from utils.errors import UserError


def network(dims: int = 2, norm: str = "bn") -> PCRLNetwork:
    return build_network(dims, 3, 3, "bn", "none") if dims == 2 else build_network(dims, 1, 1, norm, "sigmoid")


def encoder_only() -> Encoder:
    return Encoder(network().unet)


def save(tmp_path: Path, payload: object) -> Path:
    path = tmp_path / "weights.pt"
    torch.save(payload, path)
    return path


def test_encoders_under_other_names(tmp_path: Path) -> None:
    whole = {name: tensor + 0.5 if tensor.is_floating_point() else tensor for name, tensor in resnet(fc=True).items()}
    encoder = {name: tensor for name, tensor in whole.items() if not name.startswith("fc.")}
    said = {
        "moco_v2": "the file also has `state_dict` module.encoder_k., not used",
        "dino": "taken from `student` module.backbone.; the file also has `teacher` backbone., not used",
        "byol": "taken from online_encoder.net.; the file also has target_encoder.net., not used",
        "radimagenet": "taken from backbone. by the numbers of a Sequential",
        "lightning": "taken from `state_dict` net.",
        "model_state_dict": "taken from `model_state_dict`;",
    }
    for name, payload in of_other_projects(encoder, whole).items():
        target = encoder_only()
        report = load_weights(target, save(tmp_path, payload))
        assert len(report.used) == 120, name
        assert said.get(name, "") in str(report)
        for layer, value in target.unet.encoder.state_dict().items():  # type: ignore[union-attr,operator]
            assert torch.equal(value, encoder[layer]), f"{name}: {layer}"


def test_cases_of_other_projects(tmp_path: Path) -> None:
    """The files that a script outside of the repository makes, where it is there."""
    script = ROOT.parent / "shared/cases/25-weights-of-other-projects/make.py"
    if not script.exists():
        pytest.skip(f"{script} is not there: it is not part of the repository")
    done = run_captured([str(script), str(tmp_path)])
    assert done.returncode == 0, done.stderr
    files = sorted(tmp_path.iterdir())
    assert len(files) == 7
    for path in files:
        assert len(load_weights(encoder_only(), path).used) == 120, path.name


def test_a_3d_network_with_a_prefix(tmp_path: Path) -> None:
    state = published_state(network(3))
    target = network(3)
    report = load_weights(target, save(tmp_path, {"net": under("student.backbone.", state)}))
    assert (len(report.used), report.missing, report.unexpected) == (114, [], [])
    assert torch.equal(target.fc1.weight, state["fc1.weight"])


@pytest.mark.parametrize("averaged_first", [True, False])
def test_the_trained_network_goes_before_its_moving_average(averaged_first: bool, tmp_path: Path) -> None:
    """Whatever the order in the file; parts of the one never go with the encoder of the other."""
    state = published_state(network(3))
    parts = [("student", under("module.", state)), ("model_ema", other(state))]
    target = network(3)
    load_weights(target, save(tmp_path, dict(reversed(parts) if averaged_first else parts)))
    for name, value in published_state(target).items():
        assert torch.equal(value, state[name]), name


def test_a_published_2d_file_takes_its_heads_from_the_teacher(tmp_path: Path) -> None:
    payload, target = published_2d(), network()
    report = load_weights(target, save(tmp_path, payload))
    assert (report.missing, report.unexpected, report.left, report.reshaped) == ([], [], [], [])
    assert (
        "output layer and contrast head and gate taken from `model_ema`, the moving average, because the file has no "
        "other copy"
    ) in str(report)
    for name, value in published_state(target).items():
        if "encoder" in name:
            expected = payload["state_dict"][name.removeprefix("model.encoder.")]
        elif "decoder" in name:
            expected = payload["decoder_state_dict"][name.removeprefix("model.decoder.")]
        else:
            expected = payload["model_ema"][f"module.{name}"]
        assert torch.equal(value, expected), name


def test_a_published_file_by_the_command_line(tmp_path: Path) -> None:
    """Its queue and Z (``contrast``: ``memory``, ``params``) belong to its own run: a new run begins with its own."""
    data, path = write_xrays(tmp_path / "xrays", size=64), save(tmp_path, published_2d())
    flags = ("--data", data, "--n", "chest", "--d", 2, "--b", 2, "--epochs", 1, "--size", 64, "--ratio", 1.0)
    flags += ("--workers", 0, "--moco_k", 8, "--gpus", "", "--image_every", 0)
    done = run_main(*FULL, *flags, "--weight", path, "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "gate taken from `model_ema`" in done.stdout
    contrast = torch.load(tmp_path / "run/last.pt", weights_only=True)["contrast"]
    assert contrast["memory"].shape == (8, 128)
    assert 0 < contrast["z"] < 123456
    with pytest.raises(UserError, match=r"no training state; --weight starts a new run"):
        check_same_run(find_resume(str(path), tmp_path) or {}, Options(data="x"), "", {})


@pytest.mark.parametrize(("dims", "encoder"), [(2, 100), (3, 48)])
def test_a_decoder_is_taken_wholly_or_not_at_all(dims: int, encoder: int, tmp_path: Path) -> None:
    """Half of PCRLv2's decoder has PCRL's names and shapes."""
    state, target = pcrlv2(dims), network(dims)
    before = {name: value.clone() for name, value in published_state(target).items()}
    report = load_weights(target, save(tmp_path, {"state_dict": state}))
    prefix = "model.encoder." if dims == 2 else "down_tr"
    assert len(report.used) == encoder
    assert all(name.startswith(prefix) for name in report.used)
    assert "decoder and output layer of another network, so initialised randomly (" in str(report)
    for name, value in published_state(target).items():
        assert torch.equal(value, (state if name in report.used else before)[name]), name


def test_a_head_is_taken_wholly_or_not_at_all(tmp_path: Path) -> None:
    state, target = published_state(network()), network()
    before = target.fc1.weight.clone()
    del state["fc2.weight"]
    report = load_weights(target, save(tmp_path, {"model": state}))
    assert report.left == ["fc1.weight", "fc1.bias", "fc2.bias"]
    assert torch.equal(target.fc1.weight, before)
    assert torch.equal(target.aug_fc1.weight, state["aug_fc1.weight"])


def test_a_segmenter_takes_a_decoder_but_no_output_layer(tmp_path: Path) -> None:
    state = published_state(network(3, "in"))
    target = build_segmenter(1, 3, "in", 0)
    report = load_weights(target, save(tmp_path, {"model": state}))
    assert report.reshaped == ["out_tr.final_conv.weight", "out_tr.final_conv.bias"]
    assert len(report.used) == 72 - 2 - 8
    assert torch.equal(target.unet.up_tr64.ops[0].conv1.weight, state["up_tr64.ops.0.conv1.weight"])  # type: ignore[union-attr,index]


def test_smp_gets_no_decoder_that_it_cannot_load(tmp_path: Path) -> None:
    path = save(tmp_path, {"model": pcrlv2(2)})
    with pytest.raises(UserError, match=r"its decoder is not the U-Net's.*--target torchvision or timm takes the enco"):
        export(path, tmp_path / "weights", "smp", teacher=False)


def test_other_norms_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their tensors have the same names and shapes, and the features are others."""
    group = {"model": published_state(network(3, "gn")), "opt": {"norm": "gn"}}
    batch = {"model": published_state(network(3, "bn"))}
    for payload, there, here in ((batch, "bn", "in"), (group, "gn", "in"), (group, "gn", "bn")):
        load_weights(network(3, here), save(tmp_path, payload))
        assert f"the encoder was trained with --norm {there}, not {here}" in capsys.readouterr().err
    load_weights(network(3, "gn"), save(tmp_path, group))
    assert capsys.readouterr().err == ""


def test_a_new_first_convolution_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_weights(build_network(2, 1, 1, "bn", "none"), save(tmp_path, resnet()))
    assert "1 of the 20 convolutions of the encoder are not in it or have another shape (conv1.weight)" in (
        capsys.readouterr().err
    )


STRANGE: list[tuple[Any, str]] = [
    (
        {"arch": "vit", "state_dict": {"patch_embed.proj.weight": torch.zeros(8, 3, 16, 16), "cls": torch.zeros(8)}},
        "none of its 2 tensors fits the encoder of this 2D network; its keys: arch, state_dict; tensors of "
        "`state_dict`: patch_embed.proj.weight (8, 3, 16, 16), cls (8,); wanted, with any prefix: conv1.weight ",
    ),
    ([1, 2], "it holds a list, no tensors by name"),
    ({"epoch": 3}, "its keys: epoch; it holds no tensors"),
    (torchvision.models.vgg11().features.state_dict(), "tensors: 0.weight (64, 3, 3, 3), 0.bias (64,)"),
]


@pytest.mark.parametrize(("payload", "words"), STRANGE)
def test_a_file_without_such_an_encoder_is_described(payload: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load_weights(encoder_only(), save(tmp_path, payload))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_file_of_tensors_names_the_way_out(tmp_path: Path) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Linear(1, 1)), tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"script/{name}", "")
    (tmp_path / "keras.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    (tmp_path / "empty").mkdir()
    for name, words in {
        "whole.pt": "torch.save(network.state_dict(), FILE), and give that file",
        "script.pt": "is a TorchScript program",
        "keras.h5": "a file in HDF5, as Keras writes it; convert",
        "empty": "is a folder without a file of weights in it",
        ".": "is a folder; give a file in it: ",
    }.items():
        with pytest.raises(UserError) as error:
            load_weights(encoder_only(), tmp_path / name)
        assert words in str(error.value), name


def test_a_part_of_ones_own_method_is_loaded_like_any_other(tmp_path: Path) -> None:
    class Own(UNetNetwork):
        def __init__(self, size: int) -> None:
            super().__init__(build_unet(3, 1, 1, "bn", "none"))
            self.projector = torch.nn.Sequential(torch.nn.Linear(512, size), torch.nn.Linear(size, 4))

    source, target, other_size = Own(8), Own(8), Own(6)
    path = save(tmp_path, {"state_dict": under("module.", published_state(source))})
    report = load_weights(target, path)
    assert (len(report.used), report.missing, report.unexpected) == (110, [], [])
    assert torch.equal(target.projector[0].weight, source.projector[0].weight)  # type: ignore[arg-type]
    assert load_weights(other_size, path).left == ["projector.1.bias"]


def test_safetensors(tmp_path: Path) -> None:
    state = {name: value for name, value in published_state(network(3)).items() if name.startswith("down_tr")}
    write_safetensors(tmp_path / "model.safetensors", under("net.", state))
    target = network(3)
    assert len(load_weights(target, tmp_path / "model.safetensors").used) == len(state)
    assert torch.equal(target.unet.down_tr512.ops[1].conv1.bias, state["down_tr512.ops.1.conv1.bias"])  # type: ignore[union-attr,index]


def test_files_of_our_own_say_no_more_than_before(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", "chest")
    assert str(load_weights(network(), tmp_path / "last.pt")) == "190 tensors used; 0 missing; 0 unexpected"
