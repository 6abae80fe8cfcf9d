"""When a step is replayed, what a replay must prove before, and what is done if it does not, or if memory is short."""

from __future__ import annotations

import copy
import gc
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from methods.base import Batch, Method, StepOutput
from tests.test_resume import assert_equal
from training.capture import Compute, calls_again
from training.devices import Devices
from training.gated import Outcome, StepResult
from training.graph import StaticStep, StepGraph
from training.graph_choice import step_graph
from training.loop import Trainer
from training.precision import Native
from training.schedule import _leave_compiler_out, optimizer_state
from utils.errors import UserError
from utils.process_group import ProcessGroup

CPU = torch.device("cpu")
FULL = 4


@dataclass(frozen=True)
class Draws:
    factor: Any
    index: Tensor


class Small(Method):
    """A method with all kinds of state: a trained part, its moving average, a queue, running statistics."""

    memory: Tensor
    pointer: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.student = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("memory", torch.zeros(8, 2))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.fails: Callable[[Batch], None] = lambda batch: None

    def draw(self, batch_size: int, rng: np.random.Generator) -> Draws:
        return Draws(rng.random(), torch.from_numpy(rng.permutation(batch_size)))

    def device_draws(self, draws: Draws, device: torch.device, dtype: torch.dtype) -> Draws:
        return replace(draws, factor=torch.tensor(draws.factor))

    def trainable(self) -> Any:
        return self.student.parameters()

    def committed(self) -> Any:
        return self.teacher.parameters()

    def forward(self, batch: Batch, draws: Draws) -> StepOutput:
        out = self.student(batch["x"])
        self.fails(batch)
        distance = (out - draws.factor * batch["y"][draws.index]).square().mean()
        rows = (self.pointer + torch.arange(len(out))) % len(self.memory)
        state = self.memory.index_copy(0, rows, out.detach()), (self.pointer + len(out)) % len(self.memory)
        return StepOutput(distance, {"distance": distance.detach()}, state=state)

    @torch.no_grad()
    def commit(self, output: StepOutput) -> None:
        for mine, new in zip((self.memory, self.pointer), output.state, strict=True):
            mine.copy_(new)
        for teacher, student in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            teacher.lerp_(student, 0.01)

    def export(self) -> dict[str, Any]:
        return {}

    def restore(self, checkpoint: dict[str, Any]) -> None: ...


class Captures:
    """A capture's stand-in, whose replays are counted. ``spoil``: gets the step, and gives what a replay is instead."""

    def __init__(self, spoil: Callable[[StaticStep, Compute], Compute] = lambda static, replay: replay) -> None:
        self.spoil, self.replays = spoil, 0
        self.step: weakref.ref[StaticStep] | None = None

    def __call__(self, compute: Compute) -> Compute:
        static: StaticStep = compute.__self__  # type: ignore[attr-defined]
        self.step = weakref.ref(static)
        replay = self.spoil(static, calls_again(compute))

        def counted() -> Outcome:
            self.replays += 1
            return replay()

        return counted


def make_trainer(capture: Any = None, wanted: str = "auto") -> Trainer:
    method = Small().train()
    _leave_compiler_out()
    optimizer = torch.optim.SGD(method.trainable(), lr=0.1, momentum=0.9, fused=True)
    graph = StepGraph(wanted, FULL, capture) if capture else None
    return Trainer(method, optimizer, Native(CPU, False), 0, 10, graph=graph)


def make_batch(size: int, step: int, broken: bool = False) -> Batch:
    rng = np.random.default_rng(step)
    batch = {name: torch.from_numpy(rng.random((size, width))).float() for name, width in (("x", 3), ("y", 2))}
    if broken:
        batch["x"][0, 0] = math.nan
    return batch


def train(trainer: Trainer, *sizes: int, broken: tuple[int, ...] = ()) -> list[StepResult]:
    return [trainer.step(make_batch(size, step, step in broken), step, size) for step, size in enumerate(sizes)]


def state(trainer: Trainer) -> dict[str, Any]:
    return {"method": trainer.method.state_dict(), "optimizer": optimizer_state(trainer.optimizer)}


