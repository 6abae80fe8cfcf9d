"""What --dry_run says of beginnings, disk and memory; tests/test_main.py runs it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.loader import Loader
from options import Options
from training.checkpoint import Position
from training.dry_run import checkpoint_gb, out_of_memory_is_said, tell_beginning, tell_time
from utils.errors import UserError


class Numbers:
    """Four samples."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        return {"image": torch.tensor(key[1])}


def four_batches() -> Loader:
    return Loader(Numbers(), batch_size=1, seed=0, workers=0, device=torch.device("cpu"))


def beginning(capsys: pytest.CaptureFixture[str], output: Path, **more: Any) -> str:
    tell_beginning(Options(data="data", output=str(output), **more), "hash", four_batches(), {})
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_it_says_where_a_run_would_begin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert "a new run would start: " in beginning(capsys, output)
    assert "a new run would start: " in beginning(capsys, output, resume="auto")
    assert not output.exists()
    output.mkdir()
    saved = {"opt": Options(data="elsewhere").plain(), "epoch": 7, "step": 3, "list_sha256": "hash", "world_size": 1}
    torch.save(saved | {"model": {}, "torch_rng": torch.zeros(1)}, output / "last.pt")
    assert "warning: the run would not start: --output" in beginning(capsys, output)
    assert "a new run would start and overwrite the run in" in beginning(capsys, output, resume="none")
    assert "it would go on at epoch 8/100, step 4/4, of" in beginning(capsys, output, resume="auto")
    other = beginning(capsys, output, resume="auto", seed=1, lr=0.5)
    assert "the run would not start: --resume: that run had --seed 0, not 1, and --lr 0.001, not 0.5; give" in other
    # what is left: the last step of epoch 8, and 92 epochs of 4
    options = Options(data="data", output=str(output), resume="auto")
    position = tell_beginning(options, "hash", four_batches(), {})
    tell_time(10.0, 4, position, options)
    assert "time: about 1:01:30 for the last 369 of 400 steps, 0:00:40 per epoch" in capsys.readouterr().out
    tell_time(10.0, 4, Position(), options)
    assert "time: about 1:06:40 for 100 epochs, 0:00:40 per epoch" in capsys.readouterr().out


def test_the_size_of_a_checkpoint_is_that_of_its_file(tmp_path: Path) -> None:
    payload = {"a": torch.rand(1000, 100), "b": [1, 2.5, "text"]}
    torch.save(payload, tmp_path / "file.pt")
    assert checkpoint_gb(payload) * 1e9 == pytest.approx((tmp_path / "file.pt").stat().st_size, rel=0.01)


def test_a_batch_that_is_too_large_for_the_gpu_is_one_line() -> None:
    expected = r"^--b 16: a step does not fit .*\(CUDA out of memory.\); use a smaller --b"
    with pytest.raises(UserError, match=expected), out_of_memory_is_said(Options(data="data")):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nmore")


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({}, "use a smaller --b, --accumulate 2 or more, fewer --workers, or smaller crops"),
        ({"n": "chest", "phase": "knn"}, "use a smaller --b, fewer --workers, or a smaller --size"),
    ],
)
def test_so_is_one_that_is_too_large_for_main_memory(options: dict[str, Any], remedy: str) -> None:
    def refused(what: str) -> Any:
        match = rf"^--b 16: it does not fit into main memory \({what}\); {remedy}$"
        return pytest.raises(UserError, match=match)

    said = Options(data="data", **options)
    with refused("4,000,000,000,000 MB more are not available"), out_of_memory_is_said(said):
        torch.empty(10**18)
    with refused("no more memory available"), out_of_memory_is_said(said):
        raise MemoryError
    with refused("no more memory available"), out_of_memory_is_said(said):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")  # of a fork
    for other in (RuntimeError("shapes differ"), OSError(errno.ENOENT, "No such file")):
        with pytest.raises(type(other)), out_of_memory_is_said(said):
            raise other
