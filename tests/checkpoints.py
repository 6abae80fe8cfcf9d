"""Checkpoints as runs leave them, with values that tell every tensor from every other."""

from __future__ import annotations

import copy
import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from methods.pcrl import PCRL, PCRLConfig
from models.pcrl import PCRLNetwork, build_network
from options import Options
from training.checkpoint import Position, TrainingState
from training.precision import build_precision
from training.schedule import build_optimizer

LIST_SHA256 = hashlib.sha256(b"the list").hexdigest()


def lively(network: nn.Module) -> None:
    """Values that tell every tensor from every other: norms of a new network are all alike."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if "running_var" in name or (tensor.dim() == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.dim() == 1:
            tensor.normal_(0, 0.1, generator=generator)


@lru_cache(maxsize=2)  # a new network takes longer than its file
def _method(dims: int, channels: int, outputs: int, norm: str, final_act: str) -> PCRL:
    """With a teacher that differs from the student."""
    method = PCRL(build_network(dims, channels, outputs, norm, final_act), PCRLConfig(n_data=2, queue_size=8))
    lively(method.student)
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.mul_(1.25)
    return method


def save_checkpoint(path: Path, n: str, run: dict[str, Any] | None = None, **flags: Any) -> PCRLNetwork:
    """A checkpoint as a run leaves it, after 3 epochs and a step; -> its student, in float64.

    ``run``: what it tells of its run.
    """
    options = Options(**{"n": n, "data": "/secret/place/xrays", "b": 4, "epochs": 240, "ratio": 1.0} | flags)
    method = _method(options.dims, options.inchannel, options.outchannel, options.norm, options.final_act)
    optimizer = build_optimizer("sgd", method.trainable(), 1e-3, 0.9, 1e-4)
    precision = build_precision("off", torch.device("cpu"), method, optimizer)
    state = TrainingState(method, optimizer, precision, Position(3, 1))
    snapshot = state.snapshot(options, LIST_SHA256, {})
    torch.save(snapshot if run is None else snapshot | {"run": run}, path)
    record = {
        "started": "2026-01-02T03:04:05+00:00",
        "data": {"samples": 10, "list_sha256": LIST_SHA256},
        "versions": {"torch": "2.99.1"},
        "commit": "0123abcd",
    }
    (path.parent / "run.json").write_text(json.dumps(record))
    return copy.deepcopy(method.student).double().eval()
