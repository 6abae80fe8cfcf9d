"""A step in micro-batches computes what the literal steps of the micro-batches, one after the other, compute."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.literal.step import LiteralStep, total
from methods.pcrl import PCRL, PCRLConfig
from models.pcrl import build_network
from models.unet import published_state
from tests.examples import examples
from training.loop import Trainer, micro_batch_sizes
from training.precision import Native
from utils.process_group import ProcessGroup
from utils.seeding import generator

SEED, LR, N_DATA = 3, 0.1, 5


def make_batch(size: int, step: int) -> dict[str, Tensor]:
    rng = np.random.default_rng(step)
    names = ("input1", "input2", "mask1", "mask2", "gt1", "gt2")
    batch = {name: torch.from_numpy(rng.random((size, 1, 16, 16, 8))) for name in names}
    return batch | {name: torch.from_numpy(np.eye(7)[rng.integers(0, 7, size)]) for name in ("aug1", "aug2")}


def test_two_steps_in_micro_batches() -> None:
    """Batches of 3 in micro-batches of 2 and 1: one update, gradients by samples, keys of each seen by the next."""
    torch.manual_seed(0)
    network = build_network(3, 1, 1, "bn", "sigmoid", narrow=8).double()
    method = PCRL(network, PCRLConfig(N_DATA, queue_size=32)).double().train()
    literal = LiteralStep(3, published_state(network), method.queue.memory, N_DATA)
    optimizer = torch.optim.SGD(method.trainable(), LR)
    trainer = Trainer(method, optimizer, Native(torch.device("cpu"), enabled=False), SEED, 10, accumulate=2)

    for step in range(2):
        batch, rng = make_batch(3, step), generator(SEED, "step", step)
        result = trainer.step(batch, step, 3)
        losses = []
        for rows in (slice(0, 2), slice(2, 3)):
            size = rows.stop - rows.start
            part = {name: value[rows] for name, value in batch.items()}
            losses.append(size / 3 * total(literal.losses(part, method.draw(size, rng))))
        loss = torch.stack(losses).sum()
        gradients = torch.autograd.grad(loss, [literal.student[name] for name in literal.parameters])
        with torch.no_grad():
            for name, gradient in zip(literal.parameters, gradients, strict=True):
                literal.student[name] -= LR * gradient
        literal.update_teacher()

        assert result.good
        assert abs(result.loss - loss.item()) < 1e-10
        torch.testing.assert_close(method.queue.memory, literal.memory, rtol=1e-9, atol=1e-11)
        student, teacher = published_state(method.student), published_state(method.teacher)
        for name in literal.parameters:
            torch.testing.assert_close(student[name], literal.student[name].detach(), rtol=1e-8, atol=1e-10)
            torch.testing.assert_close(teacher[name], literal.teacher[name], rtol=1e-8, atol=1e-10)

    before = {name: value.clone() for name, value in method.state_dict().items()}
    broken = make_batch(3, 2)
    broken["input1"][2] = math.nan  # in the second micro-batch, after the first has pushed its keys
    assert not trainer.step(broken, 2, 3).good
    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name]), name


@settings(max_examples=examples(50), deadline=None, derandomize=True)
@given(batch=st.integers(1, 40), ranks=st.integers(1, 5), parts=st.integers(1, 9))
def test_micro_batches_deal_what_the_batch_deals(batch: int, ranks: int, parts: int) -> None:
    batch = max(batch, ranks)
    sizes = micro_batch_sizes(batch, ranks, parts)
    assert len(sizes) == min(parts, batch // ranks)
    dealt = np.array([ProcessGroup(0, ranks).shares(size).sizes for size in sizes])
    assert dealt.min() >= 1
    assert dealt.sum(axis=0).tolist() == ProcessGroup(0, ranks).shares(batch).sizes
    assert np.ptp(dealt, axis=0).max() <= 1
