"""The processes that train together, called ranks, and what they tell each other. One process alone is a special case.

A batch of B samples is dealt to the ranks in rank order, as ``numpy.array_split`` deals: the first ranks have one
sample more than the last ones where B is no multiple of their number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from utils.errors import UserError
from utils.transfer import to_device

T = TypeVar("T")
LONGEST_WORK = timedelta(days=7)  # of one rank while others wait for it


@dataclass(frozen=True)
class ProcessGroup:
    """This process is number ``rank`` of ``size``. With more than one, torch.distributed must be set up."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Rank 0 writes files and speaks; the others do neither."""
        return self.rank == 0

    @property
    def on_several_machines(self) -> bool:
        """Whether a launcher started some of these processes on other machines."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.size)) < self.size

    def shares(self, total: int) -> BatchShards:
        """How a batch of ``total`` samples is dealt."""
        return BatchShards(self, total)

    def gather_objects(self, value: T) -> list[T]:
        """Every rank's ``value`` (anything that can be pickled), in rank order, on all ranks. All ranks must call."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # all were filled

    def gather_when_done(self, work: Callable[[], T]) -> list[T]:
        """What ``work`` gives on each rank, as of :meth:`gather_objects`, however much longer one of them works.

        For work that is dealt once and then awaited, as files to predict: else a rank that has less to do would take
        the others for hanging. It still notices at once if one of them ends. All ranks must call at about one time.
        """
        if self.size == 1:
            return [work()]
        patient = self._patient  # made before the work: it needs all ranks
        value = work()
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value, group=patient)
        return values  # type: ignore[return-value]  # all were filled

    def first_alone(self, work: Callable[[], T]) -> T:
        """What ``work`` gives on the first rank, on all ranks, however long it takes. A UserError becomes everyone's.

        All ranks must call at about one time.
        """

        def own() -> tuple[T | None, str | None]:
            try:
                return (work() if self.first else None), None
            except UserError as error:
                return None, str(error)

        value, message = self.gather_when_done(own)[0]
        if message is not None:
            raise UserError(message)
        return value  # type: ignore[return-value]  # of the first rank

    @cached_property
    def _patient(self) -> Any:
        """The same ranks, with another limit on how long they wait for each other."""
        return dist.new_group(backend="gloo", timeout=LONGEST_WORK)

    def broadcast(self, value: T) -> T:
        """The first rank's ``value``, on all ranks. All ranks must call."""
        if self.size == 1:
            return value
        values = [value if self.first else None]
        dist.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[return-value]  # it was filled

    @contextmanager
    def raise_on_all(self) -> Iterator[None]:
        """A UserError that one rank meets inside becomes every rank's. No collective calls inside."""
        message = None
        try:
            yield
        except UserError as error:
            message = str(error)
        messages = [text for text in self.gather_objects(message) if text is not None]
        if messages:
            raise UserError(messages[0])


@dataclass(frozen=True)
class _Plan:
    """How rows travel to be in another order: own rows to send, how many to and from each rank, and their places."""

    outgoing: Tensor
    sent: list[int]
    received: list[int]
    arrived: Tensor


@dataclass(frozen=True)
class BatchShards:
    """How the ``total`` rows of one batch are dealt to the ranks, and collective work on rows dealt so.

    "Global" rows are all ranks' rows, one rank's after the other's. Nothing here is differentiable.
    """

    ranks: ProcessGroup
    total: int

    @cached_property
    def sizes(self) -> list[int]:
        """Rows of each rank."""
        quotient, rest = divmod(self.total, self.ranks.size)
        return [quotient + (rank < rest) for rank in range(self.ranks.size)]

    @cached_property
    def slices(self) -> list[slice]:
        """Each rank's rows among the global ones."""
        ends = [sum(self.sizes[: rank + 1]) for rank in range(self.ranks.size)]
        return [slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True)]

    @property
    def own(self) -> slice:
        """This rank's rows among the global ones."""
        return self.slices[self.ranks.rank]

    @property
    def weight(self) -> float:
        """This rank's part of the batch, times the number of ranks: 1 where all have equally many rows.

        A mean over the ranks of what is weighted so is the mean over the batch.
        """
        return self.sizes[self.ranks.rank] * self.ranks.size / self.total

    @torch.no_grad()
    def gather(self, rows: Tensor) -> Tensor:
        """This rank's rows (b, ...) -> the global rows (total, ...), bitwise equal on all ranks."""
        if self.ranks.size == 1:
            return rows
        largest = max(self.sizes)
        padded = rows.new_zeros(largest, *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in self.sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, self.sizes, strict=True)])

    @torch.no_grad()
    def mean(self, values: Tensor) -> Tensor:
        """Means over this rank's rows (any shape) -> means over the batch, bitwise equal on all ranks."""
        if self.ranks.size == 1:
            return values
        parts = [torch.empty_like(values) for _ in self.sizes]
        dist.all_gather(parts, values.contiguous())
        sizes = to_device(torch.tensor(self.sizes, dtype=values.dtype), values.device)
        return torch.tensordot(sizes, torch.stack(parts), dims=1) / self.total

    @torch.no_grad()
    def permute(self, rows: Tensor, order: Tensor) -> Tensor:
        """This rank's part of ``global[order]``: the global rows put in another order and dealt anew.

        ``rows``: this rank's (b, ...). ``order``: a permutation of all ``total``, equal on all ranks. Each row
        travels once, from the rank that has it to the one that gets it. The host does not wait for the device if
        ``order`` is on the CPU. The memory format stays.
        """
        if self.ranks.size == 1:
            return rows[order.to(rows.device)]
        if id(order) not in self._plans:
            self._plans[id(order)] = self._plan(order.cpu(), rows.device), order
        plan, _ = self._plans[id(order)]
        axes = [0, *sorted(range(1, rows.dim()), key=rows.stride, reverse=True)]  # as they lie in memory
        outgoing = rows.permute(axes)[plan.outgoing].contiguous()
        incoming = torch.empty_like(outgoing)
        dist.all_to_all_single(incoming, outgoing, plan.received, plan.sent)
        return incoming[plan.arrived].permute([axes.index(axis) for axis in range(rows.dim())])

    @cached_property
    def _plans(self) -> dict[int, tuple[_Plan, Tensor]]:
        """By the id of an order, which is kept with its plan, so that no other one has this id."""
        return {}

    def _plan(self, order: Tensor, device: torch.device) -> _Plan:
        """Made on the CPU, where counting needs no synchronisation."""
        owner = torch.repeat_interleave(torch.tensor(self.sizes))
        sent = [part[owner[part] == self.ranks.rank] for part in (order[rows_of] for rows_of in self.slices)]
        senders = owner[order[self.own]]
        arrival = torch.argsort(senders, stable=True)  # rows arrive sorted by sender: here is where each belongs
        return _Plan(
            to_device(torch.cat(sent) - self.own.start, device),
            [len(part) for part in sent],
            torch.bincount(senders, minlength=self.ranks.size).tolist(),
            to_device(torch.argsort(arrival), device),
        )


SINGLE = ProcessGroup()
