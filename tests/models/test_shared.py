"""Weights that passes share have the same gradients as without, in fewer operators."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from methods.pcrl import PCRL
from models.forms import FORMS
from models.layers import OPERATORS, BatchNorm2d, Conv2d
from models.shared import Part, count_batch, shared, sharing
from models.unet import UNet
from models.unet2d import UNet2d
from models.unet3d import UNet3d
from tests.training.test_distributed import make_batch, make_draws, make_method

CPU = torch.device("cpu")


def gradients(method: PCRL, loss: Tensor) -> dict[str, Tensor]:
    method.zero_grad()
    loss.backward()
    return {name: each.grad for name, each in method.student.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("dims", [2, 3])
def test_a_step_is_the_same_as_one_without(dims: int) -> None:
    batch, draws = make_batch(dims, 4, 0), make_draws(4, 0, 1)
    one, other = make_method(dims, "bn"), make_method(dims, "bn")
    with_sharing, without = one(batch, draws), other.step(batch, draws)
    torch.testing.assert_close(with_sharing.loss, without.loss, rtol=1e-12, atol=0)
    found, expected = gradients(one, with_sharing.loss), gradients(other, without.loss)
    assert found.keys() == expected.keys()
    largest = max(each.abs().max().item() for each in expected.values())
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12 * largest)
    buffers = dict(other.named_buffers())
    for name, buffer in one.named_buffers():
        torch.testing.assert_close(buffer, buffers[name], rtol=1e-12, atol=1e-12)
    assert buffers["student.unet." + ("encoder.bn1" if dims == 2 else "up_tr64.ops.1.bn1") + ".num_batches_tracked"] > 1


def test_under_autocast_gradients_have_the_type_and_the_format_of_their_weights() -> None:
    conv = Conv2d(3, 4, 3, bias=False).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), sharing(CPU, Part([conv], 2)):
        outputs = [conv(images), conv(2 * images)]
        assert shared(conv.weight).dtype == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert shared(conv.weight) is conv.weight, "a layer that is computed in float32"
    sum(output.float().square().sum() for output in outputs).backward()
    assert conv.weight.grad.dtype == torch.float32
    assert conv.weight.grad.stride() == conv.weight.stride()


@pytest.mark.parametrize("told", [1, 2, 5])
def test_more_uses_or_fewer_than_told(told: int) -> None:
    weight, idle = nn.Parameter(torch.randn(3).double()), nn.Parameter(torch.ones(2))
    module = nn.Module()
    module.weight, module.idle = weight, idle
    with sharing(CPU, Part([module], told)):
        loss = sum(factor * shared(weight).square().sum() for factor in (1, 2, 3))
    loss.backward()
    torch.testing.assert_close(weight.grad, 12 * weight)
    assert torch.equal(idle.grad, torch.zeros(2)), "what nothing used decays, and no rank waits for it"
    assert shared(weight) is weight


def test_batches_are_counted_together() -> None:
    norms = [BatchNorm2d(2), BatchNorm2d(2)]
    with sharing(CPU):
        for norm in (*norms, norms[0]):
            count_batch(norm)
        assert norms[0].num_batches_tracked == 0
    assert [norm.num_batches_tracked.item() for norm in norms] == [2, 1]


@pytest.mark.parametrize("name", ["composed", "recomputed"])
@pytest.mark.parametrize("dims", [2, 3])
def test_other_forms_are_equal(dims: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    unet: UNet = UNet2d(narrow=8).double() if dims == 2 else UNet3d(narrow=8).double()
    image = torch.rand(2, 3 if dims == 2 else 1, *([32] * 2 if dims == 2 else [16] * 3)).double()
    results = []
    for value in (True, False):
        monkeypatch.setattr(FORMS, name, value)
        first, second = (
            unet.to(memory_format=OPERATORS[dims].channels_last).encode(each) for each in (image, 1 - image)
        )
        maps = unet.decode_both(first, second, 0.7)
        loss = sum(each.square().mean() for each in maps)
        results.append([*maps, *torch.autograd.grad(loss, list(unet.parameters()))])
    for one, other in zip(*results, strict=True):
        assert (one - other).norm() <= 1e-10 * max(one.norm(), 1.0)
