"""Held-out data in pre-training: nothing is chosen before the queue is full, and the last line says why a run ended."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from methods.pcrl import PCRL, PCRLConfig
from models.pcrl import build_network
from tests.conftest import ROOT, rows, write_xrays
from tests.inprocess import run_script

EPOCHS = 10**8  # whose checkpoints no disk would hold
FLAGS = "--n chest --size 64 --b 4 --workers 0 --gpus , --ratio 1 --val_every 1 --without mixup,gate --narrow 8"


def run(tmp_path: Path, *more: object) -> tuple[int, list[str]]:
    data = tmp_path / "data"
    if not data.exists():
        write_xrays(data, count=8, size=64)
        lines = (data / "chest_train.txt").read_text().splitlines(keepends=True)
        for name, part in (("chest_train.txt", lines[:4]), ("chest_valid.txt", lines[4:])):
            (data / name).write_text("".join(part))
    log = tmp_path / "log.txt"
    argv = ["--data", data, "--output", "out", *FLAGS.split(), *more]
    status = run_script([str(ROOT / "main.py"), *map(str, argv)], tmp_path, log)
    return status, log.read_text().splitlines()


def test_only_a_network_that_was_trained_is_the_best_and_the_end_is_explained(tmp_path: Path) -> None:
    status, printed = run(tmp_path, "--moco_k", 8, "--epochs", EPOCHS, "--patience", 1, "--lr", 0)
    assert status == 0, printed
    (short,) = [number for number, line in enumerate(printed) if "the disk of --output out has " in line]
    assert short < printed.index(next(line for line in printed if line.startswith("epoch 1/"))), "said at the start"
    scores = {row["epoch"]: row["val_loss"] for row in rows(tmp_path / "out") if "val_loss" in row}
    (uncounted,) = [line for line in printed if "not counted" in line]
    assert uncounted.startswith(f"epoch 1/{EPOCHS}: on held-out data loss ")
    assert uncounted.endswith("; not counted: the queue is 50 % full")
    counted = {epoch: score for epoch, score in scores.items() if epoch > 1}
    best = torch.load(tmp_path / "out" / "best.pt", weights_only=True)
    assert (best["best_epoch"], best["best"]) == (min(counted, key=lambda e: counted[e]), min(counted.values()))
    last = max(scores)
    assert 3 <= last < 9
    assert printed[-1] == (
        f"stopped after epoch {last} of {EPOCHS}: 1 result on held-out data without improvement (--patience 1)"
    )
    assert printed[-2] == f"best.pt: epoch {best['best_epoch']}, loss on held-out data {best['best']:.3f}"
    assert json.loads((tmp_path / "out" / "run.json").read_text())["data"]["whole_list_sha256"]


def test_a_queue_that_never_fills_chooses_nothing_and_that_is_said(tmp_path: Path) -> None:
    status, printed = run(tmp_path, "--moco_k", 999, "--epochs", 2, "--patience", 1)
    assert status == 0, printed
    assert printed[-2].startswith("warning: out has no best.pt: no result on held-out data counted")
    assert len([line for line in printed if "not counted" in line]) == 2
    assert not (tmp_path / "out" / "best.pt").exists()


def test_a_method_says_when_it_is_warm() -> None:
    network = build_network(2, 1, 1, "bn", "none")
    method = PCRL(network, PCRLConfig(n_data=1, queue_size=10))
    assert method.warming() == "the queue is 0 % full"
    keys = torch.nn.functional.normalize(torch.randn(6, 128), dim=1)
    method.queue.write(method.queue.read().push(keys))
    assert method.warming() == "the queue is 60 % full"
    method.queue.write(method.queue.read().push(keys))
    assert method.warming() == ""
    alone = PCRL(network, PCRLConfig(n_data=1, queue_size=10, without=frozenset({"contrast"})))
    assert alone.warming() == "", "what has no queue need not wait"
    assert method.held_out_score({"loss": 2.5, "contrast": 1.0}) == 2.5
