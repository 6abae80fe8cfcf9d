"""The 2D backbones are torchvision's, and their U-Nets are segmentation_models_pytorch's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

from models.pcrl import Context, PCRLNetwork, build_network
from models.resnet import BACKBONES
from models.unet2d import ResNetEncoder
from models.weights import load_weights
from options import BACKBONES as NAMES
from options.command_line import parse_options
from utils.errors import UserError

STAGES = ("relu", "layer1", "layer2", "layer3", "layer4")


def network(backbone: str) -> PCRLNetwork:
    return build_network(2, 3, 3, "bn", "none", backbone)


def test_names() -> None:
    assert tuple(BACKBONES) == NAMES
    with pytest.raises(ValueError, match="vgg"):
        ResNetEncoder(3, "vgg")


@pytest.mark.parametrize("backbone", NAMES)
def test_encoder_is_torchvisions(backbone: str) -> None:
    """The same initial values from the same seed, the same names, the same features."""
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(backbone)
    torch.manual_seed(0)
    net = network(backbone)
    ours = net.unet.encoder
    expected = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("fc.")}
    assert list(ours.state_dict()) == list(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items())

    image = torch.randn(1, 3, 64, 96)
    extract = create_feature_extractor(theirs.eval(), list(STAGES))
    features = ours.eval()(image)
    for feature, reference in zip(features, extract(image).values(), strict=True):
        torch.testing.assert_close(feature, reference)
    assert tuple(feature.shape[1] for feature in features) == net.unet.feature_channels
    deepest = features[-1].shape[1]
    assert (net.fc1.in_features, net.aug_fc2.out_features) == (deepest, deepest)
    embedding, plain, mixed = net(image, *_student_inputs(net, image))
    assert embedding.shape == (1, 128)
    assert plain.shape == mixed.shape == image.shape


def _student_inputs(net: PCRLNetwork, image: torch.Tensor) -> tuple:
    code = torch.eye(6)[:1]
    return Context([feature.detach() for feature in net.unet.encode(image)], 0.5), code, code


@pytest.mark.parametrize("backbone", NAMES[1:])  # the first one: test_networks.py
def test_unet_is_smps(backbone: str) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    net = network(backbone).eval().double()  # the order of summation differs, which float32 would show
    theirs = smp.Unet(backbone, encoder_weights=None, in_channels=3, classes=3).eval().double()
    theirs.encoder.load_state_dict(net.unet.encoder.state_dict())  # strict
    theirs.decoder.load_state_dict(net.unet.decoder.state_dict())  # strict
    theirs.segmentation_head[0].load_state_dict(net.unet.segmentation_head[0].state_dict())
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(net.unet.decode(net.unet.encode(image)), theirs(image), rtol=1e-10, atol=1e-10)


def test_weights_of_torchvision_fit_their_own_backbone_and_others_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resnet50 = torchvision.models.resnet50()
    torch.save(resnet50.state_dict(), tmp_path / "resnet50.pt")
    target, targets = network("resnet50"), {name: network(name) for name in ("resnet18", "resnet34")}
    report = load_weights(target, tmp_path / "resnet50.pt")
    assert report.unexpected == ["fc.weight", "fc.bias"]
    assert not [name for name in report.missing if "encoder" in name]
    assert torch.equal(target.unet.encoder.layer4[2].conv3.weight, resnet50.layer4[2].conv3.weight)
    assert capsys.readouterr().err == ""
    for name in ("resnet18", "resnet34"):  # a resnet34 has all names and shapes that a resnet18 has
        torch.save(getattr(torchvision.models, name)().state_dict(), tmp_path / f"{name}.pt")
    for here, there in (("resnet18", "resnet50"), ("resnet34", "resnet18"), ("resnet18", "resnet34")):
        with pytest.raises(UserError, match=f"its encoder is a {there}, not a {here}; give --backbone {there}$"):
            load_weights(targets[here], tmp_path / f"{there}.pt")
    state = torch.load(tmp_path / "resnet18.pt", weights_only=True)
    torch.save({name: value for name, value in state.items() if "layer4" not in name}, tmp_path / "part.pt")
    load_weights(targets["resnet18"], tmp_path / "part.pt")
    assert "5 of the 20 convolutions of the encoder are not in it" in capsys.readouterr().err


def test_weights_of_a_run_with_another_backbone_are_refused(tmp_path: Path) -> None:
    """Of a narrow network nothing else tells it: what fits was taken, the rest stayed random."""
    own, other = (build_network(2, 3, 3, "bn", "none", name, narrow=8) for name in ("resnet34", "resnet18"))
    opt = {"narrow": 8, "backbone": "resnet18"}
    torch.save({"model": other.state_dict(), "opt": opt}, tmp_path / "own.pt")
    words = "its network has --backbone resnet18, not resnet34; give --backbone resnet18$"
    with pytest.raises(UserError, match=words):
        load_weights(own, tmp_path / "own.pt")


def test_the_flag_that_takes_a_first_convolution_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, other = (build_network(2, channels, channels, "bn", "none", narrow=8) for channels in (1, 3))
    torch.save({"model": other.state_dict(), "opt": {"narrow": 8}}, tmp_path / "colour.pt")
    load_weights(own, tmp_path / "colour.pt")
    said = "(conv1.weight): they are initialised randomly; give --inchannel 3 to take the first one\n"
    assert said in capsys.readouterr().err
    state = own.state_dict()
    del state[next(name for name in state if name.endswith("layer4.1.conv2.weight"))]
    torch.save({"model": state, "opt": {"narrow": 8}}, tmp_path / "grey.pt")
    load_weights(other, tmp_path / "grey.pt")  # whose first convolution is repeated
    assert "layer4.1.conv2.weight): they are initialised randomly\n" in capsys.readouterr().err


def test_flag() -> None:
    chest, _ = parse_options(["--data", "x", "--n", "chest"])
    assert chest.backbone == "resnet18"
    luna, _ = parse_options(["--data", "x"])
    assert luna.backbone == ""
    for argv, message in (
        ("--n luna --backbone resnet18", "--backbone resnet18: only for 2D data"),
        ("--n chest --backbone vgg16", "--backbone vgg16 is not known; choose from resnet18, resnet34, resnet50"),
    ):
        with pytest.raises(UserError, match=message):
            parse_options(["--data", "x", *argv.split()])
