"""What --dry_run says of beginnings, disk and memory; tests/test_main.py runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from options import Options
from training.rehearsal import checkpoint_gb, out_of_memory_is_said, tell_beginning
from utils.errors import UserError
from utils.ranks import ALONE


def beginning(capsys: pytest.CaptureFixture[str], output: Path, **more: Any) -> str:
    tell_beginning(Options(data="data", output=str(output), **more), "hash", ALONE, steps=4)
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_it_says_where_a_run_would_begin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert "it would start anew: " in beginning(capsys, output)
    assert "it would start anew: " in beginning(capsys, output, resume="auto")
    assert not output.exists()
    output.mkdir()
    saved = {"opt": Options(data="elsewhere").plain(), "epoch": 7, "step": 3, "list_sha256": "hash", "world_size": 1}
    torch.save(saved | {"model": {}, "torch_rng": torch.zeros(1)}, output / "last.pt")
    assert "warning: it would not start: --output" in beginning(capsys, output)
    assert "it would start anew, over the run in" in beginning(capsys, output, resume="none")
    assert "it would go on at epoch 8/100, step 4/4, of" in beginning(capsys, output, resume="auto")
    assert "it would not start: --resume: that run had --seed 0, not 1" in beginning(
        capsys, output, resume="auto", seed=1
    )


def test_the_size_of_a_checkpoint_is_that_of_its_file(tmp_path: Path) -> None:
    payload = {"a": torch.rand(1000, 100), "b": [1, 2.5, "text"]}
    torch.save(payload, tmp_path / "file.pt")
    assert checkpoint_gb(payload) * 1e9 == pytest.approx((tmp_path / "file.pt").stat().st_size, rel=0.01)


def test_a_batch_that_is_too_large_for_the_gpu_is_one_line() -> None:
    expected = r"^--b 16: a step does not fit .*\(CUDA out of memory.\); use a smaller --b"
    with pytest.raises(UserError, match=expected), out_of_memory_is_said(Options(data="data")):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nmore")
