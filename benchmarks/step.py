"""How fast the training step is, how much memory it takes, and whether it computes the same.

    python benchmarks/step.py [--model pcrlv2] [--quick] [--dims 2|3] [--size 64x64x32] [--batch N] [--repeats N]
                              [--clock cpu|both] [--precision float32]
    python benchmarks/step.py --device cuda [--quick] [--dims 2|3] [--size 64x64x32] [--batch N] [--repeats N]
    python benchmarks/step.py --agreement 50 [--model pcrlv2] [--dims 2|3] [--size 32x32x16]

A step is forward, backward, SGD, the teacher's update and the queue's. The baseline is the literal step in float32,
in torch's own memory format; ours is in the format that main.py trains in. ``--device cuda``: the table of
benchmarks/gpu_step.py, in which all ways, with a CUDA graph and without, take turns in bf16.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TextIO, cast

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.literal.step import LiteralStep, total
from benchmarks.literal.step_v2 import LiteralStepV2, total_v2
from benchmarks.roofline import Count, has_bf16
from benchmarks.table import HEADER, Row, machine, show
from methods.base import Method
from methods.pcrl import PCRL, PCRLConfig
from methods.pcrlv2 import PCRLv2
from models.layers import OPERATORS
from models.pcrl import build_network
from models.pcrlv2 import build_network as build_network_v2
from models.unet import UNetNetwork, published_state

CHANNELS = {2: 3, 3: 1}
SIZES = {2: (224, 224), 3: (64, 64, 32)}
BATCH = {2: 8, 3: 4}
QUICK_BATCH = {2: 2, 3: 2}
QUICK_SIZES = {2: (224, 224), 3: (32, 32, 16)}
AGREEMENT_SIZES = {2: (64, 64), 3: (32, 32, 16)}
AGREEMENT_BATCH = 4
TERMS = {
    "pcrl": ("nce", "nce_mixup", "nce_mixed_key", "rec", "rec_mixup", "rec_mixed", "rec_mixup_mixed"),
    "pcrlv2": ("restoration", "comparison", "local", "deep"),
}
LOCALS = {2: (6, 3, 96, 96), 3: (6, 1, 16, 16, 16)}
TOLERANCE = 0.02  # of a loss term, the mean over the steps
SMALLEST = 0.1  # of a term, for a relative difference: cosines may be about 0
N_DATA = 100
CLOCKS = ("wall", "cpu")


class Case(NamedTuple):
    """One way of doing the step. ``way``: literal or ours; ``precision``: float32 or bfloat16 (autocast).

    ``clock``: wall; cpu, the processor time over the threads, which other programs on the machine disturb less; both.
    """

    way: str
    precision: str
    dims: int
    batch: int
    size: tuple[int, ...]
    device: str = "cpu"
    clock: str = "wall"
    model: str = "pcrl"


class Measured(NamedTuple):
    """A step: its milliseconds by each clock, the peak of memory until its end, interpreter included, and its losses.

    ``gflop``, ``gigabytes``: see benchmarks/roofline.py; counted in the first step, which warms up.
    """

    milliseconds: dict[str, float]
    peak_mb: float
    losses: list[float]
    gflop: float
    gigabytes: float


# ---- in a process of its own: one way, a step for each line of input ----


def random_batch(case: Case, rng: np.random.Generator) -> dict[str, Tensor]:
    """Inputs of a step, uniform in [0, 1)."""

    def uniform(*shape: int) -> Tensor:
        return torch.from_numpy(rng.random((case.batch, *shape), dtype=np.float32)).to(case.device)

    view = (CHANNELS[case.dims], *case.size)
    if case.model == "pcrlv2":
        return {name: uniform(*view) for name in ("input1", "input2", "gt1")} | {"locals": uniform(*LOCALS[case.dims])}
    batch = {name: uniform(*view) for name in ("input1", "input2", "mask1", "mask2", "gt1", "gt2")}
    for name in ("aug1", "aug2"):
        flips, turns = rng.integers(0, 2, (case.batch, case.dims)), rng.integers(0, 4, case.batch)
        code = np.concatenate([flips, np.eye(4)[turns]], axis=1).astype(np.float32)
        batch[name] = torch.from_numpy(code).to(case.device)
    return batch


def build(case: Case) -> tuple[Method, LiteralStep | LiteralStepV2]:
    """The method, and the literal step that begins with the same values."""
    torch.manual_seed(0)
    channels, final_act = CHANNELS[case.dims], "sigmoid" if case.dims == 3 else "none"
    if case.model == "pcrlv2":
        network = build_network_v2(case.dims, channels, channels, final_act)
        return PCRLv2(network).train(), LiteralStepV2(case.dims, _on_device(network, case))
    of_pcrl = build_network(case.dims, channels, channels, "bn", final_act)
    method = PCRL(of_pcrl, PCRLConfig(n_data=N_DATA)).train()
    memory = method.queue.memory.to(case.device)
    return method, LiteralStep(case.dims, _on_device(of_pcrl, case), memory, N_DATA)


def _on_device(network: UNetNetwork, case: Case) -> dict[str, Tensor]:
    return {name: tensor.to(case.device) for name, tensor in published_state(network).items()}


def stepper(case: Case) -> Callable[[], list[float]]:
    """A function that takes one training step and returns its losses."""
    rng = np.random.default_rng(0)
    method, literal = build(case)
    is_literal = case.way == "literal"
    if is_literal:
        parameters = [literal.student[name] for name in literal.parameters]
    else:
        method.to(case.device).to(memory_format=OPERATORS[case.dims].channels_last)
        parameters = list(method.trainable())
    optimizer = torch.optim.SGD(parameters, 1e-3, momentum=0.9, weight_decay=1e-4)

    def step() -> list[float]:
        optimizer.zero_grad()
        batch, draws = random_batch(case, rng), method.draw(case.batch, rng)
        with torch.autocast(case.device, torch.bfloat16, enabled=case.precision == "bfloat16"):
            if is_literal:
                losses = literal.losses(batch, draws)
                loss = total(losses) if case.model == "pcrl" else total_v2(losses, epoch=0, epochs=1)
            else:
                output = method(batch, draws)
                loss, losses = output.loss, [output.terms[name] for name in TERMS[case.model]]
        loss.backward()
        optimizer.step()
        literal.update_teacher() if is_literal else method.commit(output)
        return [value.item() for value in losses]

    return step


def work(case: Case) -> None:
    """Answer each line of standard input by a step and a line of figures."""
    step = stepper(case)
    count = Count()
    for number, _ in enumerate(sys.stdin):
        with count if number == 0 else nullcontext():
            started = _clocks()
            losses = step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        milliseconds = {clock: (now - started[clock]) * 1e3 for clock, now in _clocks().items()}
        measured = Measured(milliseconds, peak, losses, count.flop / 1e9, count.bytes / 1e9)
        print(json.dumps(measured), flush=True)


def _clocks() -> dict[str, float]:
    return {"wall": time.perf_counter(), "cpu": time.process_time() / torch.get_num_threads()}


# ---- here: several such processes that take turns ----


@contextmanager
def process(case: Case) -> Iterator[Callable[[], Measured]]:
    """The case's process; call what is given to have it take a step."""
    command = [sys.executable, __file__, "--worker", json.dumps(case)]
    # A thread that waits for the others must not count as one that computes.
    environment = os.environ | ({} if case.clock == "wall" else {"OMP_WAIT_POLICY": "passive"})
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, env=environment, **pipes) as worker:
        asking, answers = cast(TextIO, worker.stdin), cast(TextIO, worker.stdout)

        def step() -> Measured:
            asking.write("step\n")
            answer = answers.readline()
            if not answer:
                raise RuntimeError(f"{case} died")
            return Measured(*json.loads(answer))

        yield step


