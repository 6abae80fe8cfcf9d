"""Several processes, one of which may be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from preprocess.jobs.parallel import THREAD_VARIABLES, fresh_processes, run_parallel
from utils.errors import UserError


def square_or_die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory runs out
    return number * number


def refuse(number: int) -> int:
    raise UserError(f"no {number}")


def threads(_: int) -> list[str | None]:
    return [os.environ.get(name) for name in THREAD_VARIABLES]


def wait_for_ever(_: int) -> None:
    time.sleep(600)


def hold_a_pool(started: str) -> None:
    with fresh_processes(1) as pool:
        child = pool.submit(os.getpid).result()
        with open(started, "w") as file:
            file.write(str(child))
        pool.submit(wait_for_ever, 0).result()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_process_costs_its_own_item_alone(workers: int) -> None:
    assert dict(run_parallel(square_or_die, range(6), workers)) == {0: 0, 1: 1, 2: 4, 3: None, 4: 16, 5: 25}


def test_an_exception_is_raised_here() -> None:
    with pytest.raises(UserError, match=r"no [01]"):
        list(run_parallel(refuse, range(3), 2))


def test_each_process_has_one_thread_and_ours_keep_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert list(run_parallel(threads, [0], 1)) == [(0, ["1"] * len(THREAD_VARIABLES))]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = f"from tests.preprocess.jobs.test_parallel import hold_a_pool; hold_a_pool({str(tmp_path / 'pid')!r})"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    _wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    worker = int((tmp_path / "pid").read_text())
    assert _runs(worker)
    parent.kill()
    parent.wait()
    _wait_until(lambda: not _runs(worker))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # ended, and only not yet waited for


def _wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300  # a slow, loaded machine
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