def assert_as_without(trainer: Trainer, found: list[StepResult], *sizes: int, broken: tuple[int, ...] = ()) -> None:
    other = make_trainer()
    expected = train(other, *sizes, broken=broken)
    assert repr([(each.loss, each.good) for each in found]) == repr([(each.loss, each.good) for each in expected])
    assert_equal(state(trainer), state(other))


@pytest.mark.parametrize(
    ("sizes", "replays"),
    [
        ((4, 4, 4, 4, 2, 4), 3),
        ((2, 4, 4, 4, 2, 4), 3),  # a run that goes on at an epoch's last, short batch
        ((4, 2, 4, 2, 4, 4), 2),
        ((4, 4, 2), 0),
    ],
)
def test_full_batches_are_replayed(sizes: tuple[int, ...], replays: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The first step of a run makes the optimizer's state; the next full batch is captured, the one after it proves."""
    captures = Captures()
    trainer = make_trainer(captures)
    assert_as_without(trainer, train(trainer, *sizes), *sizes)
    assert captures.replays == replays
    assert not capsys.readouterr().out


def frozen_batch(static: StaticStep, replay: Compute) -> Compute:
    static.part.batch = {name: value.clone() for name, value in static.part.batch.items()}
    return replay


def frozen_draws(static: StaticStep, replay: Compute) -> Compute:
    own = static.part.draws
    static.part.draws = Draws(own.factor.clone(), own.index.clone())
    return replay


def forgets(name: str) -> Callable[[StaticStep, Compute], Compute]:
    """A capture that leaves out the change of one tensor."""

    def spoil(static: StaticStep, replay: Compute) -> Compute:
        def without() -> Outcome:
            tensors = [tensor for key, each in static._gated.state().items() if name in key for tensor in each]
            former = [tensor.detach().clone() for tensor in tensors]
            outcome = replay()
            with torch.no_grad():
                torch._foreach_copy_(tensors, former)
            return outcome

        return without

    return spoil


def fails(static: StaticStep, replay: Compute) -> Compute:
    try:
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")
    finally:
        raise RuntimeError("operation failed due to a previous error during capture")


def fails_later(static: StaticStep, replay: Compute) -> Compute:
    def replay_fails() -> Outcome:
        replay()
        raise RuntimeError("an illegal instruction")

    return replay_fails


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (frozen_batch, "with the graph, loss is"),
        (frozen_draws, "with the graph, loss is"),
        (forgets("student parameters"), "update of student parameters"),
        (forgets("teacher parameters"), "update of teacher parameters"),
        (forgets("momentum_buffer"), "update of optimizer momentum_buffer"),
        (forgets("student running_var"), "update of student running_var"),
        (forgets("memory"), "update of memory"),
        (forgets("pointer"), "left other pointer"),
        (fails, "operation not permitted when stream is capturing;"),
        (fails_later, "an illegal instruction"),
    ],
)
def test_what_a_replay_does_wrong_is_said_and_leaves_no_trace(
    spoil: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = (4, 4, 4, 4)
    trainer = make_trainer(Captures(spoil))
    assert_as_without(trainer, train(trainer, *sizes), *sizes)
    said = capsys.readouterr().out
    assert said.count("no CUDA graph: ") == 1
    assert words in said
    with pytest.raises(UserError, match=r"--cuda_graph on: .*; --cuda_graph auto would continue without a graph"):
        train(make_trainer(Captures(spoil), "on"), *sizes)


def test_a_step_that_is_not_finite_proves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    sizes, broken = (4, 4, 4, 4, 4, 4), (1, 2, 3)  # captured is a broken one, and the next two are, too
    right, wrong = Captures(), Captures(forgets("teacher"))
    for captures in (right, wrong):
        trainer = make_trainer(captures)
        assert_as_without(trainer, train(trainer, *sizes, broken=broken), *sizes, broken=broken)
    assert right.replays == 4, "the last one is no trial any more"
    assert wrong.replays == 3
    assert capsys.readouterr().out.count("update of teacher parameters") == 1


def short_of_memory(trainer: Trainer, size: int) -> Callable[[Batch], None]:
    """Batches of that size need more memory than there is beside the graph."""

    def fail(batch: Batch) -> None:
        if len(batch["x"]) == size and trainer.graph and trainer.graph._static:
            with torch.no_grad():  # that a step was broken off must not be seen
                for value in (*trainer.method.parameters(), *trainer.method.buffers()):
                    value.add_(1)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    return fail


def test_the_graph_makes_room_for_a_short_batch(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = (4, 4, 4, 4, 2, 4)
    captures = Captures()
    trainer = make_trainer(captures)
    trainer.method.fails = short_of_memory(trainer, 2)  # type: ignore[assignment]
    assert_as_without(trainer, train(trainer, *sizes), *sizes)
    said = capsys.readouterr().out
    assert said.count("no CUDA graph: beside it the GPU's memory does not suffice (CUDA out of memory. Tried") == 1
    gc.collect()
    assert captures.step is not None
    assert captures.step() is None, "the graph, and so its memory, is gone"

    trainer = make_trainer(Captures(), "on")
    trainer.method.fails = short_of_memory(trainer, 2)  # type: ignore[assignment]
    with pytest.raises(UserError, match="--cuda_graph on: beside it the GPU's memory does not suffice"):
        train(trainer, *sizes)


def test_the_graph_makes_room_for_what_judges(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer(Captures())
    train(trainer, 4, 4, 4, 4)
    fail, before = short_of_memory(trainer, 9), copy.deepcopy(state(trainer))

    def judge() -> str:
        saved = [value.clone() for value in trainer.method.parameters()]
        try:
            fail(make_batch(9, 0))
        finally:  # as a judge promises, who changes buffers at most
            with torch.no_grad():
                torch._foreach_copy_(list(trainer.method.parameters()), saved)
        return "judged"

    assert trainer.beside_graph(judge) == "judged"
    assert capsys.readouterr().out.count("no CUDA graph: beside it the GPU's memory does not suffice") == 1
    assert_equal(state(trainer), before)


def test_without_a_graph_a_lack_of_memory_ends_the_run() -> None:
    trainer = make_trainer()
    trainer.graph = None

    def fail(batch: Batch) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    trainer.method.fails = fail  # type: ignore[assignment]
    with pytest.raises(torch.cuda.OutOfMemoryError):
        train(trainer, 4)


def test_on_the_cpu_a_graph_is_refused_if_asked_for_and_else_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    trainer, devices = make_trainer(), Devices("")
    with pytest.raises(UserError, match="--cuda_graph on: the run computes on the CPU; leave it out"):
        step_graph("on", trainer, devices, same_operations=True, size=FULL)
    assert step_graph("auto", trainer, devices, same_operations=True, size=FULL) is None
    assert step_graph("off", trainer, devices, same_operations=True, size=FULL) is None
    assert not capsys.readouterr().out


def several_ranks(trainer: Trainer, devices: Any) -> None:
    trainer.ranks = ProcessGroup(0, 2)


def several_gpus(trainer: Trainer, devices: Any) -> None:
    devices.numbers = [0, 1]


def micro_batches(trainer: Trainer, devices: Any) -> None:
    trainer.accumulate = 2


def host_looks_at_gradients(trainer: Trainer, devices: Any) -> None:
    trainer.gated = None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (several_ranks, "several processes train together"),
        (several_gpus, "several GPUs share the process"),
        (micro_batches, "--accumulate splits a step into parts"),
        (host_looks_at_gradients, "with precision float32, the CPU must check each gradient"),
    ],
)
def test_on_a_gpu_it_is_said_why_there_is_no_graph(
    change: Callable[[Trainer, Any], None], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer, devices = make_trainer(), SimpleNamespace(main=torch.device("cuda"), numbers=[0])
    assert isinstance(step_graph("auto", trainer, devices, same_operations=True, size=FULL), StepGraph)  # type: ignore[arg-type]
    change(trainer, devices)
    assert step_graph("auto", trainer, devices, same_operations=True, size=FULL) is None  # type: ignore[arg-type]
    assert capsys.readouterr().out == f"no CUDA graph: {why}\n"
    with pytest.raises(UserError, match=f"--cuda_graph on: {why}; leave it out"):
        step_graph("on", trainer, devices, same_operations=True, size=FULL)  # type: ignore[arg-type]
