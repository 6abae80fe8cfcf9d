"""A training step without host synchronisation: the device itself decides whether the step is valid (finite).

The ordinary step (training/loop.py) checks the loss before the backward pass, and the gradient before the update. The
gated step always runs both. If loss or gradient is not finite, the fused optimizer skips the update (``found_inf``),
and ``torch.where`` restores the buffers and everything that the method commits. In both kinds of step, an invalid step
changes nothing, and in float32 valid steps give bit-identical results (in 16 bits the gated one rounds alpha and lam).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from methods.base import Batch, Method, StepOutput
from training.precision import Native
from utils.process_group import BatchShards


@dataclass
class Part:
    """A micro-batch: this rank's rows, the draws and shards of all of it, and its share of the step's batch."""

    batch: Batch
    draws: Any
    shards: BatchShards
    share: float


@dataclass
class StepResult:
    """``loss``, ``terms``: means over the batch of all ranks. ``good``: the update took place."""

    loss: float
    terms: dict[str, float]
    good: bool
    images: dict[str, Tensor]
    statistics: dict[str, Tensor]


@dataclass
class Outcome:
    """What a step gave, on the device. ``numbers``: of each part the ``names``, then ``good``, then the statistics."""

    numbers: Tensor
    names: list[str]
    shares: list[float]
    statistics: list[str]
    images: dict[str, Tensor]

    def copied(self) -> Outcome:
        """With pictures of its own: those of a captured step are written over by the next one."""
        return replace(self, images={name: image.clone() for name, image in self.images.items()})

    def reading(self) -> Callable[[], StepResult]:
        """Send the numbers to the host; -> what waits for them, and for no later step."""
        if not self.numbers.is_cuda:
            numbers = self.numbers.clone()
            return lambda: self._result(numbers)
        host = torch.empty(self.numbers.shape, dtype=self.numbers.dtype, pin_memory=True)
        host.copy_(self.numbers, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()

        def read() -> StepResult:
            arrived.synchronize()
            return self._result(host)

        return read

    def _result(self, numbers: Tensor) -> StepResult:
        count = len(self.names) * len(self.shares)
        parts, good, statistics = numbers.split([count, 1, len(self.statistics)])
        sums = dict.fromkeys(self.names, 0.0)
        for share, values in zip(self.shares, parts.view(len(self.shares), -1).tolist(), strict=True):
            for name, value in zip(self.names, values, strict=True):
                sums[name] += share * value
        loss = sums.pop("loss")
        named = dict(zip(self.statistics, statistics.unbind(), strict=True))
        return StepResult(loss, sums, bool(good), self.images, named)


class Snapshot:
    """Values of tensors of one device, as one copy for each type, to be put back."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_type.setdefault(tensor.dtype, []).append(_in_memory_order(tensor))
        self._tensors = list(by_type.values())
        self._values = [torch.cat(tensors) for tensors in self._tensors]

    @torch.no_grad()
    def put_back(self, unless: Tensor | None = None) -> None:
        """Write the values that were, where ``unless`` (a scalar on the device) is not true."""
        for tensors, former in zip(self._tensors, self._values, strict=True):
            values = former if unless is None else torch.where(unless, torch.cat(tensors), former)
            torch._foreach_copy_(tensors, list(values.split([tensor.numel() for tensor in tensors])))


def _in_memory_order(tensor: Tensor) -> Tensor:
    """A dense tensor as a vector that shares its memory, whatever its memory format."""
    return tensor.detach().as_strided((tensor.numel(),), (1,))


class GatedStep:
    """The step itself. ``forward``: the method's, or its parallel form. Made for an optimizer that is fused."""

    def __init__(
        self, method: Method, forward: Callable[..., StepOutput], optimizer: torch.optim.Optimizer, precision: Native
    ) -> None:
        self.method, self.optimizer, self.precision = method, optimizer, precision
        self._forward = forward

    def __call__(self, parts: list[Part], exchange_later: Callable[[bool], AbstractContextManager[None]]) -> Outcome:
        """Forward, backward, update, commit. ``exchange_later``: whether ranks keep their gradients for now."""
        buffers = Snapshot(self.method.buffers())
        self.optimizer.zero_grad(set_to_none=True)
        values, loss = [], None
        for number, part in enumerate(parts, 1):
            with exchange_later(number < len(parts)):
                with self.precision.autocast():
                    output = self._forward(part.batch, part.draws)
                values.append(part.shards.mean(output.values()))
                self.precision.backward(output.loss * (part.shards.weight * part.share), self.optimizer)
            loss = values[-1][0] * part.share + (0 if loss is None else loss)
            if number < len(parts):
                self.method.on_micro_batch_end(output)
        assert loss is not None, "a batch has samples"
        good = self.precision.update_if(loss.isfinite(), self.optimizer)
        committed = Snapshot(self.method.committed())
        self.method.commit(output)
        committed.put_back(unless=good)
        buffers.put_back(unless=good)
        numbers = [*values, good.view(1), *(value.view(1) for value in output.statistics.values())]
        return Outcome(
            torch.cat([each.to(values[0].dtype) for each in numbers]),
            output.names(),
            [part.share for part in parts],
            list(output.statistics),
            output.images,
        )

    def state(self) -> dict[str, list[Tensor]]:
        """Every tensor that a step may change, by what it is."""
        found: dict[str, list[Tensor]] = {}
        for name, parameter in self.method.named_parameters():
            found.setdefault(f"{name.partition('.')[0]} parameters", []).append(parameter)
        for name, buffer in self.method.named_buffers():
            found.setdefault(" ".join(dict.fromkeys((name.split(".")[0], name.split(".")[-1]))), []).append(buffer)
        for state in self.optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, Tensor):
                    found.setdefault(f"optimizer {name}", []).append(value)
        return found | self.precision.scale()


def can_be_gated(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer is fused, and so can skip an update without the host."""
    return all(group.get("fused") for group in optimizer.param_groups)


def has_begun(optimizer: torch.optim.Optimizer) -> bool:
    """Whether each parameter has its state: what a first step makes would stay if that was a bad one."""
    if isinstance(optimizer, torch.optim.SGD) and all(group["momentum"] == 0 for group in optimizer.param_groups):
        return True
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return all(
        parameter in optimizer.state and all(value is not None for value in optimizer.state[parameter].values())
        for parameter in parameters
    )
