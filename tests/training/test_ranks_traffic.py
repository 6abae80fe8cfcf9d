"""What ranks send each other: gradients once a step, features where they are needed, and a warning if that is far."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from methods.pcrl import PCRL, PCRLConfig, PCRLDraws
from models.pcrl import build_network
from tests.spawn import run_ranks
from tests.training.test_distributed import (
    LR,
    N_DATA,
    QUEUE,
    SEED,
    TEMPERATURE,
    assert_close,
    make_batch,
    make_method,
    part,
)
from training.loop import Trainer, micro_batch_sizes
from training.precision import Native
from utils.process_group import BatchShards, ProcessGroup
from utils.seeding import generator

SIZE, RANKS, PARTS = 4, 2, 2
OFF = Native(torch.device("cpu"), enabled=False)


def micro_batches(step: int) -> list[dict[str, Tensor]]:
    """The batch of a step, over all ranks, in parts."""
    sizes = micro_batch_sizes(SIZE, RANKS, PARTS)
    parts = [tensors.split(sizes) for tensors in make_batch(3, SIZE, step).values()]
    return [dict(zip(make_batch(3, 1, 0), each, strict=True)) for each in zip(*parts, strict=True)]


def own_rows(batch: dict[str, Tensor], ranks: ProcessGroup) -> dict[str, Tensor]:
    return part(batch, ranks.shares(len(batch["gt1"])).own)


def accumulate(ranks: ProcessGroup) -> tuple[list[float], dict[str, Tensor]]:
    """A broken step, then a good one -> how often each sent the gradients, and the state at the end."""
    method = make_method(3, "gn", ranks)
    trainer = Trainer(method, torch.optim.SGD(method.trainable(), LR), OFF, SEED, 10, ranks, accumulate=PARTS)
    sent: list[float] = []

    def count(state, bucket):  # type: ignore[no-untyped-def]  # torch wants no other types than its own
        sent[-1] += bucket.buffer().numel() / sum(parameter.numel() for parameter in method.trainable())
        return allreduce_hook(None, bucket)

    assert isinstance(trainer._forward, DistributedDataParallel)
    trainer._forward.register_comm_hook(None, count)
    for step, factor in enumerate((float("nan"), 1.0)):
        sent.append(0.0)
        parts = [own_rows(each, ranks) for each in micro_batches(step)]
        own = {name: factor * torch.cat([each[name] for each in parts]) for name in parts[0]}
        assert trainer.step(own, step, SIZE).good == (factor == 1)
    return sent, copy.deepcopy(method.state_dict())


def literally() -> dict[str, Tensor]:
    """The good step in one process: group norm does not see who has which sample."""
    method = make_method(3, "gn")
    optimizer = torch.optim.SGD(method.trainable(), LR)
    rng = generator(SEED, "step", 1)
    for batch in micro_batches(1):
        size = len(batch["gt1"])
        output = method(batch, PCRLDraws.sample(ProcessGroup(0, RANKS).shares(size), rng))
        (output.loss * size / SIZE).backward()
        method.queue.write(output.state)
    optimizer.step()
    method.commit(output)
    return method.state_dict()


def test_gradients_are_exchanged_once_a_step_however_many_micro_batches() -> None:
    expected = literally()
    for sent, state in run_ranks(RANKS, accumulate):
        assert sent == pytest.approx([0, 1])
        assert_close(state, expected)


def test_features_that_nothing_needs_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    travelled = []
    real = BatchShards.permute
    monkeypatch.setattr(
        BatchShards, "permute", lambda self, rows, order: (travelled.append(rows.shape), real(self, rows, order))[1]
    )
    network = build_network(3, 1, 1, "bn", "none", narrow=8).double()
    method = PCRL(network, PCRLConfig(N_DATA, TEMPERATURE, QUEUE, without=frozenset({"reconstruction"}))).double()
    batch = make_batch(3, 2, 0)
    method(batch, method.draw(2, generator(0)))
    assert [len(shape) for shape in travelled] == [5, 2] * 2, "views and keys, of two calls"


@pytest.mark.parametrize(
    ("local", "shuffle_bn", "norm", "warned"),
    [
        (2, True, "bn", True),
        (2, False, "bn", False),
        (2, True, "gn", False),
        (4, True, "bn", False),
    ],
)
def test_features_that_travel_between_machines_are_warned_of(
    local: int,
    shuffle_bn: bool,
    norm: str,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local))
    make_method(3, norm, ProcessGroup(0, 4), shuffle_bn)
    assert ("--shuffle_bn full sends" in capsys.readouterr().err) == warned
