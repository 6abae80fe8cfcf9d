"""Computing again gives the same numbers, and moves the running statistics once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.layers import norm_layer
from models.recompute import lean_convolve


def run(norm: nn.Module, conv: nn.Module, inputs: list[Tensor], lean: bool) -> list[Tensor]:
    activation = nn.ReLU(inplace=True)
    outputs = [lean_convolve(norm, activation, conv, x * 1) if lean else conv(activation(norm(x * 1))) for x in inputs]
    leaves = [*inputs, *norm.parameters(), *conv.parameters()]
    return [*outputs, *torch.autograd.grad(sum((y**2).sum() for y in outputs), leaves)]


@pytest.mark.parametrize("norm_name", ["bn", "gn", "in"])
def test_same_values_gradients_and_statistics(norm_name: str) -> None:
    torch.manual_seed(0)
    conv = nn.Conv3d(8, 4, 3, padding=1)
    norms = [norm_layer(norm_name, 8, 3) for _ in range(2)]
    inputs = [torch.randn(2, 8, 4, 4, 4, requires_grad=True) for _ in range(2)]  # one norm, two passes
    plain, lean = (run(norm, conv, inputs, lean) for norm, lean in zip(norms, (False, True), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain, lean, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(norms[0].buffers(), norms[1].buffers(), strict=True))


def test_keeps_neither_the_normalised_nor_the_activated_map() -> None:
    norm, conv, x = nn.BatchNorm2d(8), nn.Conv2d(8, 1, 3), torch.randn(4, 8, 32, 32, requires_grad=True)
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        conv(torch.relu(norm(x)))
    plain = sum(kept)
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        lean_convolve(norm, nn.ReLU(), conv, x)
    assert plain >= 2 * x.numel()
    assert sum(kept) == x.numel()  # x itself


def test_without_gradients_nothing_is_kept() -> None:
    norm, conv = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3)
    with torch.no_grad():
        assert not lean_convolve(norm, nn.ReLU(), conv, torch.randn(2, 3, 8, 8)).requires_grad
    assert norm.num_batches_tracked == 1


def test_can_be_compiled() -> None:
    torch.manual_seed(0)
    norm, conv, x = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3), torch.randn(2, 3, 8, 8, requires_grad=True)
    compiled = torch.compile(lean_convolve, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(
        torch.autograd.grad(compiled(norm, nn.ReLU(), conv, x).square().sum(), x),
        torch.autograd.grad(lean_convolve(norm, nn.ReLU(), conv, x).square().sum(), x),
    )
