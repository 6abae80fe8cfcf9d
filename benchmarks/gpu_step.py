"""Training on one GPU: the step, ours and the literal one by turns; then loading beside it. A quarter of an hour.

    python -m benchmarks.gpu_step [--device cpu] [--rounds 5] [--quick] [--no-loading] | tee gpu_step.txt

The step: milliseconds, launches, waits, memory. Ours as main.py trains (bf16, channels-last, a CUDA graph), and without
the graph; the literal step in bf16, in torch's own memory format and channels-last. Each row is the median of the
rounds; the ratio is to the first literal row. What fails is said, and the rest goes on.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.literal.step import LiteralStep
from benchmarks.step import CHANNELS, Case, random_batch
from methods.base import Batch
from methods.pcrl import PCRL, PCRLConfig, PCRLDraws
from methods.spec import Wrap
from models.layers import OPERATORS
from models.pcrl import build_network
from models.unet import published_state
from training.capture import calls_again, cuda_graph
from training.graph import StepGraph
from training.loop import Trainer
from training.precision import Native
from training.schedule import build_optimizer
from utils.errors import UserError
from utils.process_group import SINGLE, ProcessGroup

SHAPES: list[tuple[int, int, tuple[int, ...]]] = [
    (2, 64, (224, 224)),
    (3, 16, (64, 64, 32)),
    (2, 64, (64, 64)),
    (3, 16, (32, 32, 16)),
]
QUICK: list[tuple[int, int, tuple[int, ...]]] = [(2, 2, (32, 32)), (3, 2, (16, 16, 8))]
WAYS = ("literal, contiguous", "literal, channels-last", "ours, no graph", "ours")
BATCHES, N_DATA = 3, 100
WARM_UP, STEPS = 4, 5  # a graph replays from the fourth step on
SCALE = 2.0**10  # of the loss in fp16, with which no gradient overflows
Step = Callable[[], Any]


class Found(NamedTuple):
    """Of one way: milliseconds a step in each round; launches and waits of a step; peak memory. -1: not known."""

    ms: list[float]
    launches: int
    waits: int
    gib: float


class Way(NamedTuple):
    """How the network is trained. ``graph``: samples of the batches that are replayed, 0: none."""

    precision: str = "bfloat16"
    channels_last: bool = True
    graph: int = 0
    narrow: int = 1
    norm: str = "bn"


def make_trainer(
    dims: int,
    device: torch.device,
    way: Way,
    ranks: ProcessGroup = SINGLE,
    wrap: Wrap = lambda module: module,
) -> Trainer:
    """As main.py makes one; a graph's capture has a stand-in on the CPU, and fp16 there no scaler."""
    torch.manual_seed(0)
    final_act = {2: "none", 3: "sigmoid"}[dims]
    network = build_network(dims, CHANNELS[dims], CHANNELS[dims], way.norm, final_act, narrow=way.narrow)
    if way.channels_last:
        network = network.to(memory_format=OPERATORS[dims].channels_last)
    method = PCRL(network, PCRLConfig(N_DATA), wrap, ranks).to(device).train()
    if device.type == "cuda":
        optimizer = build_optimizer("sgd", method.trainable(), 1e-3, 0.9, 1e-4)
    else:  # a fused one, as on a GPU
        optimizer = torch.optim.SGD(method.trainable(), 1e-3, momentum=0.9, weight_decay=1e-4, fused=True)
    precision = Native(device, way.precision != "float32")
    if precision.enabled:
        half = way.precision == "float16"
        precision.dtype, precision.name = (torch.float16 if half else torch.bfloat16), way.precision
        precision.scaler = torch.amp.GradScaler(device.type, init_scale=SCALE, enabled=half)
    trainer = Trainer(method, optimizer, precision, 0, 10, ranks)
    if way.graph:
        trainer.graph = StepGraph("on", way.graph, cuda_graph if device.type == "cuda" else calls_again)
    return trainer


def make_batches(dims: int, size: int, spatial: tuple[int, ...], device: torch.device) -> list[Batch]:
    """Different ones, of random numbers."""
    case, rng = Case("ours", "", dims, size, spatial, device.type), np.random.default_rng(0)
    return [random_batch(case, rng) for _ in range(BATCHES)]


