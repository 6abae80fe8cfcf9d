"""PCRLv2's step: equal to a literal one; its gradients, running statistics, ranks and replicas."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.parallel import scatter_gather

from benchmarks.literal.step_v2 import LiteralStepV2, total_v2
from methods.pcrlv2 import MAX_LOCALS, PCRLv2, PCRLv2Draws, compare
from models.pcrlv2 import Vectors, build_network
from models.unet import published_state
from tests.methods.test_data_parallel import Chunks, Joined, Replicas
from tests.spawn import run_ranks
from training.loop import Trainer
from training.precision import build_precision
from utils.errors import UserError
from utils.process_group import SINGLE, ProcessGroup
from utils.seeding import generator

SHAPES = {2: (3, 64, 64), 3: (1, 16, 16, 8)}
LOCALS = {2: (3, 32, 32), 3: (1, 8, 8, 8)}
TERMS = ("restoration", "comparison", "local", "deep")
SEED, LR, MOMENTUM, DECAY = 7, 0.05, 0.9, 1e-4
TOLERANCE = 1e-10


def make_method(dims: int, ranks: ProcessGroup = SINGLE) -> PCRLv2:
    torch.manual_seed(0)
    channels = SHAPES[dims][0]
    network = build_network(dims, channels, channels, "sigmoid" if dims == 3 else "none", narrow=8)
    return PCRLv2(network, ranks=ranks).double().train()


def make_batch(dims: int, size: int, step: int = 0, count: int = 2) -> dict[str, Tensor]:
    rng = np.random.default_rng([step, size])
    batch = {name: torch.from_numpy(rng.random((size, *SHAPES[dims]))) for name in ("input1", "input2", "gt1")}
    return batch | {"locals": torch.from_numpy(rng.random((size, count, *LOCALS[dims])))}


def part(batch: dict[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in batch.items()}


def make_draws(dims: int, step: int) -> PCRLv2Draws:
    return PCRLv2Draws.sample({2: 5, 3: 3}[dims], generator(SEED, "step", step))


@pytest.mark.parametrize("dims", [2, 3])
def test_equals_the_literal_step(dims: int) -> None:
    """Losses, gradients (zero where there is none) and all running statistics."""
    method = make_method(dims)
    literal = LiteralStepV2(dims, published_state(method.network))
    batch, draws = make_batch(dims, 3), make_draws(dims, 0)
    method.begin(3, 8)
    output, losses = method(batch, draws), literal.losses(batch, draws)
    assert [output.terms[name].item() for name in TERMS] == pytest.approx([x.item() for x in losses], rel=TOLERANCE)
    output.loss.backward()
    total_v2(losses, 3, 8).backward()
    gradients = {method.network.published_name(name): p.grad for name, p in method.network.named_parameters()}
    idle = 0
    for name in literal.parameters:
        expected = literal.student[name].grad
        idle += expected is None
        torch.testing.assert_close(
            gradients[name], torch.zeros_like(gradients[name]) if expected is None else expected, rtol=1e-8, atol=1e-10
        )
    assert idle > 0, "the heads of some scale had nothing to do"
    for name, value in published_state(method.network).items():
        if name.endswith(("running_mean", "running_var")):
            torch.testing.assert_close(value, literal.student[name], rtol=1e-9, atol=1e-10, msg=name)


def test_the_gradient_stops_at_the_projections() -> None:
    a, b = (Vectors(*torch.randn(2, 4, 8, dtype=torch.float64).requires_grad_()) for _ in range(2))
    for vectors in (a, b):
        for vector in vectors:
            vector.retain_grad()
    compare(a, b).backward()
    assert a.projection.grad is None
    assert b.projection.grad is None
    assert a.prediction.grad is not None
    assert b.prediction.grad is not None


def test_beta_fades_out_and_held_out_data_do_not_follow_it() -> None:
    method = make_method(3)
    output = {}
    for epoch in (0, 4, 8):
        method.begin(epoch, 8)
        output[epoch] = copy.deepcopy(method)(make_batch(3, 2), make_draws(3, 0)).means(SINGLE.shares(2))
    assert output[0]["loss"] - output[4]["loss"] == pytest.approx(output[0]["deep"] / 2)
    assert output[0]["loss"] - output[8]["loss"] == pytest.approx(output[0]["deep"])
    scores = []
    for epoch in output:
        method.begin(epoch, 8)
        scores.append(method.held_out_score(output[epoch]))
    assert scores == pytest.approx([scores[0]] * 3)


def test_the_number_of_local_views_follows_the_data_and_one_sample_is_refused() -> None:
    method, draws = make_method(3), make_draws(3, 0)
    images = method(make_batch(3, 2, count=1), draws).images
    assert images.keys() == {"view 1", "target", "restored", "scale 0", "scale 1", "scale 2"}
    assert all(image.shape == (2, *SHAPES[3]) for image in images.values())
    method(make_batch(3, 2, count=4), draws)
    with pytest.raises(UserError, match=f"1 to {MAX_LOCALS} local views an image, not {MAX_LOCALS + 1}"):
        method(make_batch(3, 2, count=MAX_LOCALS + 1), draws)
    with pytest.raises(UserError, match="got 1 sample"):
        method(make_batch(3, 1), draws)


def test_export_and_restore_bring_everything_back() -> None:
    method = make_method(2)
    method(make_batch(2, 2), make_draws(2, 0))
    exported = copy.deepcopy(method.export())
    assert not any(name.startswith("blocks") or "fc" in name for name in exported["state_dict"])
    assert all(name.startswith("blocks.") for name in exported["decoder_state_dict"])
    other = make_method(2)
    other.restore(exported)
    for (name, value), (_, expected) in zip(other.state_dict().items(), method.state_dict().items(), strict=True):
        assert torch.equal(value, expected), name


def by_halves(method: PCRLv2, batch: dict[str, Tensor], draws: PCRLv2Draws, cut: int) -> dict[str, float]:
    """Terms and gradients (in ``method``) of two copies of the network with batch statistics of their own."""
    size = len(batch["gt1"])
    terms = dict.fromkeys(TERMS, 0.0)
    for rows in (slice(0, cut), slice(cut, size)):
        before = copy.deepcopy(dict(method.network.named_buffers()))
        own = part(batch, rows)
        output, share = method(own, draws), len(own["gt1"]) / size
        (output.loss * share).backward()
        terms = {name: terms[name] + share * output.terms[name].item() for name in TERMS}
        if rows.start:
            for name, buffer in method.network.named_buffers():
                buffer.copy_(before[name])  # the first half's statistics are kept
    return terms


@pytest.mark.parametrize("dims", [2, 3])
def test_data_parallel_equals_two_replicas(dims: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scatter_gather, "Scatter", Chunks)
    monkeypatch.setattr(scatter_gather, "Gather", Joined)
    expected, replicas = make_method(dims), Replicas(2)
    method = PCRLv2(copy.deepcopy(expected.network), replicas.wrap).double().train()
    replicas.watch(method.network)
    batch, draws = make_batch(dims, 5), make_draws(dims, 1)
    terms = by_halves(expected, batch, draws, 3)
    output = method(batch, draws)
    assert replicas.calls == 1
    assert {name: output.terms[name].item() for name in TERMS} == pytest.approx(terms, rel=TOLERANCE)
    replicas.backward = True
    output.loss.backward()
    for ours, theirs in zip(method.trainable(), expected.trainable(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-10)
    for (name, ours), (_, theirs) in zip(method.named_buffers(), expected.named_buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10, msg=name)


def train_rank(ranks: ProcessGroup, sizes: tuple[int, ...]) -> dict[str, Any]:
    method = make_method(3, ranks)
    optimizer = torch.optim.SGD(method.trainable(), LR, momentum=MOMENTUM, weight_decay=DECAY)
    precision = build_precision("off", torch.device("cpu"), method, optimizer)
    trainer = Trainer(method, optimizer, precision, SEED, 10, ranks)
    terms = []
    for step, size in enumerate(sizes):
        result = trainer.step(part(make_batch(3, size, step), ranks.shares(size).own), step, size)
        assert result.good
        terms.append(result.terms)
    exported = method.export()
    again = make_method(3, ranks)
    again.restore(exported)
    same = all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), method.state_dict().values(), strict=True)
    )
    return {"terms": terms, "parameters": dict(method.named_parameters()), "same": same}


def test_two_ranks_equal_two_replicas() -> None:
    """Two steps of SGD, of 4 and of 5 samples, so that shares are uneven in the second."""
    sizes = (4, 5)
    method = make_method(3)
    optimizer = torch.optim.SGD(method.trainable(), LR, momentum=MOMENTUM, weight_decay=DECAY)
    expected = []
    for step, size in enumerate(sizes):
        optimizer.zero_grad()
        expected.append(by_halves(method, make_batch(3, size, step), make_draws(3, step), (size + 1) // 2))
        optimizer.step()
    for result in run_ranks(2, train_rank, sizes):
        assert result["same"], "each rank gets its own running statistics back"
        for ours, terms in zip(result["terms"], expected, strict=True):
            assert {name: ours[name] for name in TERMS} == pytest.approx(terms, rel=TOLERANCE)
        for name, parameter in method.named_parameters():
            torch.testing.assert_close(result["parameters"][name], parameter, rtol=1e-9, atol=1e-11, msg=name)
