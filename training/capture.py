"""Captures of a computation: as a CUDA graph, and a stand-in for it on the CPU."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from training.gated import Outcome
from utils.errors import UserError

Compute = Callable[[], Outcome]
Capture = Callable[[Compute], Compute]
# How memory ceases to be taken from a graph's pool, in torch since 2.8 and before.
END_ALLOCATION = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")
PROBE_BYTES = 2**20


def calls_again(compute: Compute) -> Compute:
    """Stand-in for a capture: each call computes again and writes into the tensors of the first outcome."""
    kept: list[Outcome] = []

    def replay() -> Outcome:
        outcome = compute()
        if not kept:
            kept.append(outcome)
        for mine, new in zip(_tensors(kept[0]), _tensors(outcome), strict=True):
            mine.copy_(new)
        return kept[0]

    return replay


def _tensors(outcome: Outcome) -> list[Tensor]:
    return [outcome.numbers, *outcome.images.values()]


def cuda_graph(compute: Compute) -> Compute:
    """Capture the operations; a call of the result launches all of them at once.

    RuntimeError if it fails, with streams and memory as they were. UserError if memory cannot be put in order.
    """
    gc.collect()  # what holds on to an earlier stream's gradients would spoil the capture
    graph, pool, stream = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle(), torch.cuda.current_stream()
    try:
        # thread_local: meanwhile the loader's thread may pin the memory of the next batch.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            outcome = compute()
    except RuntimeError as error:
        why = first_cause(error)
    else:

        def replay() -> Outcome:
            graph.replay()
            return outcome

        return replay
    torch.cuda.set_stream(stream)  # torch leaves the capture's stream the current one
    graph.reset()
    _end_allocation(stream.device, pool)
    if not _memory_comes_back(stream.device):
        raise UserError(
            f"the capture of a CUDA graph failed ({why}), and torch {torch.__version__} would free no memory any more: "
            "start again with --cuda_graph off"
        )
    raise RuntimeError(why)


def first_cause(error: BaseException) -> str:
    """The first line of the error that others followed: the end of a failed capture fails, too."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _end_allocation(device: torch.device, pool: tuple[int, int]) -> None:
    """End what capture_end leaves underway, if it fails, in older torch (pytorch/pytorch#180395)."""
    for end in filter(None, (getattr(torch._C, name, None) for name in END_ALLOCATION)):
        with suppress(RuntimeError):  # it has been ended, and so has the graph's use of the pool
            end(device.index, pool)
            torch._C._cuda_releasePool(device.index, pool)


def _memory_comes_back(device: torch.device) -> bool:
    """Whether the allocator takes back what another stream has used, which older versions do not during a capture."""

    def in_use() -> int:
        return torch.cuda.memory_stats(device)["active_bytes.all.current"]

    torch.cuda.synchronize(device)
    before = in_use()
    probe = torch.empty(PROBE_BYTES, dtype=torch.uint8, device=device)
    probe.record_stream(torch.cuda.Stream(device))
    del probe
    torch.cuda.synchronize(device)
    torch.empty(1, device=device)  # here the allocator looks which streams have finished
    return in_use() <= before
