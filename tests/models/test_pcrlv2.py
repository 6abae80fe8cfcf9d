"""PCRLv2's network: names, shapes and counts of its files; initial values; what a pass computes."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch import nn

from models.pcrlv2 import PCRLv2Network, build_network
from models.unet import load_published_state, published_state

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
LAYER = ("weight", "bias")


def network(dims: int) -> PCRLv2Network:
    channels = 3 if dims == 2 else 1
    return build_network(dims, channels, channels, "sigmoid" if dims == 3 else "none")


def of_heads(block: str) -> set[str]:
    names = {f"{block}.bn.{name}" for name in NORM}
    names |= {f"{block}.predictor_head.{number}.{name}" for number in (0, 3) for name in LAYER}
    return names | {f"{block}.predictor_head.1.{name}" for name in NORM}


def expected_2d() -> set[str]:
    names = {f"model.encoder.{name}" for name in torchvision.models.resnet18().state_dict() if "fc." not in name}
    for number in range(5):
        block = f"model.decoder.blocks.{number}"
        for conv in ("conv1", "conv2"):
            names |= {f"{block}.{conv}.0.weight"} | {f"{block}.{conv}.1.{name}" for name in NORM}
        names |= of_heads(block)
        names |= {f"{block}.deep_supervision_head.{layer}.{name}" for layer in (0, 3) for name in LAYER}
        names |= {f"{block}.deep_supervision_head.1.{name}" for name in NORM}
    return names | {f"model.segmentation_head.0.{name}" for name in LAYER}


def expected_3d() -> set[str]:
    names = {f"out_tr.final_conv.{name}" for name in LAYER}
    for block in [f"down_tr{c}" for c in (64, 128, 256, 512)] + [f"up_tr{c}" for c in (256, 128, 64)]:
        for number in (0, 1):
            names |= {f"{block}.ops.{number}.conv1.{name}" for name in LAYER}
            names |= {f"{block}.ops.{number}.bn1.{name}" for name in NORM}
        if block.startswith("up"):
            names |= {f"{block}.up_conv.{name}" for name in LAYER} | of_heads(block)
            names |= {f"{block}.deep_supervision_head.conv1.{name}" for name in LAYER}
            names |= {f"{block}.deep_supervision_head.bn1.{name}" for name in NORM}
    return names


@pytest.mark.parametrize(
    ("dims", "names", "numbers", "tensors", "parameters"),
    [
        (2, expected_2d(), 14_693_823, 297, (162, 14_678_226)),
        (3, expected_3d(), 17_118_823, 169, (100, 17_111_434)),
    ],
)
def test_names_and_counts(dims: int, names: set[str], numbers: int, tensors: int, parameters: tuple[int, int]) -> None:
    net = network(dims)
    state = published_state(net)
    assert state.keys() == names
    assert (sum(tensor.numel() for tensor in state.values()), len(state)) == (numbers, tensors)
    trained = list(net.parameters())
    assert (len(trained), sum(parameter.numel() for parameter in trained)) == parameters
    other = network(dims)
    load_published_state(other, state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in published_state(other).items())


def test_shapes_of_the_skipless_decoder() -> None:
    state = published_state(network(2))
    first = [tuple(state[f"model.decoder.blocks.{number}.conv1.0.weight"].shape[:2]) for number in range(5)]
    assert first == [(256, 512), (128, 256), (64, 128), (32, 64), (16, 32)]
    assert state["model.decoder.blocks.4.deep_supervision_head.3.weight"].shape == (3, 16, 1, 1)
    state = published_state(network(3))
    assert [tuple(state[f"up_tr{c}.ops.0.conv1.weight"].shape[:2]) for c in (256, 128, 64)] == [
        (256, 512),
        (128, 256),
        (64, 128),
    ]
    assert state["up_tr64.deep_supervision_head.conv1.weight"].shape == (1, 64, 3, 3, 3)


def test_initial_values_of_the_2d_heads() -> None:
    for module in network(2).heads.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            assert not module.bias.any()
            fan_in = module.weight[0].numel()
            variance = 2 / fan_in if isinstance(module, nn.Conv2d) else 2 / (fan_in + len(module.weight))
            bound = math.sqrt(3 * variance)
            assert 0.9 * bound < module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert (module.weight == 1).all()
            assert not module.bias.any()


@pytest.mark.parametrize("dims", [2, 3])
def test_shapes_of_outputs_and_gradient_of_one_scale_alone(dims: int) -> None:
    net = network(dims)
    channels = 3 if dims == 2 else 1
    size, local = ((64, 32), (32, 32)) if dims == 2 else ((16, 8, 8), (8, 8, 8))
    views = torch.rand(2, 2, channels, *size)
    out = net(*views, torch.rand(2, 3, channels, *local), 1)
    assert out.restored.shape == views[0].shape
    scales = net.unet.map_channels
    assert len(out.restorations) == len(out.view1) == len(out.view2) == len(out.locals) == len(scales)
    for number, c in enumerate(scales):
        factor = 2 ** (len(scales) - 1 - number)
        assert out.restorations[number].shape == (2, channels, *(side // factor for side in size))
        assert out.restorations[number].requires_grad == (number == 1)
        assert out.view1[number].projection.shape == out.view2[number].prediction.shape == (2, c)
        assert out.locals[number].projection.shape == (2, 3, c)
    if dims == 3:
        assert all(image.min() >= 0 and image.max() <= 1 for image in (out.restored, *out.restorations))
