"""What torch says when a loader has no room, as its versions word it."""

from __future__ import annotations

import pytest

from utils.memory import lost_worker


@pytest.mark.parametrize(
    "said",
    [
        "DataLoader worker (pid 8) is killed by signal: Killed",
        "DataLoader worker (pid(s) 8, 9) exited unexpectedly",
        "Pin memory thread exited unexpectedly",
        "unable to mmap 4096 bytes from file </torch_1_2>: Cannot allocate memory (12)",
        "unable to open shared memory object </torch_1_2> in read-write mode: Too many open files (24)",
        "unable to write to file </torch_1_2>: No space left on device (28)",
    ],
)
def test_a_batch_that_did_not_arrive(said: str) -> None:
    error = RuntimeError(f"Caught RuntimeError in worker process 0.\nOriginal Traceback:\n{said}. \nmore")
    assert lost_worker(error) == said


def test_a_batch_in_flight_from_a_worker_that_was_killed() -> None:
    """As it was seen: ``ConnectionResetError: [Errno 104] Connection reset by peer``."""
    for error in (ConnectionResetError(104, "Connection reset by peer"), EOFError(), FileNotFoundError(2, "gone")):
        assert lost_worker(error) == "its connection broke"
    assert "open files" in lost_worker(OSError(24, "Too many open files"))
    assert not lost_worker(FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0.\nOriginal ..."))
    assert not lost_worker(PermissionError(13, "Permission denied"))


@pytest.mark.parametrize("said", ["unable to open file </data/x.pt> in read-only mode: No such file", "shape mismatch"])
def test_defects_keep_their_traceback(said: str) -> None:
    assert not lost_worker(RuntimeError(said))
    assert not lost_worker(ValueError("DataLoader worker (pid 8) is killed by signal: Killed"))
