"""Processes that a test starts: waiting for them, looking at them, stopping them, leaving them no room on the disk."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.inprocess import Started

PATIENCE_S = 300  # a state that a slow, loaded machine has not reached by then is never reached


def wait_until(condition: Callable[[], bool], what: str = "nothing came of it") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.001)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str] | Started) -> None:
    """Wait for what the process does while it lives."""

    def met() -> bool:
        assert process.poll() is None, process.communicate()
        return condition()

    wait_until(met)


def logged(output: Path) -> int:
    """Rows in a run's metrics.jsonl."""
    path = output / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """In this block, and in processes begun there, a write past ``size`` bytes fails as on a full disk (with EFBIG)."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


@contextmanager
def hanging_up(ignored: bool) -> Iterator[None]:
    """Processes begun in this block ignore SIGHUP or end by it, whatever the tests themselves were begun with."""
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, former)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def state(pid: int) -> str:
    """proc(5)'s letter: R running, S asleep, T stopped, Z zombie; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int) -> bool:
    """False for a zombie too: where nobody waits for orphans, those stay."""
    return state(pid) not in ("", "Z")


@contextmanager
def held(pids: Sequence[int]) -> Iterator[None]:
    """Inside, these processes stand still: what they are about to do cannot pass by."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for pid in pids:  # a signal with a lower number that comes before the stop would go first
            wait_until(lambda pid=pid: state(pid) in ("T", "Z", ""))  # type: ignore[misc]
        yield
    finally:
        for pid in pids:
            if alive(pid):
                os.kill(pid, signal.SIGCONT)


def pending(pid: int, signum: int) -> bool:
    """Whether a signal has been sent to a process that stands still."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = dict(line.split(":") for line in status if line.startswith("ShdPnd"))
    return bool(int(masks["ShdPnd"], 16) >> (signum - 1) & 1)
