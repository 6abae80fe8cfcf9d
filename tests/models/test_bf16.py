"""Gradients in bf16 on the CPU are near those in float32, whatever memory held before."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from models.pcrl import build_network


def poison() -> None:
    """Leave huge numbers in memory that is given back: whoever reads what nobody has written finds them."""
    for power in range(10, 23):
        kept = [torch.full((2**power + 97 * number,), 1e30) for number in range(4)]
        del kept


def gradients(network: nn.Module, images: torch.Tensor, bf16: bool) -> dict[str, torch.Tensor]:
    network = copy.deepcopy(network)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        features = network.unet.encode(images)
        poison()
        outputs = network.unet.decode_both(features, features, 0.7)
    loss = (
        sum(output.float().square().mean() for output in outputs) + network.head(features[-1].float()).square().mean()
    )
    poison()
    loss.backward()
    return {name: p.grad for name, p in network.unet.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("dims", "shape"), [(3, (16, 16, 16)), (3, (16, 24, 8)), (3, (8, 32, 16)), (3, (64, 48, 8)), (2, (64, 64))]
)
def test_gradients(dims: int, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    channels = 3 if dims == 2 else 1
    network = build_network(dims, channels, channels, "bn", "none", narrow=4)  # which oneDNN errs with as often
    images = torch.rand(2, channels, *shape)
    expected = gradients(network, images, bf16=False)
    for _ in range(3):
        found = gradients(network, images, bf16=True)
        for name, gradient in found.items():
            # Rounding in bf16 grows on its way down; garbage is larger by orders of magnitude.
            assert gradient.norm() < 3 * expected[name].norm() + 1e-2, name
