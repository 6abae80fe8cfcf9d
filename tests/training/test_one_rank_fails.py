"""What ends one rank alone is said in one line, and ends all: others may wait for it in any collective call."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.inprocess import run_script

# What main.py does with a phase, but the phase. The others meet each case in a call that rank 1 never makes.
PROGRAM = """
import errno, os, sys, time, traceback
import torch
import torch.distributed as dist
from options import Options
from training.distributed import end_alike, end_now, joined, launch, local_rank, ranks_of_environment
from training.dry_run import out_of_memory_is_said
from utils.errors import UserError

def fail(kind):
    if kind == "gpu memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\\nmore")
    if kind == "disk":
        raise OSError(errno.ENOSPC, "No space left on device", "run.json")
    if kind == "bug":
        raise IndexError("of a bug")
    raise UserError("a file is damaged")

if __name__ == "__main__":
    kind, who = sys.argv[1:3]
    ranks = ranks_of_environment()
    if local_rank() is None:
        sys.exit(launch(2))

    def work():
        with out_of_memory_is_said(Options(data="x")):
            dist.all_reduce(torch.ones(5))
            if who == "all" or ranks.rank == int(who):
                fail(kind)
            dist.all_gather([torch.empty(3), torch.empty(3)], torch.ones(3))
            ranks.gather_objects(0)
            time.sleep(60)

    with joined(ranks, torch.device("cpu")):
        status = end_alike(ranks, work)
    end_now(status)
"""
LINES = {
    "gpu memory": "--b 16: a step does not fit into the GPU's memory (CUDA out of memory. Tried to allocate 2.00 GiB.)",
    "disk": "run.json cannot be written: No space left on device; make room and start again",
    "bug": "IndexError: of a bug",
    "input": "a file is damaged",
}


@pytest.mark.parametrize(("kind", "who"), [("gpu memory", "1"), ("disk", "0"), ("bug", "1"), ("input", "all")])
def test_the_reason_is_said_once_and_the_run_ends(
    kind: str, who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    started = time.monotonic()
    status = run_script([str(tmp_path / "program.py"), kind, who], tmp_path, tmp_path / "out", tmp_path / "err")
    said = (tmp_path / "err").read_text()
    assert status == (1 if kind == "bug" else 2), said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    speaker = "rank 1: " if who == "1" else ""
    assert errors[0].startswith(f"error: {speaker}{LINES[kind]}"), said
    assert errors[1:] == (["error: rank 1 failed (error above), so the run ended"] if kind == "bug" else [])
    assert ("Traceback" in said) == (kind == "bug")
    assert "gloo" not in said
    assert time.monotonic() - started < 60, "the other rank was waited for"
