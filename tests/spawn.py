"""Real processes, connected by gloo, in place of ranks."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from utils.process_group import ProcessGroup


def _work(rank: int, size: int, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", store, timedelta(minutes=3), world_size=size, rank=rank)
    result = function(ProcessGroup(rank, size), *arguments)
    (Path(folder) / str(rank)).write_bytes(pickle.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


def run_ranks(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """``function(ranks, *arguments)`` in ``size`` processes -> what each returned, in rank order."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_work, (size, folder, function, arguments), nprocs=size)
        return [pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(size)]