def take_turns(cases: list[Case], steps: int) -> Iterator[list[Measured]]:
    """``steps`` times one step of each case, one after the other."""
    with ExitStack() as stack:
        processes = [stack.enter_context(process(case)) for case in cases]
        for _ in range(steps):
            yield [step() for step in processes]


def ways() -> list[tuple[str, str]]:
    """What takes turns: the literal step and ours, and ours in bf16 where the processor has instructions for it."""
    return [("literal", "float32"), ("ours", "float32"), *[("ours", "bfloat16")] * has_bf16()]


class StepResult(NamedTuple):
    """Our step in one precision against the literal one in float32: speed by each clock, and the last step of each."""

    rows: list[Row]
    precision: str
    literal: Measured
    ours: Measured


def measure(
    dims: int,
    batch: int,
    repeats: int,
    clock: str = "wall",
    size: tuple[int, ...] = (),
    model: str = "pcrl",
    precision: str = "",
) -> list[StepResult]:
    """Our ``ways`` against the literal float32 step, after a step each to warm up; ``precision``: ours in it alone."""
    size = size or SIZES[dims]
    wanted = [("literal", "float32"), ("ours", precision)] if precision else ways()
    cases = [Case(way, precision, dims, batch, size, "cpu", clock, model) for way, precision in wanted]
    literal, *ours = list(zip(*take_turns(cases, repeats + 1), strict=True))
    what = f"step {model} {dims}D, {'x'.join(map(str, size))}, batch {batch}"
    clocks = CLOCKS if clock == "both" else (clock,)
    return [
        StepResult(
            [
                Row(
                    f"{what}, {case.precision}{f', {clock}' * (len(clocks) > 1)}",
                    *([measured.milliseconds[clock] for measured in each[1:]] for each in (literal, way)),
                )
                for clock in clocks
            ],
            case.precision,
            literal[-1],
            way[-1],
        )
        for case, way in zip(cases[1:], ours, strict=True)
    ]


