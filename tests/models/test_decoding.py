"""The network's forward equals the plain one, written out, in values and in all gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.literal import step as literal
from models.pcrl import Context, PCRLNetwork, build_network
from models.unet import published_state

SIZES = {2: (32, 64), 3: (16, 8, 16)}
ALPHA = 0.7


def inputs(dims: int) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """Images, the teacher's features, and both codes."""
    torch.manual_seed(1)
    size = torch.tensor(SIZES[dims])
    channels = {2: (8, 8, 16, 32, 64), 3: (8, 16, 32, 64)}[dims]
    first = 2 if dims == 2 else 1
    features = [torch.rand(3, c, *(size // first // 2**i).tolist()).double() for i, c in enumerate(channels)]
    images = torch.rand(3, 3 if dims == 2 else 1, *SIZES[dims]).double()
    return images, features, *torch.rand(2, 3, dims + 4).double()


def network(dims: int) -> PCRLNetwork:
    torch.manual_seed(0)
    channels = 3 if dims == 2 else 1
    net = build_network(dims, channels, channels, "bn", "none" if dims == 2 else "sigmoid", narrow=8).double()
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    return net


def literally(
    dims: int, state: literal.State, images: Tensor, others: list[Tensor], codes: tuple[Tensor, Tensor] | None
) -> list[Tensor]:
    encode, decode = {2: (literal.encode_2d, literal.decode_2d), 3: (literal.encode_3d, literal.decode_3d)}[dims]
    features = encode(state, images)
    embedding = literal.head(state, features[-1])
    if codes:
        features = [*features[:-1], literal.gate(state, features[-1], codes[0])]
        others = [*others[:-1], literal.gate(state, others[-1], codes[1])]
    mixed = [ALPHA * own + (1 - ALPHA) * other for own, other in zip(features, others, strict=True)]
    return [embedding, decode(state, features), decode(state, mixed)]


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_values_gradients_and_statistics_are_those_of_the_plain_form(dims: int, gated: bool) -> None:
    net = network(dims)
    images, others, code, other_code = inputs(dims)
    state = {name: tensor.clone() for name, tensor in published_state(net).items()}
    trained = [
        name
        for name, tensor in zip(state, net.state_dict(keep_vars=True).values(), strict=True)
        if tensor.requires_grad
    ]
    for name in trained:
        state[name].requires_grad_()

    codes = (code, other_code) if gated else None
    actual = net(images, Context(others, ALPHA), *(codes or ()))
    expected = literally(dims, state, images, others, codes)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-10)

    sum((i + 1) * (y**2).mean() for i, y in enumerate(actual)).backward()
    sum((i + 1) * (y**2).mean() for i, y in enumerate(expected)).backward()
    own = dict(zip(state, net.state_dict(keep_vars=True).values(), strict=True))
    pairs = [(own[name].grad, state[name].grad) for name in trained if state[name].grad is not None]
    difference = torch.stack([(a - e).norm() for a, e in pairs]).norm()
    assert difference < 1e-11 * torch.stack([e.norm() for _, e in pairs]).norm()
    assert all(own[name].grad is None for name in trained if state[name].grad is None)
    for name, tensor in own.items():
        if "running" in name:
            torch.testing.assert_close(tensor, state[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
def test_one_pass_is_the_first_of_two(dims: int) -> None:
    net = network(dims).eval()
    images, others, _, _ = inputs(dims)
    with torch.no_grad():
        features = net.unet.encode(images)
        mixed = [ALPHA * own + (1 - ALPHA) * other for own, other in zip(features, others, strict=True)]
        first, second = net.unet.decode_both(features, others, ALPHA)
        torch.testing.assert_close(net.unet.decode(features), first)
        torch.testing.assert_close(net.unet.decode(mixed), second)
