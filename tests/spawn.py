"""Processes, connected by gloo, in place of ranks: forks of one that has all imports done (tests/inprocess.py)."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.inprocess import CONTEXT
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
        ranks = [CONTEXT.Process(target=_work, args=(rank, size, folder, function, arguments)) for rank in range(size)]
        for process in ranks:
            process.start()
        try:
            left = {process.sentinel: process for process in ranks}
            while left:
                for ended in wait(list(left)):
                    assert left.pop(ended).exitcode == 0, "a rank has failed: its error is printed above"  # type: ignore[index]
        finally:
            for process in ranks:  # which might wait for the one that failed
                process.kill()
                process.join()
        return [pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(size)]
