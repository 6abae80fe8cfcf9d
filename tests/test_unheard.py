"""Runs whose terminal goes, whose log is on a full disk, whose reader has ended: what they say is lost, and no more."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, main_command, write_pairs
from tests.inprocess import Started
from tests.processes import PATIENCE_S, logged, wait_for

OPTIONS = ("--b", "2", "--ratio", "1.0", "--workers", "0", "--log_every", "1", "--save_minutes", "60")
STEPS = 20  # of one epoch: a run that is not through before a test has caught it
LEAN = ("--without", "reconstruction,mixup", "--image_every", "0")
FINAL = "pcrl_luna_pretask_1.0_{}.pt"
IN_A_TERMINAL = str(Path(__file__).with_name("in_a_terminal.py"))


def command(pairs: Path, output: Path) -> list[str]:
    own = ("--data", str(pairs), "--output", str(output), "--epochs", "1")
    return main_command(*own, *OPTIONS, *LEAN)


def lose_terminal(argv: list[str], output: Path, ignoring: bool) -> int:
    """Run a script in a terminal of its own, which goes after two steps; -> the exit status."""
    ours, its = pty.openpty()
    script = [IN_A_TERMINAL, os.ttyname(its), "ignoring" if ignoring else "ending", *argv[1:]]
    process = Started(script, output.parent, output.parent / "log")
    os.set_blocking(ours, False)

    def two_steps() -> bool:
        with contextlib.suppress(BlockingIOError):  # a terminal whose output nobody takes makes a program wait
            os.read(ours, 10**6)
        return logged(output) >= 2

    wait_for(two_steps, process)
    os.close(its)
    os.close(ours)
    return process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("many"), scans=10, pairs=2 * STEPS // 10)


def test_without_its_terminal_a_run_saves_and_stops(many: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert lose_terminal(command(many, output), output, ignoring=False) == 128 + signal.SIGHUP
    saved = torch.load(output / "last.pt", weights_only=True)
    assert 2 <= STEPS * saved["epoch"] + saved["step"] < STEPS
    assert not (output / FINAL.format(1)).exists()


def test_without_its_terminal_a_run_under_nohup_goes_on(many: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert lose_terminal(command(many, output), output, ignoring=True) == 0
    assert (output / FINAL.format(1)).exists()


@pytest.fixture
def unread() -> Iterator[int]:
    """The end to write to of a pipe that nobody reads any more."""
    reads, writes = os.pipe()
    os.close(reads)
    yield writes
    os.close(writes)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_log_on_a_full_disk_and_a_reader_that_has_ended(pairs: Path, tmp_path: Path, unread: int) -> None:
    output = tmp_path / "out"
    with open("/dev/full", "w", encoding="utf-8") as full:
        run = subprocess.run(command(pairs, output), stdout=full, stderr=unread, timeout=PATIENCE_S, check=False)
    assert run.returncode == 0
    assert logged(output) == 3
    assert (output / FINAL.format(1)).exists()


def test_closed_streams_and_help_that_is_cut_short(pairs: Path, tmp_path: Path, unread: int) -> None:
    shell = ["sh", "-c", '"$@" >&- 2>&-', "sh"]
    assert subprocess.run([*shell, *command(pairs, tmp_path / "out")], timeout=PATIENCE_S, check=False).returncode == 0
    assert (tmp_path / "out" / FINAL.format(1)).exists()
    help_, refused = ([sys.executable, str(ROOT / "main.py"), flag] for flag in ("--help", "--nonsense"))
    run = subprocess.run(help_, stdout=unread, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    run = subprocess.run(refused, stdout=subprocess.PIPE, stderr=unread, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout) == (2, "")