def ours(dims: int, batches: list[Batch], device: torch.device, graph: bool) -> Step:
    """A step of ours, whose result is read a step late."""
    size, numbers = len(batches[0]["gt1"]), itertools.count()
    trainer = make_trainer(dims, device, Way(graph=size if graph else 0))
    unread: list[Step] = []

    def step() -> None:
        number = next(numbers)
        unread.append(trainer.launch(batches[number % BATCHES], number, size))
        while len(unread) > trainer.steps_behind:
            unread.pop(0)()

    return step


def literal(dims: int, batches: list[Batch], device: torch.device, channels_last: bool) -> Step:
    """The literal step, in bf16 and with SGD as torch has it."""
    rng, numbers = np.random.default_rng(0), itertools.count()
    plain = literal_step(dims, device, channels_last)
    if channels_last:
        form = OPERATORS[dims].channels_last
        batches = [
            {name: value.to(memory_format=form) if value.dim() == dims + 2 else value for name, value in batch.items()}
            for batch in batches
        ]
    parameters = [plain.student[name] for name in plain.parameters]
    optimizer = torch.optim.SGD(parameters, 1e-3, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        batch = batches[next(numbers) % BATCHES]
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            losses = plain.losses(batch, PCRLDraws.sample(SINGLE.shares(len(batch["gt1"])), rng))
            loss = torch.stack(losses[:3]).mean() + torch.stack(losses[3:]).mean()
        loss.backward()
        optimizer.step()
        plain.update_teacher()
        loss.item()

    return step


def literal_step(dims: int, device: torch.device, channels_last: bool) -> LiteralStep:
    """It copies the network that it is made of, which is not needed any more."""
    method = make_trainer(dims, device, Way(channels_last=channels_last)).method
    assert isinstance(method, PCRL)
    return LiteralStep(dims, published_state(method.student), method.queue.memory, N_DATA)


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
    batches = make_batches(dims, size, spatial, device)
    made: dict[str, tuple[Step, float]] = {}
    for way in WAYS:
        try:
            made[way] = _warm(way, dims, batches, device)
        except (RuntimeError, UserError) as error:
            print(f"{dims}D b{size}, {way}: FAILED: {str(error).splitlines()[0]}", flush=True)
    times: dict[str, list[float]] = {way: [] for way in made}
    for _ in range(rounds):
        for way, (step, _) in made.items():
            times[way].append(milliseconds(step, steps, device))
    return {way: Found(times[way], *launches_and_waits(step, device), gib) for way, (step, gib) in made.items()}


def _warm(way: str, dims: int, batches: list[Batch], device: torch.device) -> tuple[Step, float]:
    """A way after its first steps, and the peak of memory that they took."""
    before = 0
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    if way.startswith("literal"):
        step = literal(dims, batches, device, way.endswith("last"))
    else:
        step = ours(dims, batches, device, graph=way == "ours")
    for _ in range(WARM_UP):
        step()
    peak = torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else 0
    return step, peak / 2**30


def show(shape: tuple[int, int, tuple[int, ...]], found: dict[str, Found]) -> None:
    """Rows of a table in Markdown."""
    dims, size, spatial = shape
    if not found:
        return
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


def asked_for(options: Any, parser: argparse.ArgumentParser) -> int:
    """The table for the flags of ``benchmarks/step.py --device cuda``."""
    for name in ("model", "clock", "precision", "agreement"):
        if getattr(options, name) != parser.get_default(name):
            parser.error(f"--{name} is not for --device cuda")
    if not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU here that torch can use")
    shapes = [
        (dims, options.batch or batch, options.size or size)
        for dims, batch, size in (QUICK if options.quick else SHAPES)
        if dims == (options.dims or dims)
    ]
    if options.size:  # given with --dims: then the shapes are the same
        del shapes[1:]
    tables(torch.device("cuda"), options.repeats or 5, options.quick, shapes)
    return 0


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small inputs and one step a round")
    parser.add_argument("--no-loading", action="store_true", help="only the step")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("there is no GPU here; --device cpu runs the same program on the CPU", file=sys.stderr)
        return 2
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, {name_of(device)}", flush=True)
    tables(device, options.rounds, options.quick)
    if not options.no_loading:
        from benchmarks import gpu_loading

        gpu_loading.table(device, options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
