"""Whether training computes the same on two devices, in each precision and format, with a graph, on several GPUs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.gpu_step import BATCHES, Way, make_batches, make_trainer
from methods.pcrl import PCRLDraws
from methods.spec import Wrap
from training.devices import Devices
from utils.process_group import SINGLE, ProcessGroup

CPU = torch.device("cpu")
SMALL: dict[int, tuple[int, ...]] = {2: (64, 64), 3: (32, 32, 16)}
BATCH, STEPS = 4, 6  # a graph replays from the fourth step on
TERMS = ("nce", "nce_mixup", "nce_mixed_key", "rec", "rec_mixup", "rec_mixed", "rec_mixup_mixed")
PRECISIONS = ("float32", "bfloat16", "float16")
# Of the mean of a term over the steps: how far it may be from float32 on the CPU, and with a graph from without.
DEVICES = {"float32": 0.02, "bfloat16": 0.05, "float16": 0.05}
GRAPH = {"float32": 2e-3, "bfloat16": 2e-2, "float16": 2e-2}
RANKS = 0.01
TWO = ProcessGroup(0, 2)


class Answer(NamedTuple):
    """``good`` None: it was not tried, and ``detail`` says why."""

    good: bool | None
    detail: str = ""


Check = tuple[str, Callable[[], Answer]]


def losses(
    dims: int,
    device: torch.device,
    way: Way,
    ranks: ProcessGroup = SINGLE,
    wrap: Wrap = lambda module: module,
    draws: ProcessGroup = SINGLE,
) -> np.ndarray:
    """(steps, terms), of different batches; the loss comes first. ``draws``: by whom random numbers are drawn."""
    trainer, batches = make_trainer(dims, device, way, ranks, wrap), make_batches(dims, BATCH, SMALL[dims], device)
    trainer.method.draw = lambda size, rng: PCRLDraws.sample(draws.shares(size), rng)  # type: ignore[method-assign, assignment]
    rows, found = ranks.shares(BATCH).own, []
    for number in range(STEPS):
        batch = {name: value[rows] for name, value in batches[number % BATCHES].items()}
        result = trainer.step(batch, number, BATCH)
        found.append([result.loss, *(result.terms[name] for name in TERMS)])
    return np.array(found)


def apart(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest relative difference of the means over the steps."""
    means, expected = found.mean(axis=0), wanted.mean(axis=0)
    return float((abs(means - expected) / np.maximum(abs(expected), 1e-6)).max())


def precisions(device: torch.device, quick: bool) -> Iterator[Check]:
    """Each precision and memory format against float32 on the CPU, and with a graph against without."""
    narrow = 16 if quick else 1
    for dims in (2, 3):
        wanted = losses(dims, CPU, Way("float32", False, narrow=narrow))
        for precision in PRECISIONS:
            for channels_last in (True,) if quick else (False, True):
                what = f"{dims}D {precision}, {'channels-last' if channels_last else 'contiguous'}"
                way = Way(precision, channels_last, narrow=narrow)
                yield f"{what} = CPU, graph = no graph", lambda d=dims, w=way, e=wanted: _both(d, device, w, e)  # type: ignore[misc]
        yield f"{dims}D float32, deterministic: graph = no graph", lambda d=dims: _to_the_bit(d, device, narrow)  # type: ignore[misc]


def _both(dims: int, device: torch.device, way: Way, wanted: np.ndarray) -> Answer:
    if way.precision == "float16" and device.type == "cpu":
        return Answer(None, "fp16 is for GPUs")
    plain = losses(dims, device, way)
    replayed = losses(dims, device, way._replace(graph=BATCH))
    of_device, of_graph = apart(plain, wanted), apart(replayed, plain)
    good = of_device < DEVICES[way.precision] and of_graph < GRAPH[way.precision]
    return Answer(good, f"{of_device:.1e}, {of_graph:.1e} apart")


def _to_the_bit(dims: int, device: torch.device, narrow: int) -> Answer:
    way = Way("float32", False, narrow=narrow)
    with _exact():
        plain, replayed = (losses(dims, device, way._replace(graph=graph)) for graph in (0, BATCH))
    return Answer(bool((plain == replayed).all()), "the same bits are wanted")


@contextmanager
def _exact() -> Iterator[None]:
    """Deterministic kernels where there are such, and no TF32."""
    tf32 = torch.backends.cudnn.allow_tf32
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.allow_tf32 = tf32


def parallel(device: torch.device, quick: bool) -> Iterator[Check]:
    """Several GPUs against one: group norm sees each sample by itself, so that the same is computed."""
    way = Way("float32", False, norm="gn", narrow=16 if quick else 1)
    yield "DataParallel = one GPU", lambda: _data_parallel(device, way)
    yield "2 processes (DDP) = one", lambda: _two_processes(device, way)


def _data_parallel(device: torch.device, way: Way) -> Answer:
    if device.type == "cpu" or torch.cuda.device_count() < 2:
        return Answer(None, "it needs two GPUs")
    off = apart(losses(3, device, way, wrap=Devices("0,1").wrap), losses(3, device, way))
    return Answer(off < RANKS, f"{off:.1e} apart")


def _two_processes(device: torch.device, way: Way) -> Answer:
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        return Answer(None, "it needs two GPUs, for NCCL")
    backend = "nccl" if device.type == "cuda" else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, (backend, device.type, way, folder), nprocs=2)
        found = [np.load(Path(folder) / f"{rank}.npy") for rank in range(2)]
    off = apart(found[0], losses(3, device, way, draws=TWO))  # a mixup stays within a process
    return Answer(off < RANKS and bool((found[0] == found[1]).all()), f"{off:.1e} apart, over {backend}")


def _rank(rank: int, backend: str, device_type: str, way: Way, folder: str) -> None:
    if device_type == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group(backend, f"file://{folder}/store", world_size=2, rank=rank)
    device = torch.device(device_type, rank) if device_type == "cuda" else CPU
    np.save(Path(folder) / f"{rank}.npy", losses(3, device, way, ranks := ProcessGroup(rank, 2), draws=ranks))
    dist.barrier()
    dist.destroy_process_group()
