"""The training step on one GPU: milliseconds, launches, waits and memory, ours and the literal step's by turns.

    python -m benchmarks.gpu_step [--device cpu] [--rounds 5] [--quick]

Ours as main.py trains (bf16, channels-last, a CUDA graph), and without the graph; the literal step in bf16, in torch's
own memory format and channels-last. Each row is the median of the rounds; the ratio is to the first literal row.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.literal.step import LiteralStep
from benchmarks.step import CHANNELS, Case, random_batch
from methods.pcrl import PCRL, PCRLConfig
from models.layers import OPERATORS
from models.pcrl import build_network
from models.unet import published_state
from training.graph import StepGraph, calls_again, cuda_graph
from training.loop import Trainer
from training.precision import Native
from training.schedule import build_optimizer

SHAPES: list[tuple[int, int, tuple[int, ...]]] = [
    (2, 64, (224, 224)),
    (3, 16, (64, 64, 32)),
    (2, 64, (64, 64)),
    (3, 16, (32, 32, 16)),
]
QUICK: list[tuple[int, int, tuple[int, ...]]] = [(2, 2, (32, 32)), (3, 2, (16, 16, 8))]
WAYS = ("literal, contiguous", "literal, channels-last", "ours, no graph", "ours")
WARM_UP, STEPS = 4, 5
Step = Callable[[], Any]


class Found(NamedTuple):
    """Of one way: milliseconds a step in each round; launches and waits of a step; peak memory. -1: not known."""

    ms: list[float]
    launches: int
    waits: int
    gib: float


def make_trainer(
    dims: int, device: torch.device, graph: bool, amp: bool = True, channels_last: bool = True, narrow: int = 1
) -> Trainer:
    """As main.py makes one; a graph's capture has a stand-in on the CPU."""
    torch.manual_seed(0)
    network = build_network(dims, CHANNELS[dims], CHANNELS[dims], "bn", {2: "none", 3: "sigmoid"}[dims], narrow=narrow)
    if channels_last:
        network = network.to(memory_format=OPERATORS[dims].channels_last)
    method = PCRL(network, PCRLConfig(100)).to(device).train()
    if device.type == "cuda":
        optimizer = build_optimizer("sgd", method.trainable(), 1e-3, 0.9, 1e-4)
    else:  # a fused one, as on a GPU
        optimizer = torch.optim.SGD(method.trainable(), 1e-3, momentum=0.9, weight_decay=1e-4, fused=True)
    trainer = Trainer(method, optimizer, Native(device, amp), 0, 10)
    if graph:
        trainer.graph = StepGraph("on", cuda_graph if device.type == "cuda" else calls_again)
    return trainer


def ours(dims: int, batch: dict[str, Tensor], device: torch.device, graph: bool) -> Step:
    """A step of ours, whose result is read a step late."""
    trainer, size = make_trainer(dims, device, graph), len(batch["gt1"])
    unread: list[Step] = []

    def step() -> None:
        unread.append(trainer.launch(batch, step.number, size))  # type: ignore[attr-defined]
        step.number += 1  # type: ignore[attr-defined]
        while len(unread) > trainer.steps_behind:
            unread.pop(0)()

    step.number = 0  # type: ignore[attr-defined]
    return step


def literal(dims: int, batch: dict[str, Tensor], device: torch.device, channels_last: bool) -> Step:
    """The literal step, in bf16 and with SGD as torch has it."""
    method, rng = make_trainer(dims, device, graph=False, channels_last=False).method, np.random.default_rng(0)
    assert isinstance(method, PCRL)
    state = published_state(method.student)
    if channels_last:
        form = OPERATORS[dims].channels_last
        state, batch = (
            {name: value.to(memory_format=form) if value.dim() == dims + 2 else value for name, value in each.items()}
            for each in (state, batch)
        )
    plain = LiteralStep(dims, state, method.queue.memory, 100)
    parameters = [plain.student[name] for name in plain.parameters]
    optimizer = torch.optim.SGD(parameters, 1e-3, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            losses = plain.losses(batch, method.draw(len(batch["gt1"]), rng))
            loss = torch.stack(losses[:3]).mean() + torch.stack(losses[3:]).mean()
        loss.backward()
        optimizer.step()
        plain.update_teacher()
        loss.item()

    return step


def milliseconds(step: Step, steps: int, device: torch.device) -> float:
    """Of a step, the mean of some."""
    _finish(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    _finish(device)
    return (time.perf_counter() - started) / steps * 1e3


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def launches_and_waits(step: Step, device: torch.device) -> tuple[int, int]:
    """What the host asks of the GPU in a step, by torch's profiler, and how often it waits, by torch's own warnings.

    An event that is waited for, as our results are, torch does not warn of.
    """
    if device.type != "cuda":
        return -1, -1
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        step()
        _finish(device)
    starts = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
    launches = sum(each.count for each in profiler.key_averages() if each.key.startswith(starts))
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step()
    torch.cuda.set_sync_debug_mode("default")
    return launches, sum("synchroniz" in str(each.message) for each in caught)


def compare(shape: tuple[int, int, tuple[int, ...]], device: torch.device, rounds: int, steps: int) -> dict[str, Found]:
    """All ways by turns; a way that fails is said, and left out."""
    dims, size, spatial = shape
    batch = random_batch(Case("ours", "bfloat16", dims, size, spatial, device.type), np.random.default_rng(0))
    made: dict[str, tuple[Step, float]] = {}
    for way in WAYS:
        try:
            made[way] = _warm(way, dims, batch, device, min(WARM_UP, steps + 1))
        except RuntimeError as error:
            print(f"{way}: {str(error).splitlines()[0]}")
    times: dict[str, list[float]] = {way: [] for way in made}
    for _ in range(rounds):
        for way, (step, _) in made.items():
            times[way].append(milliseconds(step, steps, device))
    return {way: Found(times[way], *launches_and_waits(step, device), gib) for way, (step, gib) in made.items()}


def _warm(way: str, dims: int, batch: dict[str, Tensor], device: torch.device, steps: int) -> tuple[Step, float]:
    """A way after its first steps, and the peak of memory that they took."""
    before = 0
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    if way.startswith("literal"):
        step = literal(dims, batch, device, way.endswith("last"))
    else:
        step = ours(dims, batch, device, graph=way == "ours")
    for _ in range(steps):
        step()
    peak = torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else 0
    return step, peak / 2**30


def show(shape: tuple[int, int, tuple[int, ...]], found: dict[str, Found]) -> None:
    """Rows of a table in Markdown."""
    dims, size, spatial = shape
    first = statistics.median(next(iter(found.values())).ms)
    for way, (ms, launches, waits, gib) in found.items():
        middle = statistics.median(ms)
        what = f"{dims}D b{size} {'x'.join(map(str, spatial))}, {way}"
        numbers = f"{middle:.1f} ({min(ms):.1f}-{max(ms):.1f}) | {first / middle:.2f} | {size / middle * 1e3:.0f}"
        print(f"| {what} | {numbers} | {launches} | {waits} | {gib:.2f} |", flush=True)


def tables(device: torch.device, rounds: int, quick: bool, shapes: Sequence[Any] = ()) -> None:
    """Measure and print all."""
    print("| bf16 | ms (min-max) | x literal | samples/s | launches | waits | peak GiB |")
    print("|---|---|---|---|---|---|---|")
    for shape in shapes or (QUICK if quick else SHAPES):
        show(shape, compare(shape, device, rounds, 1 if quick else STEPS))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small networks' inputs and one step a round")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("there is no GPU here; --device cpu runs the same program on the CPU", file=sys.stderr)
        return 2
    tables(device, options.rounds, options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
