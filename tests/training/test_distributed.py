"""Ranks compute what one process computes (group norm), or what two replicas that shuffle compute (batch norm)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from methods.pcrl import PCRL, PCRLConfig, PCRLDraws
from models.pcrl import Context, build_network
from tests.spawn import run_ranks
from training.loop import Trainer
from training.precision import build_precision
from utils.process_group import SINGLE, ProcessGroup
from utils.seeding import generator

N_DATA, QUEUE, TEMPERATURE, SEED = 5, 16, 0.2, 7
LR, MOMENTUM, DECAY = 0.05, 0.9, 1e-4
SHAPES = {2: (3, 64, 64), 3: (1, 8, 8, 8)}
TOLERANCE = 1e-11
NAMES = ("nce", "nce_mixup", "nce_mixed_key", "rec", "rec_mixup", "rec_mixed", "rec_mixup_mixed")


def make_method(dims: int, norm: str, ranks: ProcessGroup = SINGLE, shuffle_bn: bool = True) -> PCRL:
    torch.manual_seed(0)
    channels = SHAPES[dims][0]
    network = build_network(dims, channels, channels, norm, "none", narrow=8).double()
    config = PCRLConfig(N_DATA, TEMPERATURE, QUEUE, shuffle_bn=shuffle_bn)
    return PCRL(network, config, ranks=ranks).double().train()


def make_batch(dims: int, size: int, step: int) -> dict[str, Tensor]:
    rng = np.random.default_rng([step, size])
    names = ("input1", "input2", "mask1", "mask2", "gt1", "gt2")
    batch = {name: torch.from_numpy(rng.random((size, *SHAPES[dims]))) for name in names}
    for name in ("aug1", "aug2"):
        batch[name] = torch.from_numpy(np.eye(dims + 4)[rng.integers(0, dims + 4, size)])
    return batch


def part(batch: dict[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in batch.items()}


def make_optimizer(method: PCRL) -> torch.optim.SGD:
    return torch.optim.SGD(method.trainable(), LR, momentum=MOMENTUM, weight_decay=DECAY)


def make_draws(size: int, step: int, ranks: int) -> PCRLDraws:
    """What each of so many ranks draws in a step."""
    return PCRLDraws.sample(ProcessGroup(0, ranks).shares(size), generator(SEED, "step", step))


def train_rank(ranks: ProcessGroup, dims: int, norm: str, sizes: Sequence[int], shuffle_bn: bool = True) -> dict:
    """Steps on batches of ``sizes``, then one that is not finite on the last rank alone, then another good one."""
    method = make_method(dims, norm, ranks, shuffle_bn)
    optimizer = make_optimizer(method)
    precision = build_precision("off", torch.device("cpu"), method, optimizer)
    trainer = Trainer(method, optimizer, precision, SEED, 10, ranks)
    terms = []
    for step, size in enumerate(sizes):
        result = trainer.step(part(make_batch(dims, size, step), ranks.shares(size).own), step, size)
        assert result.good
        terms.append({"loss": result.loss, **result.terms})
    state = copy.deepcopy(method.state_dict())

    size, step = sizes[0], len(sizes)
    own = part(make_batch(dims, size, step), ranks.shares(size).own)
    broken = {name: value * (float("nan") if ranks.rank == ranks.size - 1 else 1) for name, value in own.items()}
    bad = trainer.step(broken, step, size)
    untouched = all(torch.equal(value, state[name]) for name, value in method.state_dict().items())
    after = trainer.step(own, step, size)
    return {"terms": terms, "state": state, "bad": bad.good, "untouched": untouched, "after": after.good}


def assert_close(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            actual[name], value, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_group_norm_equals_one_process() -> None:
    """Three steps of SGD; batches of 4, 5 and 3; the queue of 16 wraps in the second."""
    sizes = (4, 5, 3)
    method = make_method(3, "gn")
    optimizer = make_optimizer(method)
    expected = []
    for step, size in enumerate(sizes):
        output = method(make_batch(3, size, step), make_draws(size, step, ranks=2))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        method.commit(output)
        expected.append({"loss": output.loss.item(), **{name: value.item() for name, value in output.terms.items()}})

    results = run_ranks(2, train_rank, 3, "gn", sizes)
    for result in results:
        assert_close(result["state"], method.state_dict())
        for ours, terms in zip(result["terms"], expected, strict=True):
            assert ours == pytest.approx(terms, rel=TOLERANCE)
        # What is not finite on one rank alone is skipped by all, and they go on together.
        assert not result["bad"]
        assert result["untouched"]
        assert result["after"]
    for name, value in results[0]["state"].items():
        assert torch.equal(value, results[1]["state"][name]), f"{name}: ranks drift apart"


class TwoReplicas:
    """The step, literally: two copies of each network with batch statistics of their own, everything else once."""

    def __init__(self, dims: int, shuffles: bool) -> None:
        start = make_method(dims, "bn")
        self.shuffles = shuffles
        self.students = [copy.deepcopy(start.student) for _ in range(2)]
        self.teachers = [copy.deepcopy(start.teacher) for _ in range(2)]
        self.memory, self.pointer, self.z = start.queue.memory.clone(), 0, 0.0
        self.velocity: list[Tensor] | None = None

    def teach(self, view: Tensor, shuffle: Tensor, cut: int) -> list[Tensor]:
        """Key and features of all samples, in their own order."""
        order = shuffle if self.shuffles else torch.arange(len(view))
        with torch.no_grad():
            first = self.teachers[0](view[order][:cut])
            second = self.teachers[1](view[order][cut:])
        outputs = []
        for a, b in zip(first, second, strict=True):
            joined = torch.cat([a, b])
            output = torch.empty_like(joined)
            for place, sample in enumerate(order.tolist()):
                output[sample] = joined[place]
            outputs.append(output)
        return outputs

    def learn(self, view: Tensor, features: list[Tensor], alpha: float, cut: int, *codes: Tensor) -> list[Tensor]:
        """Query, plain and mixed reconstruction of all samples."""
        halves = [
            student(view[rows], Context([f[rows] for f in features], alpha), *(code[rows] for code in codes))
            for student, rows in zip(self.students, (slice(0, cut), slice(cut, None)), strict=True)
        ]
        return [torch.cat(pair) for pair in zip(*halves, strict=True)]

    def contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        q, k = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
        p = torch.exp(torch.cat([(q * k).sum(1, keepdim=True), q @ self.memory.T], dim=1) / TEMPERATURE)
        if self.z == 0:
            self.z = p.mean().item() * N_DATA
        p = p / self.z
        noise, eps = QUEUE / N_DATA, 1e-5
        loss = -(torch.log(p[:, 0] / (p[:, 0] + noise + eps)).sum() + torch.log(noise / (p[:, 1:] + noise + eps)).sum())
        self.memory = self.memory.clone()
        for key in k:
            self.memory[self.pointer] = key
            self.pointer = (self.pointer + 1) % QUEUE
        return loss / len(queries)

    def step(self, batch: dict[str, Tensor], draws: PCRLDraws) -> dict[str, float]:
        cut = (len(batch["input1"]) + 1) // 2
        alpha1, lam, alpha2 = (max(x, 1 - x) for x in (draws.alpha1, draws.lam, draws.alpha2))
        mix = {k: lam * v + (1 - lam) * v[draws.index] for k, v in batch.items()}
        key, *features = self.teach(batch["input2"], draws.shuffle, cut)
        query, plain, mixed = self.learn(batch["input1"], features, alpha1, cut, batch["aug1"], batch["aug2"])
        key2, *features = self.teach(mix["input2"], draws.shuffle, cut)
        query2, plain2, mixed2 = self.learn(mix["input1"], features, alpha2, cut)
        values = [
            self.contrast(query, key),
            self.contrast(query2, key2),
            self.contrast(query2, lam * key + (1 - lam) * key[draws.index]),
            F.mse_loss(plain, batch["mask1"]),
            F.mse_loss(plain2, mix["gt1"]),
            F.mse_loss(mixed, alpha1 * batch["mask1"] + (1 - alpha1) * batch["mask2"]),
            F.mse_loss(mixed2, alpha2 * mix["gt1"] + (1 - alpha2) * mix["gt2"]),
        ]
        (sum(values[:3]) / 3 + sum(values[3:]) / 4).backward()  # type: ignore[union-attr]
        self.update()
        return dict(zip(NAMES, (value.item() for value in values), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        parameters = [list(network.parameters()) for network in (*self.students, *self.teachers)]
        self.gradients = [a.grad + b.grad for a, b in zip(*parameters[:2], strict=True)]
        former = self.velocity or [torch.zeros_like(gradient) for gradient in self.gradients]
        self.velocity = [
            MOMENTUM * velocity + gradient + DECAY * parameter
            for velocity, gradient, parameter in zip(former, self.gradients, parameters[0], strict=True)
        ]
        for velocity, *students, teacher1, teacher2 in zip(self.velocity, *parameters, strict=True):
            for parameter in students:
                parameter -= LR * velocity
                parameter.grad = None
            for parameter in (teacher1, teacher2):
                parameter.copy_(0.999 * parameter + 0.001 * students[0])

    def state(self, rank: int) -> dict[str, Tensor]:
        """What a rank should hold."""
        queue = {
            "memory": self.memory,
            "pointer": torch.tensor(self.pointer),
            "z": torch.tensor(self.z, dtype=torch.float64),
        }
        parts = {
            "student": self.students[rank].state_dict(),
            "teacher": self.teachers[rank].state_dict(),
            "queue": queue,
        }
        return {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}


@pytest.mark.parametrize("shuffle_bn", [True, False])
def test_batch_norm_equals_two_replicas(shuffle_bn: bool) -> None:
    """Three steps; batches of 4, 5 and 4: shares are uneven in the second, the queue of 16 wraps in it."""
    sizes = (4, 5, 4)
    literal = TwoReplicas(2, shuffle_bn)
    expected = [
        literal.step(make_batch(2, size, step), make_draws(size, step, ranks=2)) for step, size in enumerate(sizes)
    ]
    results = run_ranks(2, train_rank, 2, "bn", sizes, shuffle_bn)
    for rank, result in enumerate(results):
        assert_close(result["state"], literal.state(rank))
        for ours, terms in zip(result["terms"], expected, strict=True):
            assert {name: ours[name] for name in NAMES} == pytest.approx(terms, rel=TOLERANCE)
        assert not result["bad"]
        assert result["untouched"]
    statistics = [name for name in results[0]["state"] if name.endswith("running_mean")]
    assert any(not torch.equal(results[0]["state"][name], results[1]["state"][name]) for name in statistics)


def test_mixup_stays_within_each_rank_and_one_rank_draws_as_ever() -> None:
    draws = make_draws(7, 3, ranks=3)
    assert sorted(draws.shuffle.tolist()) == list(range(7))
    assert [sorted(draws.index[rows].tolist()) for rows in ProcessGroup(0, 3).shares(7).slices] == [
        [0, 1, 2],
        [3, 4],
        [5, 6],
    ]
    rng = generator(SEED, "step", 3)
    rng.beta(1, 1, size=3)
    alone = make_draws(7, 3, ranks=1)
    assert alone.shuffle.tolist() == rng.permutation(7).tolist()
    assert alone.index.tolist() == rng.permutation(7).tolist()
