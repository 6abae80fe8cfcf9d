"""--gpus: those that exist are used, the others are named."""

from __future__ import annotations

import threading

import pytest
import torch

from training.devices import _Replica, busy_cores, processes_wanted, select_gpus
from utils.errors import UserError


@pytest.mark.parametrize(
    ("wanted", "available", "expected"),
    [
        (None, 2, ([0, 1], [])),
        (None, 0, ([], [])),
        ("", 2, ([], [])),
        ("0,1,2,3", 2, ([0, 1], [2, 3])),
        ("0,1,2,3", 0, ([], [0, 1, 2, 3])),
        ("3, 1", 4, ([3, 1], [])),
    ],
)
def test_selection(wanted: str | None, available: int, expected: tuple[list[int], list[int]]) -> None:
    assert select_gpus(wanted, available) == expected


@pytest.mark.parametrize("wanted", ["a", "0,0", "-1", "0;1"])
def test_bad_lists_are_refused(wanted: str) -> None:
    with pytest.raises(UserError, match="--gpus"):
        select_gpus(wanted, 4)


@pytest.mark.parametrize(
    ("parallel", "processes", "message"),
    [("dp", 2, "only with --parallel ddp"), ("ddp", 0, "--processes N")],
)
def test_process_counts_that_cannot_be_are_refused(parallel: str, processes: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        processes_wanted(parallel, processes, "")


def test_process_counts() -> None:
    assert processes_wanted("dp", 0, "") == 1
    assert processes_wanted("ddp", 3, "") == 3


def test_replicas_in_threads_keep_the_type_of_autocast() -> None:
    # DataParallel's threads know that there is autocast, but take their own default type for it.
    with torch.autocast("cpu", torch.float16):
        replica = _Replica(torch.nn.Linear(2, 2), "cpu")
    dtypes = []

    def work() -> None:
        with torch.autocast("cpu"):
            dtypes.append(replica(torch.zeros(1, 2)).dtype)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert dtypes == [torch.float16]


def test_several_threads_on_cores_that_others_use_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr("os.getloadavg", lambda: (9.2, 0.0, 0.0))
    assert "load 9.2 on 4 cores): 2 threads may" in busy_cores(2)
    assert not busy_cores(1)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert not busy_cores(2)
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr("os.getloadavg", lambda: (4.5, 9.0, 9.0))
    assert not busy_cores(2), "what this run's own earlier steps leave is no other program"
