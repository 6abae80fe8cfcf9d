"""What is computed otherwise on a GPU, in fewer operations, is the same: here by its parts, on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models import layers
from models.layers import OPERATORS, before_norm, normalise_as_2d, with_zero_gradients
from models.unet3d import UNet3d
from models.upconv import (
    _AddToBorder,
    bias_response,
    composed_at_once,
    composed_kernel,
    gathered_response,
    spread_response,
)


def with_gradients(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    leaves = [each.detach().clone().requires_grad_() for each in inputs]
    output = function(*leaves)
    weights = torch.linspace(1, 2, output.numel(), dtype=output.dtype).view_as(output)
    return [output.detach(), *torch.autograd.grad((weights * output).sum(), leaves)]


@pytest.mark.parametrize("dims", [2, 3])
def test_a_kernel_composed_at_once(dims: int) -> None:
    torch.manual_seed(0)
    up, conv = torch.randn(5, 4, *[2] * dims).double(), torch.randn(3, 4, *[3] * dims).double()
    both = (with_gradients(function, up, conv) for function in (composed_at_once, composed_kernel))
    for actual, expected in zip(*both, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(2, 4, 6), (8, 6, 4), (2, 6)])
def test_borders_added_as_a_whole_map(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    dims = len(size)
    image, bias = torch.randn(2, 3, *size).double(), torch.randn(4).double()
    _, border = bias_response(bias, torch.randn(3, 4, *[3] * dims).double())
    added = _AddToBorder.apply(image.clone(), border)
    assert torch.equal(image + spread_response(border, size), added)

    grad = torch.randn(2, 3, *size).double()
    _, expected = _AddToBorder.backward(None, grad)
    torch.testing.assert_close(gathered_response(grad.sum(0)), expected, rtol=1e-12, atol=1e-12)


def test_a_map_of_three_axes_is_normalised_as_one_of_two() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 4, 6, 5).double().to(memory_format=torch.channels_last_3d)
    norms = [OPERATORS[3].batch_norm(8).double() for _ in range(2)]
    actual = with_gradients(lambda x: normalise_as_2d(norms[0], x), x)
    for one, other in zip(actual, with_gradients(norms[1], x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        assert one.stride() == other.stride()
    for one, other in zip(norms[0].buffers(), norms[1].buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def gradients(network: UNet3d, volume: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    network.decode(network.encode(volume)).square().mean().backward()
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


def test_biases_that_a_batch_normalisation_follows_have_a_gradient_of_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of zeros, and not none: weight decay and momentum act on them, and ranks wait for each gradient."""
    torch.manual_seed(0)
    network, volume = UNet3d(narrow=8).double(), torch.rand(2, 1, 8, 8, 8).double()
    computed = gradients(network, volume)
    monkeypatch.setattr(
        layers, "_is_idle", lambda bias, norm: bias.requires_grad and norm.training and isinstance(norm, nn.BatchNorm3d)
    )
    left_out = gradients(network, volume)
    assert left_out.keys() == computed.keys()
    scale = max(gradient.abs().max() for gradient in computed.values())
    for name, gradient in left_out.items():
        torch.testing.assert_close(gradient, computed[name], rtol=1e-9, atol=1e-13 * scale.item())
    zero = [name for name, gradient in left_out.items() if not gradient.any()]
    assert len(zero) == 14
    assert all(name.endswith("conv1.bias") for name in zero)

    network.eval()  # running statistics: a bias counts
    assert all(gradient.any() for name, gradient in gradients(network, volume).items() if name in zero)


def test_a_bias_keeps_its_gradient_where_no_batch_norm_follows() -> None:
    bias = nn.Parameter(torch.ones(8))
    assert before_norm(bias, nn.GroupNorm(8, 8)) is bias
    assert before_norm(None, nn.BatchNorm3d(8)) is None
    x = torch.ones(1)
    assert with_zero_gradients(x, [(nn.Conv3d(1, 8, 3), nn.BatchNorm3d(8))]) is x, "on the CPU they are computed"