def effort(dims: int, quick: bool) -> tuple[int, int, tuple[int, ...]]:
    """Batch size, repeats and the size of an image."""
    return (QUICK_BATCH[dims], 2, QUICK_SIZES[dims]) if quick else (BATCH[dims], 5, SIZES[dims])


def show_memory(results: list[StepResult]) -> None:
    print(f"\n{'peak memory':46} {'literal MB':>11} {'ours MB':>9}   ours / literal")
    for result in results:
        literal, ours = result.literal.peak_mb, result.ours.peak_mb
        print(f"{result.rows[0].what.removesuffix(', wall'):46} {literal:11.0f} {ours:9.0f} {ours / literal:16.2f}")


def agreement(dims: int, steps: int, size: tuple[int, ...] = (), model: str = "pcrl") -> bool:
    """Print how far ours is from the literal float32 step, in each loss, over ``steps`` from one seed.

    Judged are the means over the steps. Single steps part from one another by rounding alone, whatever the precision:
    that float32 does so, too, is printed beside.
    """
    size = size or AGREEMENT_SIZES[dims]
    cases = [Case(way, precision, dims, AGREEMENT_BATCH, size, model=model) for way, precision in ways()]
    losses = np.array([[measured.losses for measured in turn] for turn in take_turns(cases, steps)])
    worst = _relative(losses[:, 1:], losses[:, :1]).max(axis=0)
    means = _relative(losses[:, 1:].mean(axis=0), losses[:, :1].mean(axis=0))
    for case, of_means, of_steps in zip(cases[1:], means, worst, strict=True):
        figures = ", ".join(
            f"{name} {mean:.2%} ({step:.1%})" for name, mean, step in zip(TERMS[model], of_means, of_steps, strict=True)
        )
        print(f"{dims}D, {steps} steps, {case.precision}: {figures}", flush=True)
    return bool((means < TOLERANCE).all())


def _relative(ours: np.ndarray, literal: np.ndarray) -> np.ndarray:
    return np.abs(ours - literal) / np.maximum(np.abs(literal), SMALLEST)


def size_of(text: str) -> tuple[int, ...]:
    """ "64x64x32" -> (64, 64, 32)."""
    return tuple(int(word) for word in text.split("x"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(TERMS), default="pcrl")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--dims", type=int, choices=list(SIZES), help="only these")
    parser.add_argument("--size", type=size_of, default=(), help="of an image, such as 64x64x32; with --dims")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--clock", choices=[*CLOCKS, "both"], default="wall", help="cpu: for a machine in use")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="", help="only this, of our step")
    parser.add_argument("--agreement", type=int, metavar="STEPS")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options: Any = parser.parse_args()
    if options.worker:
        work(Case(*json.loads(options.worker)))
        return 0
    chosen = [options.dims] if options.dims else list(SIZES)
    if options.device == "cuda":
        from benchmarks import gpu_step

        return gpu_step.asked_for(options, parser)
    if options.agreement:
        agree = [agreement(dims, options.agreement, options.size, options.model) for dims in chosen]
        return 0 if all(agree) else 1
    print(machine())
    print(HEADER)
    results = []
    for dims in chosen:
        batch, repeats, size = effort(dims, options.quick)
        found = measure(
            dims,
            options.batch or batch,
            options.repeats or repeats,
            options.clock,
            options.size or size,
            options.model,
            options.precision,
        )
        show([row for result in found for row in result.rows])
        results += found
    show_memory(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
