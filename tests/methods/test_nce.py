"""The contrast against a literal computation, number by number."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from methods.nce import contrast
from models.queue import KeyQueue, QueueState
from utils.process_group import SINGLE


def unit(vector: Tensor) -> list[float]:
    norm = math.sqrt(sum(float(x) ** 2 for x in vector))
    return [float(x) / norm for x in vector]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def literal(
    queries: Tensor, keys: Tensor, memory: Tensor, t: float, n_data: int, z: float
) -> tuple[float, float, float]:
    """-> (NCE, Z, mean of P0), all by Python floats in three nested loops."""
    rows = []
    for query, key in zip(queries, keys, strict=True):
        q = unit(query)
        rows.append([math.exp(dot(q, unit(key)) / t)] + [math.exp(dot(q, m.tolist()) / t) for m in memory])
    if z == 0:
        flat = [value for row in rows for value in row]
        z = sum(flat) / len(flat) * n_data
    m, pn, eps = len(memory), 1 / n_data, 1e-5
    total = 0.0
    for row in rows:
        p0 = row[0] / z
        total += math.log(p0 / (p0 + m * pn + eps))
        for value in row[1:]:
            total += math.log(m * pn / (value / z + m * pn + eps))
    return -total / len(rows), z, sum(row[0] / z for row in rows) / len(rows)


def test_three_calls_in_a_row_equal_the_literal_loops() -> None:
    torch.manual_seed(0)
    queue = KeyQueue(7, 5).double()
    state: QueueState = queue.read()
    z = 0.0
    for call in range(3):
        queries, keys = torch.randn(2, 3, 5, dtype=torch.float64)
        loss, z, positive = literal(queries, keys, state.memory, 0.2, 11, z)
        output = contrast([queries], [keys], state, 0.2, 11, SINGLE.shares(3))
        assert output.losses.item() == pytest.approx(loss, rel=1e-12), call
        assert output.state.z.item() == pytest.approx(z, rel=1e-12)
        assert output.positive.item() == pytest.approx(positive, rel=1e-12)
        pushed = [output.state.memory[(3 * call + i) % 7].tolist() for i in range(3)]
        assert pushed == [pytest.approx(unit(key), rel=1e-12) for key in keys]
        state = output.state
    assert queue.z == 0, "the queue itself is written by its owner only"


def test_gradient_reaches_the_queries_and_never_the_keys() -> None:
    queries = torch.randn(4, 5, requires_grad=True)
    keys = torch.randn(4, 5, requires_grad=True)
    contrast([queries], [keys], KeyQueue(7, 5).read(), 0.2, 3, SINGLE.shares(4)).losses.sum().backward()
    assert queries.grad is not None
    assert queries.grad.abs().sum() > 0
    assert keys.grad is None


def test_half_precision_inputs_are_computed_in_the_queues_precision() -> None:
    queries, keys = torch.randn(2, 4, 5).bfloat16()
    state = KeyQueue(7, 5).read()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = contrast([queries], [keys], state, 0.2, 3, SINGLE.shares(4))
    full = contrast([queries.float()], [keys.float()], state, 0.2, 3, SINGLE.shares(4))
    assert half.losses.dtype == torch.float32
    assert torch.equal(half.losses, full.losses)
