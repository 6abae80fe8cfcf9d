"""Nothing that a run computes depends on random state that is not saved: of Python, numpy or a worker."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.ct.luna import LunaPairs
from datasets.loader import Loader
from methods.pcrl import PCRL, PCRLConfig
from models.pcrl import build_network
from tests.conftest import ROOT
from training.loop import Trainer
from training.precision import Native

PACKAGES = ("datasets", "methods", "models", "phases", "preprocess", "training", "utils")
GENERATORS = {"default_rng", "Generator"}  # of numpy.random, with no state that is shared


def test_no_module_draws_from_global_state() -> None:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    assert "random" not in [alias.name for alias in node.names], path
                elif isinstance(node, ast.ImportFrom):
                    assert node.module not in ("random", "numpy.random"), path
                elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("np.random", "numpy.random"):
                    assert node.attr in GENERATORS, f"{path}, line {node.lineno}"


def disturb() -> None:
    """Move the global random state of Python, numpy and torch on."""
    random.random()
    np.random.rand(3)  # noqa: NPY002
    torch.rand(3)


def train(data: Path, workers: int, between: Callable[[], None]) -> dict[str, Tensor]:
    """Two steps; -> everything that a checkpoint would hold of the method."""
    torch.manual_seed(0)
    device = torch.device("cpu")
    config = PCRLConfig(n_data=2, queue_size=64, without=frozenset({"reconstruction"}))  # which draws nothing
    method = PCRL(build_network(3, 1, 1, "bn", "sigmoid"), config).train()
    optimizer = torch.optim.SGD(method.trainable(), 0.01, momentum=0.9)
    trainer = Trainer(method, optimizer, Native(device, enabled=False), 0, 10)
    loader = Loader(LunaPairs(sorted(data.rglob("*.npy"))[:3], 0), 2, 0, workers, device)
    for number, batch in enumerate(loader.epoch(0)):
        between()
        assert trainer.step(batch, number, loader.batch_sizes[number]).good
    return method.state_dict()


def test_disturbed_global_state_changes_no_bit(pairs: Path) -> None:
    expected = train(pairs, 0, lambda: None)
    for name, value in train(pairs, 1, disturb).items():
        assert torch.equal(value, expected[name]), name
