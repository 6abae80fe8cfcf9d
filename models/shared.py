"""Weights that a step uses in several passes: cast once, and the gradients of all uses added at once.

autograd adds the gradient of every use of every weight in an operator of its own, and autocast casts at each use what
needs no gradient, such as the teacher's weights. On a GPU these hundreds of small operators cost more than their work.
Within :func:`sharing`, each use of a weight gets an alias of its own, which one function has made for all weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, overload, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

NORMS = (_NormBase, nn.GroupNorm)  # their weights are not cast


class Part(NamedTuple):
    """Modules, each with its own parameters only, and how often a step uses them at most."""

    modules: Sequence[nn.Module]
    uses: int


class Prepared(NamedTuple):
    """What is made of a convolution's weights before it is used (models/upconv.py); ``border`` is not cast."""

    kernel: Tensor
    bias: Tensor | None
    skip: Tensor | None
    border: Tensor | None = None


@runtime_checkable
class Preparing(Protocol):
    """A module that prepares the weights of one of its convolutions."""

    def prepare(self) -> tuple[nn.Module, Prepared, list[Tensor]]:
        """The convolution, what is prepared for it, and the parameters that are used for nothing else."""


class _Share(torch.autograd.Function):
    """Tensors -> ``uses`` aliases of each, those of the first use first; of the first ``count`` tensors in ``dtype``.

    A tensor whose aliases have no gradient has one of zeros: so has a bias that a batch normalisation follows.
    """

    @staticmethod
    def forward(ctx: Any, uses: int, count: int, dtype: torch.dtype | None, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        values = list(tensors)
        if dtype is not None:
            values[:count] = _copied([torch.empty_like(tensor, dtype=dtype) for tensor in tensors[:count]], tensors)
        return tuple(value.detach() for _ in range(uses) for value in values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        of_each = [[g for g in grads[number :: len(tensors)] if g is not None] for number in range(len(tensors))]
        totals = _sums(of_each)
        cast = [n for n, total in totals.items() if total.dtype != tensors[n].dtype]
        totals |= zip(
            cast, _copied([torch.empty_like(tensors[n]) for n in cast], [totals[n] for n in cast]), strict=True
        )
        unused = {n: torch.empty_like(tensor) for n, tensor in enumerate(tensors) if n not in totals}
        if unused:
            torch._foreach_zero_(list(unused.values()))
        totals |= unused
        return None, None, None, *(totals[number] for number in range(len(tensors)))


def _copied(targets: list[Tensor], sources: Sequence[Tensor]) -> list[Tensor]:
    """The targets, with the values of the first sources: together where both lie in memory alike, which is faster."""
    pairs = list(zip(targets, sources, strict=False))
    alike = [(target, source) for target, source in pairs if target.stride() == source.stride()]
    if alike:
        torch._foreach_copy_([target for target, _ in alike], [source for _, source in alike])
    for target, source in pairs:
        if target.stride() != source.stride():
            target.copy_(source)
    return targets


def _sums(of_each: list[list[Tensor]]) -> dict[int, Tensor]:
    """The sums of the lists that are not empty, by their number. The tensors are left as they are."""
    sums = {number: tensors[0] for number, tensors in enumerate(of_each) if tensors}
    for dtype in {tensor.dtype for tensor in sums.values()}:  # those of one type are added by one kernel
        numbers = [number for number, tensor in sums.items() if tensor.dtype == dtype]
        for at in range(1, max(len(of_each[number]) for number in numbers)):
            numbers = [number for number in numbers if len(of_each[number]) > at]
            added = [sums[number] for number in numbers], [of_each[number][at] for number in numbers]
            if at == 1:
                sums |= zip(numbers, torch._foreach_add(*added), strict=True)
            else:
                torch._foreach_add_(*added)
    return sums


class _Step:
    """What is shared at the moment. ``aliases``: by the id of a tensor, itself and its aliases."""

    def __init__(self, dtype: torch.dtype | None) -> None:
        self.dtype = dtype
        self.aliases: dict[int, tuple[Tensor, list[Tensor]]] = {}
        self.prepared: dict[int, Prepared] = {}
        self.counters: Counter[Tensor] = Counter()

    def share(self, part: Part) -> None:
        cast: list[Tensor] = []
        exact: list[Tensor] = []
        replaced: set[int] = set()
        for module in part.modules:
            if isinstance(module, Preparing):
                conv, made, parameters = module.prepare()
                self.prepared[id(conv)] = made
                replaced |= {id(parameter) for parameter in parameters}
                cast += [tensor for tensor in made[:3] if tensor is not None]
                exact += [made.border] if made.border is not None else []
        for module in part.modules:
            parameters = [each for each in module.parameters(recurse=False) if id(each) not in replaced]
            (exact if isinstance(module, NORMS) else cast).extend(parameters)
        for trained in (True, False):
            of_cast, of_exact = ([each for each in some if each.requires_grad == trained] for some in (cast, exact))
            if tensors := [*of_cast, *of_exact]:
                aliases = _Share.apply(part.uses, len(of_cast), self.dtype, *tensors)
                self.aliases |= {id(t): (t, list(aliases[number :: len(tensors)])) for number, t in enumerate(tensors)}


_step: _Step | None = None


def _autocast_type(device: torch.device) -> torch.dtype | None:
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


@overload
def shared(weight: Tensor) -> Tensor: ...


@overload
def shared(weight: Tensor | None) -> Tensor | None: ...


def shared(weight: Tensor | None) -> Tensor | None:
    """A weight, or its alias for one use of it; if there are more uses than were told, they have the last one."""
    if weight is None or _step is None or id(weight) not in _step.aliases:
        return weight
    if _step.dtype != _autocast_type(weight.device):  # this layer is computed in another type
        return weight
    _, aliases = _step.aliases[id(weight)]
    return aliases.pop() if len(aliases) > 1 else aliases[0]


def is_shared(weight: Tensor) -> bool:
    """Whether it gets a gradient also where its aliases have none."""
    return _step is not None and id(weight) in _step.aliases


def prepared(conv: nn.Module, make: Callable[[], Prepared]) -> Prepared:
    """What was made of the convolution's weights for this step, for uses as :func:`shared`; or what ``make`` makes."""
    found = _step.prepared.get(id(conv)) if _step else None
    return make() if found is None else found


def count_batch(norm: nn.Module) -> None:
    """``num_batches_tracked`` of a batch normalisation plus one, in :func:`sharing` together with all others."""
    counter = norm._buffers.get("num_batches_tracked")
    if counter is None:
        return
    if _step is None:
        counter.add_(1)
    else:
        _step.counters[counter] += 1


@contextmanager
def sharing(device: torch.device, *parts: Part) -> Iterator[None]:
    """Share the weights of ``parts`` in forward passes that are computed inside; their backward pass may follow."""
    global _step
    outer, _step = _step, _Step(_autocast_type(device))
    try:
        for part in parts:
            _step.share(part)
        yield
    finally:
        counters, _step = _step.counters, outer
        if counters:
            with torch.no_grad():
                torch._foreach_add_(list(counters), list(counters.values()))
