"""Processes that load data and have no room: what torch and the system say of it, and what the user reads."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data._utils.pin_memory import _pin_memory_loop

from datasets import workers
from datasets.loader import Loader
from datasets.workers import _quiet_about_lost, _quiet_thread, why_lost
from tests.conftest import ROOT
from utils.errors import UserError

SAID = {
    "DataLoader worker (pid 8) is killed by signal: Killed": "shm-size",
    "DataLoader worker (pid(s) 8, 9) exited unexpectedly": "shm-size",
    "Pin memory thread exited unexpectedly": "shm-size",
    "unable to mmap 4096 bytes from file </torch_1_2>: Cannot allocate memory (12)": "shm-size",
    "unable to open shared memory object </torch_1_2> in read-write mode: Too many open files (24)": "ulimit -n",
    "unable to write to file </torch_1_2>: No space left on device (28)": "shm-size",
}


@pytest.mark.parametrize("said", SAID)
def test_a_batch_that_did_not_arrive(said: str) -> None:
    known = why_lost(RuntimeError(f"Caught RuntimeError in worker process 0.\nOriginal Traceback:\n{said}. \nmore"))
    assert known is not None
    assert known.why == said
    assert SAID[said] in known.remedy


@pytest.mark.parametrize(
    ("error", "why", "remedy"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), "its connection broke", "--shm-size"),
        (EOFError(), "its connection broke", "--shm-size"),
        (FileNotFoundError(2, "gone"), "its connection broke", "--shm-size"),
        (OSError(24, "Too many open files"), "too many open files", "ulimit -n"),
        (RuntimeError("Too many open files. Communication with the workers is no"), "too many open files", "ulimit -n"),
        (RuntimeError("received 0 items of ancdata"), "too many open files", "ulimit -n"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "no more processes can be started", "ulimit -u"),
        (OSError(12, "Cannot allocate memory"), "no more processes can be started", "fewer --workers"),
        (RuntimeError("can't start new thread"), "no more processes can be started", "ulimit -u"),
    ],
)
def test_a_shortage(error: Exception, why: str, remedy: str) -> None:
    known = why_lost(error)
    assert known is not None
    assert known.why == why
    assert remedy in known.remedy


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("unable to open file </data/x.pt> in read-only mode: No such file"),
        RuntimeError("shape mismatch"),
        ValueError("DataLoader worker (pid 8) is killed by signal: Killed"),
        FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0.\nOriginal ..."),
        PermissionError(13, "Permission denied"),
    ],
)
def test_defects_keep_their_traceback(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert why_lost(error) is None
    _quiet_about_lost(type(error), error, None)
    assert str(error).splitlines()[0] in capsys.readouterr().err


def test_why_the_thread_that_pins_batches_ended(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch tells no more than that it ended."""
    monkeypatch.setattr(threading, "excepthook", _quiet_thread)

    def run(name: str) -> str:
        def fails() -> None:
            raise OSError(24, "Too many open files")

        fails.__name__ = name
        thread = threading.Thread(target=fails)
        thread.start()
        thread.join()
        return capsys.readouterr().err

    assert run(_pin_memory_loop.__name__) == ""
    ended = RuntimeError("Pin memory thread exited unexpectedly")
    assert [known.why for known in (why_lost(ended), why_lost(ended)) if known] == ["too many open files", str(ended)]
    assert "Too many open files" in run("of_a_tracker")
    assert not workers._of_threads


def test_a_folder_for_sockets_with_too_long_a_path(pairs: Path, tmp_path: Path) -> None:
    """The thread that sends batches fails, which the run would not see: it waited for ever."""
    folder = tmp_path / ("scratch" * 16)
    folder.mkdir()
    flags = ["--workers", "2", "--b", "2", "--epochs", "1", "--ratio", "1", "--narrow", "8", "--moco_k", "32"]
    done = subprocess.run(
        [sys.executable, ROOT / "main.py", "--data", pairs, "--output", tmp_path / "out", "--gpus", "", *flags],
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stderr.splitlines() == [
        "error: a process that loads data could not hand over a batch (AF_UNIX path too long, in "
        f"{folder}); set TMPDIR to another folder, with a short path (TMPDIR=/tmp), or use --workers 0"
    ]
    assert done.returncode == 2


@pytest.mark.parametrize("limit", [12, 16])
def test_a_low_limit_of_open_files(limit: int) -> None:
    """Whichever process meets it first, and whatever it does then."""
    program = f"""
import resource, torch
from datasets.loader import Loader
from datasets.workers import kill_workers_at_exit
from tests.datasets.test_batches import Numbers
from utils.errors import run_cli

def main():
    kill_workers_at_exit()
    resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
    list(Loader(Numbers(), 2, 0, 2, torch.device("cpu")).epoch(0))

run_cli(main)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    words = (
        r"^error: a process that loads data could not hand over a batch \((too many open files\); raise the limit "
        r"\(ulimit -n 65536\)|its connection broke\); open files \(ulimit -n is [0-9]+\)), .* a smaller --prefetch"
    )
    assert re.search(words, done.stderr, re.MULTILINE)  # Python itself may show that it could not remove a folder
    assert done.returncode == 2


@pytest.mark.parametrize(("number", "remedy"), [(24, "ulimit -n"), (12, "--shm-size")])
def test_a_sample_that_the_machine_has_no_room_for_is_not_replaced(number: int, remedy: str) -> None:
    """It is as good as others, which might be left out in its place."""

    class Short:
        def __len__(self) -> int:
            return 200

        def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
            if key[1] == 7:
                raise UserError("the image 7.png cannot be read") from OSError(number, "")
            return {"image": torch.zeros(1)}

    with pytest.raises(UserError, match=f"^the image 7.png cannot be read; .*{remedy}"):
        list(Loader(Short(), 4, 0, 2, torch.device("cpu"), "skip").epoch(0))


def test_a_low_soft_limit_is_raised() -> None:
    program = (
        "import resource; from datasets.workers import allow_open_files; allow_open_files()\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run(
        ["bash", "-c", 'ulimit -Sn 40; exec "$@"', "-", sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    soft, hard = done.stdout.split()
    assert soft == hard == str(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
