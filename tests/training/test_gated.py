"""A step that the host does not wait for, and its replay, compute what the ordinary step does, bad steps included."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.pcrl import PCRL, PCRLConfig
from models.pcrl import build_network
from tests.test_resume import assert_equal
from training.capture import calls_again
from training.gated import GatedStep, StepResult
from training.graph import StepGraph
from training.loop import Trainer
from training.precision import Native
from training.schedule import _leave_compiler_out, optimizer_state, restore_optimizer
from utils.errors import UserError

CPU = torch.device("cpu")
SIZES = {2: (3, 32, 32), 3: (1, 8, 8, 8)}
# With a graph the second is captured, the third proves it; the fourth, a replay, is broken, the fifth is short.
BATCHES = (4, 4, 4, 4, 2, 4)
BROKEN = 3


def make_batch(dims: int, size: int, step: int) -> dict[str, Tensor]:
    rng = np.random.default_rng(step)
    names = ("input1", "input2", "mask1", "mask2", "gt1", "gt2")
    batch = {name: torch.from_numpy(rng.random((size, *SIZES[dims]), dtype=np.float32)) for name in names}
    if step == BROKEN:
        batch["input1"][0] = math.nan
    return batch | {name: torch.eye(dims + 4)[torch.arange(size)] for name in ("aug1", "aug2")}


def make_trainer(
    way: str, dims: int = 3, bf16: bool = False, accumulate: int = 1, name: str = "SGD", scale: float = 0
) -> Trainer:
    """``way``: ordinary, gated or graph. ``scale``: of the loss, as in fp16; it doubles with each good step."""
    torch.manual_seed(0)
    network = build_network(dims, SIZES[dims][0], SIZES[dims][0], "bn", "none", narrow=16)
    method = PCRL(network, PCRLConfig(7, queue_size=16)).train()
    own: dict[str, Any] = {"momentum": 0.9} if name == "SGD" else {}
    _leave_compiler_out()
    optimizer = getattr(torch.optim, name)(method.trainable(), lr=0.01, weight_decay=1e-4, fused=True, **own)
    graph = StepGraph("on", max(BATCHES), calls_again) if way == "graph" else None
    precision = Native(CPU, bf16)
    if scale:
        precision.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1)
    trainer = Trainer(method, optimizer, precision, 0, 10, accumulate=accumulate, graph=graph)
    if way == "ordinary":
        trainer.gated = None
    return trainer


def train(trainer: Trainer, dims: int = 3, steps: range = range(len(BATCHES))) -> list[StepResult]:
    """Steps, each read once the next one was launched."""
    reads = [trainer.launch(make_batch(dims, BATCHES[step], step), step, BATCHES[step]) for step in steps[:1]]
    results = []
    for step in steps[1:]:
        reads.append(trainer.launch(make_batch(dims, BATCHES[step], step), step, BATCHES[step]))
        results.append(reads.pop(0)())
    return [*results, reads[0]()]


def state(trainer: Trainer) -> dict[str, Any]:
    scale = trainer.precision.state_dict()
    return {"method": trainer.method.state_dict(), "optimizer": optimizer_state(trainer.optimizer), "scale": scale}


@cache
def trained(
    way: str, dims: int = 3, bf16: bool = False, name: str = "SGD", scale: float = 0
) -> tuple[list[StepResult], dict[str, Any]]:
    """What all steps give, and the state after them, once for all tests."""
    trainer = make_trainer(way, dims, bf16, name=name, scale=scale)
    return train(trainer, dims), state(trainer)


def assert_same(results: list[StepResult], expected: list[StepResult]) -> None:
    assert [result.good for result in results] == [result.good for result in expected]
    for result, other in zip(results, expected, strict=True):
        assert repr((result.loss, result.terms)) == repr((other.loss, other.terms))
        if result.good:
            assert_equal(result.images, other.images)
            assert all(torch.equal(value, other.statistics[name]) for name, value in result.statistics.items())


@pytest.mark.parametrize("way", ["gated", "graph"])
@pytest.mark.parametrize(("dims", "name"), [(2, "SGD"), (3, "AdamW")])
def test_the_bits_of_the_ordinary_step(way: str, dims: int, name: str) -> None:
    expected, after = trained("ordinary", dims, name=name)
    assert [result.good for result in expected] == [True, True, True, False, True, True]
    results, after_others = trained(way, dims, name=name)
    assert_same(results, expected)
    assert_equal(after_others, after)


def test_a_replay_in_bf16_has_the_bits_of_the_gated_step() -> None:
    """Of the ordinary one it has not: shares are rounded to what maps in bf16 can be mixed in."""
    (expected, after), (results, after_graph) = (trained(way, bf16=True) for way in ("gated", "graph"))
    assert_same(results, expected)
    assert_equal(after_graph, after)
    first, second = train(make_trainer("ordinary", bf16=True), steps=range(2))
    assert first.loss == expected[0].loss, "the first step of a run is the ordinary one"
    assert second.loss == pytest.approx(expected[1].loss, rel=0.02)


@pytest.mark.parametrize("way", ["gated", "graph"])
def test_a_scaled_loss_goes_on_with_its_scale(way: str) -> None:
    """A capture computes a step for nothing, which must not be counted as one of this scale."""

    def trainer() -> Trainer:
        made = make_trainer(way, scale=1024.0)
        made.precision.scaler.set_growth_interval(100)  # type: ignore[attr-defined]
        return made

    first, second = trainer(), trainer()
    train(first, steps=range(3))
    second.method.restore(first.method.export())
    restore_optimizer(second.optimizer, optimizer_state(first.optimizer))
    second.precision.load_state_dict(first.precision.state_dict())
    for each in (first, second):
        each.step(make_batch(3, 4, 5), 5, 4)
    assert second.precision.state_dict() == first.precision.state_dict()
    assert first.precision.state_dict()["_growth_tracker"] == 4


@pytest.mark.parametrize("way", ["gated", "graph"])
def test_a_scaled_loss_as_in_fp16(way: str) -> None:
    """At the second and the fifth step gradients overflow, which lowers the scale; the broken batch leaves it."""
    (expected, after), (results, after_other) = (trained(each, scale=2.0**122) for each in ("ordinary", way))
    assert [result.good for result in expected] == [True, False, True, False, False, True]
    assert_same(results, expected)
    assert_equal(after_other, after)


def test_in_micro_batches() -> None:
    ordinary, gated = (make_trainer(way, accumulate=2) for way in ("ordinary", "gated"))
    expected = train(ordinary, steps=range(2))
    assert_same(train(gated, steps=range(2)), expected)
    assert_equal(state(gated), state(ordinary))


def test_a_run_goes_on_with_a_graph_as_without() -> None:
    first, second = (make_trainer("graph") for _ in range(2))
    train(first, steps=range(4))
    second.method.restore(first.method.export())
    restore_optimizer(second.optimizer, optimizer_state(first.optimizer))
    train(second, steps=range(4, 6))
    assert_equal(state(second), trained("gated")[1])


def test_too_many_bad_steps_are_counted_when_they_are_read() -> None:
    trainer = make_trainer("gated")
    trainer.max_bad_steps = 2
    train(trainer, steps=range(2))
    assert isinstance(trainer.gated, GatedStep)
    reads = [trainer.launch(make_batch(3, 4, BROKEN), step, 4) for step in (2, 3)]
    assert not reads[0]().good
    with pytest.raises(UserError, match="2 steps in a row up to step 4 had a loss or gradient that is not finite"):
        reads[1]()
