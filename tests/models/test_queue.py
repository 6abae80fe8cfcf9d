"""The queue against a literal loop that writes one key after the other."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.queue import KeyQueue
from tests.examples import examples


@settings(deadline=None, max_examples=examples(60))
@given(size=st.integers(1, 9), batches=st.lists(st.integers(1, 25), min_size=1, max_size=5))
def test_pushes_equal_a_literal_loop(size: int, batches: list[int]) -> None:
    queue = KeyQueue(size, 2)
    literal, pointer, counter = queue.memory.clone(), 0, 1.0
    for batch in batches:  # batches smaller and larger than the queue, so it wraps often
        keys = torch.arange(counter, counter + 2 * batch).reshape(batch, 2)
        counter += 2 * batch
        before = queue.read()
        kept = before.memory.clone()
        state = before.push(keys)
        assert torch.equal(before.memory, kept), "a push must leave the state that it came from alone"
        queue.write(state)
        for key in keys:
            literal[pointer % size] = key
            pointer += 1
        assert torch.equal(queue.memory, literal)
        assert queue.pointer.item() == pointer % size


def test_start_is_uniform_and_not_normalised() -> None:
    memory = KeyQueue(16384, 128).memory
    bound = 1 / math.sqrt(128 / 3)
    assert memory.abs().max() <= bound
    assert abs(memory.std() - bound / math.sqrt(3)) < 1e-3
    norms = memory.norm(dim=1)
    assert norms.std() > 0.01
    assert abs(norms.mean() - 1) < 0.01
