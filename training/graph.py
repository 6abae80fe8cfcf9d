"""The step as one CUDA graph: captured once, then replayed, so that a GPU does not wait for Python.

What changes from step to step is written into tensors that stay where they are (batch, draws; the learning rate, the
queue's pointer and Z are tensors already), then the captured operations run, then results are read. But for the capture
itself all of it runs on the CPU, too, where ``calls_again`` stands in: it computes the step anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from training.capture import Capture, Compute, cuda_graph, first_cause
from training.gated import GatedStep, Outcome, Part, Snapshot, StepResult
from utils.console import say
from utils.errors import UserError

Result = TypeVar("Result")
State = dict[str, Tensor]  # all that a step may change, each part as one vector
# Of two computations of one step: how far losses may be apart, relative, and updates of the state, in their norms.
# Sums are taken in another order each time; with deterministic kernels in float32 nothing is apart.
LOSSES = {torch.float32: 1e-3, torch.float64: 1e-9, torch.bfloat16: 1e-2, torch.float16: 1e-2}
UPDATES = {torch.float32: 1e-2, torch.float64: 1e-6, torch.bfloat16: 5e-2, torch.float16: 5e-2}
ROUNDINGS = 4  # of the state itself, in which two computations may differ, however small the update is


class StaticStep:
    """A step of one size of batch: its inputs are filled, it runs, its outcome is read."""

    def __init__(self, gated: GatedStep, part: Part) -> None:
        self._gated = gated
        batch, draws = ({name: value.clone() for name, value in each.items()} for each in (part.batch, _draws(part)))
        self.part = replace(part, batch=batch, draws=replace(part.draws, **draws))
        self._batch, self._draws = batch, draws
        self._run: Compute | None = None

    def compute(self) -> Outcome:
        """The step on what was filled in, one operation after the other."""
        return self._gated([self.part], lambda asked: nullcontext())

    @torch.no_grad()
    def fill(self, part: Part) -> None:
        """Write a batch of the same size, and its draws, where the step reads them."""
        for mine, new in ((self._batch, part.batch), (self._draws, _draws(part))):
            torch._foreach_copy_(list(mine.values()), [new[name] for name in mine], non_blocking=True)

    def capture(self, capture: Capture) -> None:
        """Make :meth:`run` a replay. Nothing is computed."""
        self._run = capture(self.compute)

    def run(self) -> Outcome:
        """The step on what was filled in, as captured."""
        assert self._run, "captured"
        return self._run()


def _draws(part: Part) -> dict[str, Tensor]:
    return {name: value for name, value in vars(part.draws).items() if value.device == part.draws.index.device}


class StepGraph:
    """Replays the full batches of a run as a CUDA graph, once a batch gave the same with the graph and without.

    The first full batch is captured. The next one is computed both ways, from one state; if its loss or gradient is
    not finite, so is the one after it. Until then, and for batches of another size, operations are launched one by one.

    ``wanted``: if the graph fails, ``auto`` continues without it and says so, and ``on`` ends the run. ``size``: of a
    full batch, in samples.
    """

    def __init__(self, wanted: str, size: int, capture: Capture = cuda_graph) -> None:
        self.wanted, self.size, self._capture = wanted, size, capture
        self._static: StaticStep | None = None
        self._proven = self._given_up = False

    def step(self, gated: GatedStep, part: Part) -> Outcome:
        """The step of a batch: a replay, if it can be one."""
        full = len(next(iter(part.batch.values()))) == self.size and not self._given_up
        if full and self._static is None:
            self._begin(gated, part)
            full = False  # another batch is to prove that nothing of this one is kept
        if full and self._proven and self._static:
            self._static.fill(part)
            return self._static.run().copied()

        def compute() -> Outcome:
            return self._prove(gated, part, self._static) if full and self._static else _launch(gated, part)

        return self.beside(gated, _tensors(gated), compute)

    def beside(self, gated: GatedStep, state: Iterable[Tensor], compute: Callable[[], Result]) -> Result:
        """The result of ``compute``, which needs memory while the graph keeps its own.

        If there is too little, the graph is dropped and ``state``, all that is changed, put back, to compute it again.
        """
        if self._static is None:
            return compute()
        before: Snapshot | None = None
        try:
            before = Snapshot(state)
            return compute()
        except torch.cuda.OutOfMemoryError as error:  # which has hold of its tensors until here
            why_not = f"beside it the GPU's memory does not suffice ({first_cause(error)})"
        self._give_up(why_not)
        gated.optimizer.zero_grad(set_to_none=True)  # gradients lie in the graph's memory
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        if before:
            before.put_back()
        return compute()

    def _begin(self, gated: GatedStep, part: Part) -> None:
        """Capture the step."""
        static, state = StaticStep(gated, part), Snapshot(_tensors(gated))
        try:
            _on_another_stream(static.compute)  # where libraries set themselves up, which a capture does not permit
            static.capture(self._capture)
            self._static = static
        except RuntimeError as error:
            self._give_up(first_cause(error))
        state.put_back()

    def _prove(self, gated: GatedStep, part: Part, static: StaticStep) -> Outcome:
        """Compute a step both ways, from one state; -> the one without the graph."""
        before, state = Snapshot(_tensors(gated)), _copied(gated)
        try:
            static.fill(part)
            found, replayed = static.run().reading()(), _copied(gated)
        except RuntimeError as error:
            self._give_up(first_cause(error))
        before.put_back()
        outcome = _launch(gated, part)
        if self._given_up:
            return outcome
        expected, launched = outcome.reading()(), _copied(gated)
        dtype = gated.precision.computes_in(gated.method)
        why_not = _loss_difference(expected, found, dtype) or (
            _state_difference(state, launched, replayed, UPDATES[dtype])
            if expected.good
            else _state_difference(launched, launched, replayed, 0)
        )
        self._proven = expected.good and not why_not
        if why_not:
            self._give_up(why_not)
        return outcome

    def _give_up(self, why_not: str) -> None:
        self._given_up, self._static = True, None
        if self.wanted == "on":
            raise UserError(f"--cuda_graph on: {why_not}; --cuda_graph auto would continue without a graph")
        say(f"no CUDA graph: {why_not}; the run launches each operation separately")


def _launch(gated: GatedStep, part: Part) -> Outcome:
    return gated([part], lambda asked: nullcontext())


def _on_another_stream(compute: Compute) -> None:
    if not torch.cuda.is_available():
        compute()
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        compute()
    torch.cuda.current_stream().wait_stream(stream)


def _tensors(gated: GatedStep) -> list[Tensor]:
    return [tensor for tensors in gated.state().values() for tensor in tensors]


def _copied(gated: GatedStep) -> State:
    """On the CPU: a GPU may have no room for it beside the graph."""
    return {
        name: torch.cat([tensor.detach().flatten().cpu() for tensor in tensors])
        for name, tensors in gated.state().items()
    }


def _loss_difference(expected: StepResult, found: StepResult, dtype: torch.dtype) -> str:
    """What is wrong with the losses of a replay, or nothing."""
    if expected.good != found.good:
        return "only one of the two steps (with and without graph) had a finite loss and gradient"
    if not expected.good:  # then losses say nothing
        return ""
    for name, value in {"loss": expected.loss, **expected.terms}.items():
        other = found.loss if name == "loss" else found.terms[name]
        if not abs(other - value) <= LOSSES[dtype] * max(abs(value), 1e-6):
            return f"with the graph, {name} is {other:.6g}, not {value:.6g}"
    return ""


def _state_difference(before: State, expected: State, found: State, tolerance: float) -> str:
    """What is wrong with the state after a replay, or nothing; ``tolerance``: of the update's norm, 0: equal bits."""
    for name, former in before.items():
        wanted, replayed = expected[name], found[name]
        if torch.equal(wanted, replayed):
            continue
        if not wanted.is_floating_point() or not tolerance:
            return f"with the graph, a step left other {name}"
        update, apart = (wanted.double() - former.double()).norm(), (replayed.double() - wanted.double()).norm()
        rounding = ROUNDINGS * torch.finfo(wanted.dtype).eps * wanted.double().norm()
        if not apart <= tolerance * update + rounding:
            return f"with the graph, the update of {name} differs by {apart / update:.2g} of its norm"
    return ""
