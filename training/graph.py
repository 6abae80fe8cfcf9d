"""The step as one CUDA graph: captured once, then replayed, so that a GPU does not wait for Python.

What changes from step to step is written into tensors that stay where they are (batch, draws; the learning rate, the
queue's pointer and Z are tensors already), then the captured operations run, then results are read. But for the capture
itself all of it runs on the CPU, too, where ``calls_again`` stands in: it computes the step anew.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from training.gated import GatedStep, Outcome, Part, Snapshot, StepResult, all_state
from utils.console import say
from utils.errors import UserError

Compute = Callable[[], Outcome]
Capture = Callable[[Compute], Compute]
# Of two computations of one step: how far losses may be apart, relative, and the updates of weights, in their norms.
# Sums are taken in another order each time; with deterministic kernels in float32 nothing is apart.
LOSSES = {torch.float32: 1e-3, torch.float64: 1e-9, torch.bfloat16: 1e-2}
UPDATES = {torch.float32: 1e-2, torch.float64: 1e-6, torch.bfloat16: 5e-2}


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


def cuda_graph(compute: Compute) -> Compute:
    """Capture the operations; a call of the result launches all of them at once."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outcome = compute()

    def replay() -> Outcome:
        graph.replay()
        return outcome

    return replay


def _tensors(outcome: Outcome) -> list[Tensor]:
    return [outcome.numbers, *outcome.images.values()]


class StaticStep:
    """A step of one shape of batch: its inputs are filled, it runs, its outcome is read."""

    def __init__(self, gated: GatedStep, part: Part, capture: Capture) -> None:
        self._batch = {name: value.clone() for name, value in part.batch.items()}
        self._draws = {name: value.clone() for name, value in _draws(part).items()}
        still = replace(part, batch=self._batch, draws=replace(part.draws, **self._draws))
        self.compute: Compute = lambda: gated([still], lambda asked: nullcontext())
        self._capture = capture
        self._run: Compute | None = None

    @torch.no_grad()
    def fill(self, part: Part) -> None:
        """Write a batch of the same shape, and its draws, where the step reads them."""
        for mine, new in ((self._batch, part.batch), (self._draws, _draws(part))):
            for name, value in mine.items():
                value.copy_(new[name], non_blocking=True)

    def capture(self) -> None:
        """Make :meth:`run` a replay. Nothing is computed."""
        self._run = self._capture(self.compute)

    def run(self) -> Outcome:
        """The step on what was filled in."""
        assert self._run, "captured"
        return self._run()


def _draws(part: Part) -> dict[str, Tensor]:
    return {name: value for name, value in vars(part.draws).items() if value.device == part.draws.index.device}


class StepGraph:
    """Replays the full batches of a run as a CUDA graph, if a trial on the first batch matches the ordinary step.

    ``wanted``: if the trial fails, ``auto`` continues without a graph and says so, and ``on`` ends the run.
    """

    def __init__(self, wanted: str, capture: Capture = cuda_graph) -> None:
        self.wanted, self._capture = wanted, capture
        self._static: StaticStep | None = None
        self._shapes: dict[str, torch.Size] = {}
        self._given_up = False

    def takes(self, gated: GatedStep, part: Part) -> bool:
        """Whether this batch can be replayed; the first one is tried, and decides on the shape."""
        if self._given_up:
            return False
        shapes = {name: value.shape for name, value in part.batch.items()}
        if self._static is None:
            self._shapes = shapes
            self._try(gated, part)
        return not self._given_up and shapes == self._shapes

    def __call__(self, part: Part) -> Outcome:
        """The step of a batch that it :meth:`takes`."""
        assert self._static
        self._static.fill(part)
        return self._static.run().copied()

    def _try(self, gated: GatedStep, part: Part) -> None:
        self._static = StaticStep(gated, part, self._capture)
        state = Snapshot(all_state(gated.method, gated.optimizer))
        try:
            why_not = _trial(self._static, gated, state)
        except RuntimeError as error:
            why_not = str(error).strip().splitlines()[0]
        state.put_back()
        if not why_not:
            return
        if self.wanted == "on":
            raise UserError(f"--cuda_graph on: {why_not}; --cuda_graph auto would continue without a graph")
        say(f"no CUDA graph: {why_not}; the run launches each operation separately")
        self._given_up, self._static = True, None


def _trial(static: StaticStep, gated: GatedStep, state: Snapshot) -> str:
    """Take one step both ways, from one state; -> what is wrong with the replay, or nothing."""
    weights = [parameter for group in gated.optimizer.param_groups for parameter in group["params"]]
    before = [weight.detach().clone() for weight in weights]

    def step(run: Compute) -> tuple[StepResult, Tensor]:
        state.put_back()
        result = run().reading()()
        with torch.no_grad():
            return result, torch.cat([(now - former).flatten() for now, former in zip(weights, before, strict=True)])

    expected, update = step(lambda: _beside(static.compute))
    state.put_back()
    static.capture()
    found, replayed = step(static.run)
    return _difference(expected, found, update, replayed, gated.precision.computes_in(gated.method))


def _beside(compute: Compute) -> Outcome:
    """Compute on a stream of its own, where libraries set themselves up before a capture."""
    if not torch.cuda.is_available():
        return compute()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        outcome = compute()
    torch.cuda.current_stream().wait_stream(stream)
    return outcome


def _difference(expected: StepResult, found: StepResult, update: Tensor, replayed: Tensor, dtype: torch.dtype) -> str:
    if expected.good != found.good:
        return "only one of the two steps (with and without graph) had a finite loss and gradient"
    if not expected.good:  # the weights stay; the losses say nothing
        return "" if not replayed.any() else "a step with a non-finite loss or gradient changed the weights"
    for name, value in {"loss": expected.loss, **expected.terms}.items():
        other = found.loss if name == "loss" else found.terms[name]
        if not abs(other - value) <= LOSSES[dtype] * max(abs(value), 1e-6):
            return f"with the graph, {name} is {other:.6g}, not {value:.6g}"
    apart = ((update - replayed).norm() / update.norm()).item()
    return "" if apart <= UPDATES[dtype] else f"with the graph, the weight update differs by {apart:.2g} of its norm"
