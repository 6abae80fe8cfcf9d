"""Upsampling, joining and convolving in one equals doing them one after the other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import OPERATORS
from models.upconv import (
    MAX_COMPOSED_CHANNELS,
    Mixture,
    _AddToBorder,
    bias_response,
    nearest_kernel,
    upsample_convolve,
)
from tests.examples import examples

ROUNDING = 1e-12  # of float64, relative to the norm


def literally(x: Tensor, skip: Tensor | None, up: nn.Module | None, conv: nn.Module) -> Tensor:
    upsampled = F.interpolate(x, scale_factor=2.0, mode="nearest") if up is None else up(x)
    return conv(upsampled if skip is None else torch.cat([upsampled, skip], dim=1))


def assert_close_in_norm(actual: list[Tensor], expected: list[Tensor]) -> None:
    actual_all, expected_all = (torch.cat([t.flatten() for t in tensors]) for tensors in (actual, expected))
    assert (actual_all - expected_all).norm() <= ROUNDING * expected_all.norm()


def layers(dims: int, channels: int, skip_channels: int, transposed: bool) -> tuple[nn.Module | None, nn.Module]:
    up = OPERATORS[dims].transposed_conv(channels, channels, kernel_size=2, stride=2).double() if transposed else None
    return up, OPERATORS[dims].conv(channels + skip_channels, 3, kernel_size=3, padding=1).double()


@settings(max_examples=examples(30), deadline=None, derandomize=True)
@given(
    size=st.lists(st.integers(1, 4), min_size=2, max_size=3),
    channels=st.integers(1, 5),
    skip_channels=st.integers(0, 3),
    transposed=st.booleans(),
    share=st.sampled_from([None, 0.5, 0.83, 1.0]),
)
def test_values_and_gradients(
    size: list[int], channels: int, skip_channels: int, transposed: bool, share: float | None
) -> None:
    dims = len(size)
    torch.manual_seed(sum(size) + channels)
    up, conv = layers(dims, channels, skip_channels, transposed)
    fine = [2 * length for length in size]
    xs = [
        torch.randn(2, channels, *size, dtype=torch.float64, requires_grad=True)
        for _ in range(1 if share is None else 2)
    ]
    own, other = (torch.randn(2, skip_channels, *fine, dtype=torch.float64, requires_grad=True) for _ in range(2))
    skip = None
    skips: list[Tensor | None] = [None, None]
    if skip_channels:
        skip = Mixture(own) if share is None else Mixture(own, other, share)
        skips = [own, own if share is None else share * own + (1 - share) * other]

    actual = upsample_convolve(xs, skip, up, conv, conv.bias)
    expected = [literally(x, s, up, conv) for x, s in zip(xs, skips, strict=False)]
    assert_close_in_norm(actual, expected)

    leaves = [*xs, *conv.parameters(), *(up.parameters() if up else [])]
    if skip_channels:
        leaves += [own] if share is None else [own, other]
    loss, expected_loss = (sum(((i + 1) * y**2).sum() for i, y in enumerate(ys)) for ys in (actual, expected))
    assert_close_in_norm(list(torch.autograd.grad(loss, leaves)), list(torch.autograd.grad(expected_loss, leaves)))


def test_beyond_the_channels_that_are_worth_composing() -> None:
    channels = MAX_COMPOSED_CHANNELS + 1
    up, conv = layers(3, channels, 2, transposed=True)
    x = torch.randn(1, channels, 2, 1, 2, dtype=torch.float64)
    skip = torch.randn(1, 2, 4, 2, 4, dtype=torch.float64)
    (actual,) = upsample_convolve([x], Mixture(skip), up, conv, conv.bias)
    assert_close_in_norm([actual], [literally(x, skip, up, conv)])


def test_the_bias_of_the_upsampling_stops_at_the_border() -> None:
    ones = torch.ones(1, 1, 3, 3)
    inside, border = bias_response(torch.tensor([2.0]), ones)
    # of 3 x 3 ones, 2 rows or columns are read at a border and 3 inside
    assert inside.tolist() == [18]
    assert (inside + border)[0].tolist() == [[8, 12, 8], [12, 18, 12], [8, 12, 8]]


def test_nearest_kernel_by_hand() -> None:
    row = torch.tensor([[[1.0, 10.0, 100.0]]]).unsqueeze(2) * torch.tensor([0.0, 1.0, 0.0]).view(1, 1, 3, 1)
    # fine position 2i reads i-1, i, i and 2i+1 reads i, i, i+1
    assert nearest_kernel(row)[0, 0, 1].tolist() == [100, 110, 11, 1]


@pytest.mark.parametrize("dims", [2, 3])
def test_memory_format_follows_the_convolution(dims: int) -> None:
    up, conv = layers(dims, 4, 4, transposed=True)
    x, skip = torch.randn(2, 4, *[4] * dims).double(), torch.randn(2, 4, *[8] * dims).double()
    (contiguous,) = upsample_convolve([x], Mixture(skip), up, conv, conv.bias)
    assert contiguous.is_contiguous()
    conv.float().to(memory_format=OPERATORS[dims].channels_last)
    up.float()
    (last,) = upsample_convolve([x.float()], Mixture(skip.float()), up, conv, conv.bias)
    assert last.is_contiguous(memory_format=OPERATORS[dims].channels_last)
    torch.testing.assert_close(last.double(), contiguous, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("transposed", [False, True])
def test_half_precision_rounds_the_kernel_once(transposed: bool) -> None:
    torch.manual_seed(0)
    up, conv = layers(3, 64, 0, transposed)
    x = torch.randn(1, 64, 4, 4, 4)
    expected = literally(x.double(), None, up, conv)
    conv.float()
    if up:
        up.float()
    with torch.autocast("cpu", torch.bfloat16):
        (actual,) = upsample_convolve([x], None, up, conv, conv.bias)
    assert actual.dtype == torch.bfloat16
    assert (actual.double() - expected).norm() < 0.005 * expected.norm()


@pytest.mark.parametrize("dims", [2, 3])
def test_sums_over_a_border_do_not_overflow_in_fp16(dims: int) -> None:
    """Each element of the gradient fits into fp16, whose largest number is 65504; their sum does not."""
    image = torch.zeros(2, 3, *[8] * dims, dtype=torch.float16, requires_grad=True)
    response = torch.zeros(3, *[3] * dims, requires_grad=True)
    output = _AddToBorder.apply(image * 1, response)
    assert output.dtype == torch.float16
    gradient = torch.full_like(output, 30000)
    output.backward(gradient)
    exact = torch.zeros(2, 3, *[8] * dims, dtype=torch.float64, requires_grad=True)
    of_exact = torch.zeros(3, *[3] * dims, dtype=torch.float64, requires_grad=True)
    _AddToBorder.apply(exact * 1, of_exact).backward(gradient.double())
    assert of_exact.grad.max() > 65504
    torch.testing.assert_close(response.grad.double(), of_exact.grad)
