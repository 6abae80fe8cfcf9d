"""Validation computes the training losses and leaves no trace."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from datasets.ct.luna import LunaPairs
from datasets.loader import Loader
from methods.pcrl import PCRL, PCRLConfig
from models.pcrl import build_network
from tests.conftest import rows, run_main, write_pairs
from training.evaluation import validate
from training.precision import Native


def test_every_bit_stays_and_every_call_gives_the_same(pairs: Path) -> None:
    torch.manual_seed(0)
    device = torch.device("cpu")
    method = PCRL(build_network(3, 1, 1, "bn", "sigmoid", narrow=8), PCRLConfig(n_data=3, queue_size=64)).train()
    method.queue.z.fill_(5.0)
    loader = Loader(LunaPairs(sorted(pairs.rglob("*.npy")), 0), 4, 0, 0, device)
    before = copy.deepcopy(method.state_dict())
    first = validate(method, loader, Native(device, enabled=False), seed=0)
    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert first == validate(method, loader, Native(device, enabled=False), seed=0)
    assert abs(first["loss"] - first["contrast"] - first["reconstruction"]) < 1e-5
    assert all(parameter.grad is None for parameter in method.parameters())


def test_best_beside_last(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", scans=8, pairs=1)  # scan 7 goes to subset 0
    (data / "subset0").rename(data / "subset8")
    output = tmp_path / "out"
    flags = ("--data", data, "--b", 3, "--epochs", 2, "--ratio", 1, "--workers", 0, "--val_every", 1)
    run = run_main(*flags, "--moco_k", 9, "--output", output)  # keys that fill the queue in the first epoch
    assert run.returncode == 0, run.stderr
    assert "held-out data: 2 samples" in run.stdout
    losses = [row["val_loss"] for row in rows(output) if "val_loss" in row]
    assert len(losses) == 2
    best = torch.load(output / "best.pt", weights_only=True)
    assert best["best"] == min(losses)
    assert best["epoch"] == 1 + losses.index(min(losses))
