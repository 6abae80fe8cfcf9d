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
from training.devices import Devices
from training.gated import GatedStep, Outcome, StepResult
from training.graph import Compute, StepGraph, calls_again
from training.graph_choice import step_graph
from training.loop import Trainer
from training.precision import Native
from training.schedule import optimizer_state, restore_optimizer
from utils.errors import UserError

CPU = torch.device("cpu")
SIZES = {2: (3, 32, 32), 3: (1, 8, 8, 8)}
BATCHES = (4, 4, 4, 2, 4)  # the third is broken, the fourth is short
BROKEN = 2


def make_batch(dims: int, size: int, step: int) -> dict[str, Tensor]:
    rng = np.random.default_rng(step)
    names = ("input1", "input2", "mask1", "mask2", "gt1", "gt2")
    batch = {name: torch.from_numpy(rng.random((size, *SIZES[dims]), dtype=np.float32)) for name in names}
    if step == BROKEN:
        batch["input1"][0] = math.nan
    return batch | {name: torch.eye(dims + 4)[torch.arange(size)] for name in ("aug1", "aug2")}


def make_trainer(way: str, dims: int = 3, bf16: bool = False, accumulate: int = 1, name: str = "SGD") -> Trainer:
    torch.manual_seed(0)
    network = build_network(dims, SIZES[dims][0], SIZES[dims][0], "bn", "none", narrow=16)
    method = PCRL(network, PCRLConfig(7, queue_size=16)).train()
    own: dict[str, Any] = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = getattr(torch.optim, name)(method.trainable(), lr=0.01, weight_decay=1e-4, fused=True, **own)
    graph = StepGraph("on", calls_again) if way == "graph" else None
    trainer = Trainer(method, optimizer, Native(CPU, bf16), 0, 10, accumulate=accumulate, graph=graph)
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
    return {"method": trainer.method.state_dict(), "optimizer": optimizer_state(trainer.optimizer)}


@cache
def trained(way: str, dims: int = 3, bf16: bool = False, name: str = "SGD") -> tuple[list[StepResult], dict[str, Any]]:
    """What all steps give, and the state after them, once for all tests."""
    trainer = make_trainer(way, dims, bf16, name=name)
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
    assert [result.good for result in expected] == [True, True, False, True, True]
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
    train(second, steps=range(4, 5))
    assert_equal(state(second), trained("gated")[1])


def wrong_replay(compute: Compute) -> Compute:
    """As a capture that leaves something out: the update of the weights."""

    def replay() -> Outcome:
        outcome = compute()
        weight = next(iter(trainer_of_wrong_replay.method.trainable()))
        with torch.no_grad():
            weight.add_(1)
        return outcome

    return replay


trainer_of_wrong_replay: Trainer


def fails(compute: Compute) -> Compute:
    raise RuntimeError("operation not permitted when stream is capturing\nmore of it")


@pytest.mark.parametrize(("capture", "words"), [(wrong_replay, "weight update"), (fails, "not permitted when")])
def test_what_a_trial_finds_wrong_is_said_and_leaves_no_trace(
    capture: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    global trainer_of_wrong_replay
    expected, after = trained("gated")
    trainer_of_wrong_replay = tried = make_trainer("gated")
    tried.graph = StepGraph("auto", capture)
    assert_same(train(tried), expected)
    assert_equal(state(tried), after)
    said = capsys.readouterr().out
    assert said.count("no CUDA graph: ") == 1
    assert words in said

    trainer_of_wrong_replay = tried = make_trainer("gated")
    tried.graph = StepGraph("on", capture)
    with pytest.raises(UserError, match=rf"--cuda_graph on: .*{words}"):
        train(tried, steps=range(3))


def test_too_many_bad_steps_are_counted_when_they_are_read() -> None:
    trainer = make_trainer("gated")
    trainer.max_bad_steps = 2
    train(trainer, steps=range(2))
    assert isinstance(trainer.gated, GatedStep)
    reads = [trainer.launch(make_batch(3, 4, BROKEN), step, 4) for step in (2, 3)]
    assert not reads[0]().good
    with pytest.raises(UserError, match="2 steps in a row up to step 4 had a loss or gradient that is not finite"):
        reads[1]()


def test_on_the_cpu_a_graph_is_refused_if_asked_for_and_else_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    trainer, devices = make_trainer("gated"), Devices("")
    with pytest.raises(UserError, match="--cuda_graph on: the run computes on the CPU; leave it out"):
        step_graph("on", trainer, devices, same_operations=True)
    assert step_graph("auto", trainer, devices, same_operations=True) is None
    assert step_graph("off", trainer, devices, same_operations=True) is None
    assert not capsys.readouterr().out
