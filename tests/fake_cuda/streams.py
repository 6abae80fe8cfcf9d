"""torch's own streams, allocator and captures on a GPU that is not there; prints what was found as JSON.

    python -m tests.fake_cuda.streams

In an environment that :func:`tests.fake_cuda.run.run` makes.
"""

from __future__ import annotations

import ctypes
import json
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from datasets.loader import Key, Loader
from training.capture import _end_allocation, _memory_comes_back, cuda_graph
from training.gated import Outcome
from utils.errors import UserError

CUDA = torch.device("cuda", 0)
RUNTIME = ctypes.CDLL(os.environ["LD_PRELOAD"])
RUNTIME.what_was_asked.restype = ctypes.c_char_p
Found = Iterator[tuple[str, Any]]


def asked() -> list[str]:
    """What was asked of streams since the last call: ``copy``, ``wait``, ... and the stream, 0 the default one."""
    lines = RUNTIME.what_was_asked().decode().splitlines()
    RUNTIME.forget_what_was_asked()
    return lines


class Samples:
    """Of the numbers 0, 1, ..."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        return {"x": torch.full((1000,), float(key[1]))}


def batches() -> Found:
    """How a batch gets to the device, and when its memory is given to another one."""
    loader = Loader(Samples(), 2, 0, 0, CUDA, shuffled=False)
    rounds = loader.epoch(0)
    asked()
    batch = next(rounds)["x"]
    yield "asked for a batch", asked()
    yield "device", str(batch.device)
    yield "values", ctypes.cast(batch.data_ptr(), ctypes.POINTER(ctypes.c_float))[1000]
    RUNTIME.let_events_be_ready(0)  # the step on this batch is not over
    place = batch.data_ptr()
    del batch
    with torch.cuda.stream(loader._stream):
        other = torch.empty(2, 1000, device=CUDA)
    yield "another place while it is used", other.data_ptr() != place
    RUNTIME.let_events_be_ready(1)


def outcome() -> Outcome:
    return Outcome(torch.empty(3, device=CUDA), [], [], [], {})


def captures() -> Found:
    """What a capture leaves behind."""
    before = torch.cuda.current_stream()
    asked()
    replay = cuda_graph(outcome)
    yield "asked for a capture", [line.split(" ")[:-1] for line in asked() if "capture" in line]
    replay()
    yield "asked for a replay", asked()
    RUNTIME.let_captures_fail(1)

    def broken() -> Outcome:
        torch.empty(100, device=CUDA)
        raise RuntimeError("this is why\nat length")

    for name, compute in (("broken", broken), ("invalid", outcome)):
        try:
            cuda_graph(compute)
        except RuntimeError as error:
            yield f"{name}: why", str(error)
        yield f"{name}: as before", torch.cuda.current_stream() == before and _memory_comes_back(CUDA)


def older_torch() -> Found:
    """What older versions of torch need after a failed capture."""
    pool = torch.cuda.graph_pool_handle()
    torch._C._cuda_beginAllocateToPool(0, pool)  # they do not end it
    _end_allocation(CUDA, pool)
    try:
        torch._C._cuda_endAllocateToPool(0, pool)
    except RuntimeError as error:
        yield "ended", str(error)
    RUNTIME.let_events_be_ready(0)
    try:
        cuda_graph(outcome)
    except UserError as error:
        yield "memory that does not come back", str(error)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # no torch is built for such a GPU
    for part in (batches, captures, older_torch):
        for name, value in part():
            print(json.dumps({name: value}), flush=True)
