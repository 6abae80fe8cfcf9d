"""DataParallel without GPUs: torch's own scattering and gathering, on replicas that live on the CPU.

A replica shares the parameters, but what it writes is lost, save in the first one's buffers; so nothing that matters
may be written in a replica's forward, and nothing may reach the network's layers but through a replica's forward.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import scatter_gather

from methods.pcrl import PCRL
from tests.training.test_distributed import TOLERANCE, TwoReplicas, make_batch, make_draws, make_method


class Chunks:
    """In place of the copy to GPUs: torch.chunk, as that function does."""

    @staticmethod
    def apply(gpus: list[int], sizes: None, dim: int, tensor: Tensor) -> tuple[Tensor, ...]:
        return tensor.chunk(len(gpus), dim)


class Joined:
    """In place of the copy back to the first GPU."""

    @staticmethod
    def apply(gpu: int, dim: int, *parts: Tensor) -> Tensor:
        return torch.cat(parts, dim)


class Replicas:
    """What DataParallel does with a call, on ``count`` replicas."""

    def __init__(self, count: int) -> None:
        self.count, self.inside, self.calls = count, False, 0
        self.backward = False  # what is not kept for it is computed again then, by the replica that needs it

    def wrap(self, module: nn.Module) -> Callable[..., Any]:
        def call(*inputs: Any) -> Any:
            self.calls += 1
            outputs = []
            for number, part in enumerate(scatter_gather.scatter(inputs, list(range(self.count)))):
                buffers = dict(module.named_buffers())
                if number:
                    buffers = {name: buffer.clone() for name, buffer in buffers.items()}
                self.inside = True
                outputs.append(functional_call(copy.copy(module), dict(module.named_parameters()) | buffers, part))
                self.inside = False
            return scatter_gather.gather(outputs, 0)

        return call

    def watch(self, network: nn.Module) -> None:
        """Have every layer refuse calls from outside a replica."""

        def check(module: nn.Module, inputs: Any) -> None:
            assert self.inside or self.backward, f"{type(module).__name__} was called past DataParallel"

        for module in network.modules():
            module.register_forward_pre_hook(check)


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scatter_gather, "Scatter", Chunks)
    monkeypatch.setattr(scatter_gather, "Gather", Joined)


def parallel(method: PCRL, replicas: Replicas) -> PCRL:
    wrapped = PCRL(method.student, method.config, replicas.wrap).double().train()
    wrapped.load_state_dict(method.state_dict())
    replicas.watch(wrapped.student)
    replicas.watch(wrapped.teacher)
    return wrapped


@pytest.mark.parametrize("size", [5, 2])
def test_group_norm_equals_one_device(size: int) -> None:
    """Five samples over three replicas are 2, 2 and 1; of two samples the third replica gets none."""
    alone = make_method(3, "gn")
    replicas = Replicas(3)
    method = parallel(copy.deepcopy(alone), replicas)
    batch, draws = make_batch(3, size, 0), make_draws(size, 0, ranks=1)
    expected, output = alone(batch, draws), method(batch, draws)
    assert replicas.calls == 4, "two calls of the teacher, two of the student"
    for name, value in expected.terms.items():
        torch.testing.assert_close(output.terms[name], value, rtol=TOLERANCE, atol=0)
    torch.testing.assert_close(output.state.memory, expected.state.memory, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(output.state.z, expected.state.z, rtol=TOLERANCE, atol=0)
    expected.loss.backward()
    replicas.backward = True
    output.loss.backward()
    for ours, theirs in zip(method.trainable(), alone.trainable(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=TOLERANCE, atol=TOLERANCE)


def test_batch_norm_equals_two_replicas_that_shuffle() -> None:
    """Terms, gradients and queue; running statistics are those of the first replica's batches."""
    replicas = Replicas(2)
    method = parallel(make_method(2, "bn"), replicas)
    literal = TwoReplicas(2, shuffles=True)
    batch, draws = make_batch(2, 5, 0), make_draws(5, 0, ranks=1)
    output = method(batch, draws)
    terms = literal.step(batch, draws)
    assert {name: output.terms[name].item() for name in terms} == pytest.approx(terms, rel=TOLERANCE)
    torch.testing.assert_close(output.state.memory, literal.memory, rtol=TOLERANCE, atol=TOLERANCE)
    assert output.state.z.item() == pytest.approx(literal.z, rel=TOLERANCE)
    replicas.backward = True
    output.loss.backward()
    for parameter, gradient in zip(method.trainable(), literal.gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=TOLERANCE, atol=TOLERANCE)
    for ours, theirs in ((method.student, literal.students[0]), (method.teacher, literal.teachers[0])):
        for (name, buffer), (_, expected) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
            torch.testing.assert_close(buffer, expected, rtol=TOLERANCE, atol=TOLERANCE, msg=name)
