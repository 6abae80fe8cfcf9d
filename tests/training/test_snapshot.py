"""Checkpoints hold tensors of the CPU, wherever the run computed: they load on a machine without a GPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from methods.supervised import Supervised
from models.segmenter import build_segmenter
from options import Options
from tests.test_resume import assert_equal
from training.checkpoint import Position, TrainingState, on_cpu
from training.precision import Native


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from tensors(each)


def on_gpu(mode: FakeTensorMode, tensor: Tensor) -> FakeTensor:
    """A tensor that says that it is a GPU's: it has no values, and needs no GPU."""
    return FakeTensor(mode, torch.empty_like(tensor, device="meta"), torch.device("cuda", 0))


def test_a_snapshot_of_a_run_on_a_gpu_is_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    network = build_segmenter(1, 2, "bn", 0)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    for module in network.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(on_gpu(mode, value)))
        for name, value in list(module.named_buffers(recurse=False)):
            setattr(module, name, on_gpu(mode, value))
    method = Supervised(network, lambda outputs, labels: outputs.mean())
    optimizer = torch.optim.SGD(method.trainable(), 0.1, momentum=0.9)
    for parameter in method.trainable():
        optimizer.state[parameter]["momentum_buffer"] = on_gpu(mode, parameter)
    state = TrainingState(method, optimizer, Native(torch.device("cpu"), enabled=False), Position())
    assert all(tensor.device.type == "cuda" for tensor in tensors([method.export(), optimizer.state_dict()]))
    with mode:
        snapshot = state.snapshot(Options(data="x"), "", {})
    found = list(tensors(snapshot))
    assert len(found) > 100
    assert {tensor.device.type for tensor in found} == {"cpu"}
    assert snapshot["state_dict"] is snapshot["model"], "what is there twice is written once"


def test_on_the_cpu_nothing_is_copied() -> None:
    value = {"a": torch.ones(2), "b": [torch.zeros(1), {"c": 3}], "d": OrderedDict(e=torch.ones(1)), "f": (1, 2)}
    copied = on_cpu(value, {})
    assert_equal(copied, value)
    assert copied["a"] is value["a"]
    state = nn.BatchNorm1d(2).state_dict()
    assert on_cpu({"s": state}, {})["s"]._metadata == state._metadata  # type: ignore[attr-defined]
