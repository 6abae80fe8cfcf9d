"""What fails on a GPU is said by the programs that check it, and the rest goes on."""

from __future__ import annotations

import pytest
import torch

from benchmarks import gpu_step
from benchmarks.check_gpu import attempt, augmentation
from benchmarks.gpu_agreement import Answer
from training.capture import Compute

CPU = torch.device("cpu")


def fails(compute: Compute) -> Compute:
    raise RuntimeError("operation not permitted when stream is capturing\nmore of it")


def test_a_graph_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu_step, "calls_again", fails)
    monkeypatch.setattr(gpu_step, "WAYS", ("ours",))
    shape = gpu_step.QUICK[0]
    found = gpu_step.compare(shape, CPU, rounds=1, steps=1)
    gpu_step.show(shape, found)
    assert not found
    said = capsys.readouterr().out
    assert said.startswith("2D b2, ours: FAILED: --cuda_graph on: operation not permitted when stream is capturing;")
    assert said.count("\n") == 1


def test_checks_say_what_they_found(capsys: pytest.CaptureFixture[str]) -> None:
    bad: list[str] = []
    for name, check in augmentation(CPU, quick=True):
        attempt(name, check, bad)
    attempt("two GPUs", lambda: Answer(None, "it needs two"), bad)
    assert not bad
    attempt("numbers", lambda: Answer(False, "0.1 apart"), bad)
    attempt("a graph", lambda: fails(lambda: None), bad)  # type: ignore[arg-type, return-value]
    assert bad == ["numbers", "a graph"]
    lines = [line.split(" (")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "ok      --augment device, 2D = CPU: the same bits are wanted",
        "ok      --augment device, 3D = CPU: 0.0e+00 apart",
        "skipped two GPUs: it needs two",
        "BAD     numbers: 0.1 apart",
        "BAD     a graph: RuntimeError: operation not permitted when stream is capturing",
    ]
