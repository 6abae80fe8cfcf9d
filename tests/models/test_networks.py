"""Names, shapes and counts of the state dicts: people load these files elsewhere."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor

from models.layers import NORMS
from models.pcrl import PCRLNetwork, build_network
from models.unet import load_published_state, published_state


def network(dims: int, norm: str = "bn") -> PCRLNetwork:
    channels = 3 if dims == 2 else 1
    return build_network(dims, channels, channels, norm, "sigmoid" if dims == 3 else "none")


@pytest.mark.parametrize(
    ("dims", "norm", "numbers", "tensors"),
    [(2, "bn", 14_555_665, 190), (3, "bn", 19_294_159, 114), (3, "gn", 19_289_473, 72), (3, "in", 19_289_473, 72)],
)
def test_counts(dims: int, norm: str, numbers: int, tensors: int) -> None:
    state = published_state(network(dims, norm))
    assert sum(tensor.numel() for tensor in state.values()) == numbers
    assert len(state) == tensors
    assert not any(name.startswith("module.") or "unet" in name for name in state)


def expected_names_2d() -> set[str]:
    encoder = {f"model.encoder.{name}" for name in torchvision.models.resnet18().state_dict() if "fc." not in name}
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    decoder = set()
    for block in range(5):
        for conv in (1, 2):
            prefix = f"model.decoder.blocks.{block}.conv{conv}"
            decoder |= {f"{prefix}.0.weight"} | {f"{prefix}.1.{name}" for name in norm}
    return encoder | decoder | {f"model.segmentation_head.0.{name}" for name in ("weight", "bias")}


def expected_names_3d() -> set[str]:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {f"out_tr.final_conv.{name}" for name in ("weight", "bias")}
    blocks = [f"down_tr{c}" for c in (64, 128, 256, 512)] + [f"up_tr{c}" for c in (256, 128, 64)]
    for block in blocks:
        for i in (0, 1):
            names |= {f"{block}.ops.{i}.conv1.{name}" for name in ("weight", "bias")}
            names |= {f"{block}.ops.{i}.bn1.{name}" for name in norm}
        if block.startswith("up"):
            names |= {f"{block}.up_conv.{name}" for name in ("weight", "bias")}
    return names


@pytest.mark.parametrize(("dims", "expected"), [(2, expected_names_2d()), (3, expected_names_3d())])
def test_names(dims: int, expected: set[str]) -> None:
    heads = {f"{layer}.{name}" for layer in ("fc1", "fc2", "aug_fc1", "aug_fc2") for name in ("weight", "bias")}
    assert set(published_state(network(dims))) == expected | heads


def test_encoder_and_decoder_load_strictly_elsewhere() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    net = network(2)
    encoder, decoder = net.unet.encoder.state_dict(), net.unet.decoder.state_dict()

    resnet = torchvision.models.resnet18()
    result = resnet.load_state_dict(encoder, strict=False)
    assert set(result.missing_keys) == {"fc.weight", "fc.bias"}
    assert result.unexpected_keys == []

    theirs = smp.Unet("resnet18", encoder_weights=None, in_channels=3, classes=3)
    theirs.encoder.load_state_dict(encoder)  # strict
    theirs.decoder.load_state_dict(decoder)  # strict

    # the same names would be worth nothing if the network behind them were another one
    theirs.segmentation_head[0].load_state_dict(net.unet.segmentation_head[0].state_dict())
    image = torch.randn(2, 3, 64, 64)
    net.eval(), theirs.eval()
    torch.testing.assert_close(net.unet.decode(net.unet.encode(image)), theirs(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
def test_published_state_round_trip_is_strict(dims: int) -> None:
    source, target = network(dims), network(dims)
    state = published_state(source)
    load_published_state(target, state)
    for name, tensor in published_state(target).items():
        assert torch.equal(tensor, state[name]), name
    del state["fc1.weight"]
    with pytest.raises(RuntimeError, match=r"fc1\.weight"):
        load_published_state(target, state)


@pytest.mark.parametrize("norm", NORMS)
def test_features_and_maps_have_the_stated_shapes_3d(norm: str) -> None:
    net = network(3, norm)
    volume = torch.rand(2, 1, 32, 32, 16)
    embedding, *features = net(volume)
    assert embedding.shape == (2, 128)
    assert [tuple(f.shape[1:]) for f in features] == [
        (64, 32, 32, 16),
        (128, 16, 16, 8),
        (256, 8, 8, 4),
        (512, 4, 4, 2),
    ]
    output = net.unet.decode(features)
    assert output.shape == volume.shape
    assert output.min() >= 0
    assert output.max() <= 1  # sigmoid


def test_features_and_maps_have_the_stated_shapes_2d() -> None:
    net = network(2)
    _embedding, *features = net(torch.rand(2, 3, 64, 64))
    assert [tuple(f.shape[1:]) for f in features] == [(64, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]
    assert net.unet.decode(features).shape == (2, 3, 64, 64)


def gated_literally(net: PCRLNetwork, deepest: Tensor, code: Tensor) -> Tensor:
    out = torch.empty_like(deepest)
    for b in range(len(deepest)):
        hidden = (net.aug_fc1.weight @ code[b] + net.aug_fc1.bias).clamp(min=0)
        weights = 1 / (1 + torch.exp(-(net.aug_fc2.weight @ hidden + net.aug_fc2.bias)))
        for c in range(deepest.shape[1]):
            out[b, c] = deepest[b, c] * weights[c]
    return out


@pytest.mark.parametrize("dims", [2, 3])
def test_gate_weighs_channel_by_channel(dims: int) -> None:
    net = network(dims)
    deepest = torch.randn(2, 512, *(2, 3, 4)[:dims])
    code = torch.eye(dims + 4)[:2]
    torch.testing.assert_close(net.gate(deepest, code), gated_literally(net, deepest, code))
