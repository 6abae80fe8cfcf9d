"""What the golden numbers do not see: shuffling, the order of the passes, purity, odd batches."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.base import StepOutput
from methods.pcrl import PCRL, PCRLConfig, PCRLDraws
from models.pcrl import build_network

SHAPES = {2: (3, 32, 32), 3: (1, 8, 8, 8)}


def make_method(dims: int, norm: str = "bn", **config: object) -> PCRL:
    torch.manual_seed(0)
    channels = SHAPES[dims][0]
    network = build_network(dims, channels, channels, norm, "none", narrow=8).double()
    return PCRL(network, PCRLConfig(n_data=5, queue_size=32, **config)).double().train()  # type: ignore[arg-type]


def make_batch(dims: int, size: int) -> dict[str, Tensor]:
    rng = np.random.default_rng(1)
    batch = {
        k: torch.from_numpy(rng.random((size, *SHAPES[dims])))
        for k in ("input1", "input2", "mask1", "mask2", "gt1", "gt2")
    }
    for key in ("aug1", "aug2"):
        batch[key] = torch.from_numpy(np.eye(dims + 4)[rng.integers(0, dims + 4, size)])
    return batch


def draws(size: int, shuffle: list[int] | None = None) -> PCRLDraws:
    order = torch.tensor(shuffle) if shuffle else torch.arange(size)
    return PCRLDraws(0.3, 0.8, 0.6, order, torch.arange(size).roll(1))


def run(method: PCRL, batch: dict[str, Tensor], draw: PCRLDraws) -> StepOutput:
    return method(batch, draw)


def test_teacher_is_shuffled_and_brought_back() -> None:
    # With group normalisation samples do not see each other, so the order must make no difference at all.
    batch = make_batch(3, 4)
    plain = run(make_method(3, "gn"), batch, draws(4))
    shuffled = run(make_method(3, "gn"), batch, draws(4, [2, 0, 3, 1]))
    for name, value in plain.terms.items():
        torch.testing.assert_close(shuffled.terms[name], value, rtol=1e-12, atol=0)


def test_teacher_sees_the_shuffled_order() -> None:
    method, seen = make_method(3, "gn"), []
    method.teacher.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    batch = make_batch(3, 4)
    run(method, batch, draws(4, [2, 0, 3, 1]))
    assert torch.equal(seen[0], batch["input2"][[2, 0, 3, 1]])
    mixed = 0.8 * batch["input2"] + (1 - 0.8) * batch["input2"].roll(1, 0)
    torch.testing.assert_close(seen[1], mixed[[2, 0, 3, 1]])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_forward_changes_neither_queue_nor_parameters(dims: int) -> None:
    method = make_method(dims)
    before = copy.deepcopy({**dict(method.named_parameters()), **method.queue.state_dict(prefix="queue.")})
    output = run(method, make_batch(dims, 3), draws(3))
    after = {**dict(method.named_parameters()), **method.queue.state_dict(prefix="queue.")}
    assert all(torch.equal(after[name], value) for name, value in before.items())
    method.commit(output)
    assert method.queue.pointer == 9, "three pushes of the batch"
    assert method.queue.z > 0


@pytest.mark.parametrize("dims", [2, 3])
def test_plain_pass_comes_before_the_mixed_one(dims: int) -> None:
    # The order only moves the decoder's running statistics: replay both passes by hand, in order.
    method = make_method(dims)
    twin = copy.deepcopy(method)
    batch, draw = make_batch(dims, 3), draws(3)
    run(method, batch, draw)
    student, alpha, lam = twin.student, 0.7, 0.8
    for view1, view2, gated in (
        (batch["input1"], batch["input2"], True),
        (
            lam * batch["input1"] + (1 - lam) * batch["input1"][draw.index],
            lam * batch["input2"] + (1 - lam) * batch["input2"][draw.index],
            False,
        ),
    ):
        with torch.no_grad():
            _, *theirs = twin.teacher(view2)
            own = student.unet.encode(view1)
            if gated:
                own[-1], theirs[-1] = student.gate(own[-1], batch["aug1"]), student.gate(theirs[-1], batch["aug2"])
            student.unet.decode(own)
            student.unet.decode([alpha * a + (1 - alpha) * b for a, b in zip(own, theirs, strict=True)])
        alpha = 0.6
    for (name, ours), (_, expected) in zip(method.student.named_buffers(), student.named_buffers(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_batch_of_one_works(dims: int) -> None:
    torch.manual_seed(0)
    shape = {2: (3, 64, 64), 3: (1, 16, 16, 16)}[dims]
    method = make_method(dims)
    batch = {
        key: torch.rand(1, *shape, dtype=torch.float64) for key in ("input1", "input2", "mask1", "mask2", "gt1", "gt2")
    }
    batch |= {key: torch.eye(dims + 4, dtype=torch.float64)[:1] for key in ("aug1", "aug2")}
    output = run(method, batch, draws(1))
    output.loss.backward()
    assert torch.isfinite(output.loss)


def test_l1_is_the_mean_absolute_difference() -> None:
    batch = make_batch(3, 2)
    output = run(make_method(3, reconstruction_loss="l1"), batch, draws(2))
    expected = (output.images["view 1: reconstruction"] - batch["mask1"]).abs().mean()
    torch.testing.assert_close(output.terms["rec"], expected)


def test_statistics_are_what_they_are_called() -> None:
    method, batch = make_method(3, "gn"), make_batch(3, 4)
    output = run(method, batch, draws(4))
    found = {name: value.item() for name, value in output.statistics.items()}
    with torch.no_grad():
        embedding = method.student.head(method.student.unet.encode(batch["input1"])[-1])
        code = torch.relu(batch["aug1"] @ method.student.aug_fc1.weight.T + method.student.aug_fc1.bias)
        gate = 1 / (1 + torch.exp(-(code @ method.student.aug_fc2.weight.T + method.student.aug_fc2.bias)))
    queries = (embedding / embedding.norm(dim=1, keepdim=True)).numpy()
    assert found["feature_spread"] == pytest.approx(queries.std(axis=0).mean() * 128**0.5, rel=1e-4)
    assert found["gate_mean"] == pytest.approx(gate.mean().item(), rel=1e-4)
    assert found["gate_spread"] == pytest.approx(gate.std().item(), rel=1e-4)
    memory = output.state.memory
    assert found["queue_filled"] == pytest.approx(3 * 4 / len(memory))
    assert found["queue_spread"] == pytest.approx(
        (memory / memory.norm(dim=1, keepdim=True)).std(dim=0, correction=0).mean().item() * 128**0.5, rel=1e-4
    )
    assert -1 <= found["similarity_queue"] < found["similarity_positive"] <= 1 + 1e-6


def test_export_and_restore_bring_everything_back() -> None:
    method = make_method(2)
    output = run(method, make_batch(2, 3), draws(3))
    output.loss.backward()
    method.commit(output)
    other = make_method(2)
    with torch.no_grad():
        next(other.student.parameters()).zero_()
    other.restore(copy.deepcopy(method.export()))
    for (name, value), (_, expected) in zip(other.state_dict().items(), method.state_dict().items(), strict=True):
        assert torch.equal(value, expected), name


NCE = {"nce", "nce_mixup", "nce_mixed_key"}
REC = {"rec", "rec_mixup", "rec_mixed", "rec_mixup_mixed"}
LEFT = {  # by the part left out: the terms that remain as they were
    "contrast": REC,
    "reconstruction": NCE,
    "mixup": {"nce", "rec", "rec_mixed"},
    "gate": NCE | {"rec_mixup", "rec_mixup_mixed"},
}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("part", LEFT)
def test_a_part_left_out_leaves_the_others_as_they_were(dims: int, part: str) -> None:
    batch = make_batch(dims, 4)
    full = run(make_method(dims), batch, draws(4)).terms
    method = make_method(dims, without=frozenset({part}))
    output = run(method, batch, draws(4))
    expected = (NCE | REC if part == "gate" else LEFT[part]) | (set() if part == "contrast" else {"positive"})
    assert output.terms.keys() - {"contrast", "reconstruction"} == expected
    for name in LEFT[part]:
        torch.testing.assert_close(output.terms[name], full[name], rtol=1e-12, atol=0)
    if part == "gate":
        assert not torch.isclose(output.terms["rec"], full["rec"])
    kinds = [output.terms[kind] for kind in ("contrast", "reconstruction") if kind in output.terms]
    torch.testing.assert_close(output.loss.detach(), torch.stack(kinds).sum())
    output.loss.backward()
    wanting = [parameter for parameter in method.student.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in wanting), "each parameter that is trained has a gradient"
    assert len(wanting) == len(list(method.trainable()))
