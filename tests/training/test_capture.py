"""A capture, and the copy of a batch, by torch's own streams and allocator, on a GPU that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_cuda.run import run, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"stand-ins for CUDA: {why_not()}")


def test_streams_memory_and_captures(tmp_path: Path) -> None:
    found = {name: value for line in run(tmp_path, "streams") for name, value in line.items()}

    copied, waits = found["asked for a batch"]
    assert copied.startswith("copy ")
    assert copied != "copy 0", "beside the step, which computes on the default stream"
    assert waits == "wait 0", "the step, for the copy"
    assert (found["device"], found["values"]) == ("cuda:0", 1.0)
    assert found["another place while it is used"]

    assert found["asked for a capture"] == [["capture", "thread_local"]], "another thread pins memory meanwhile"
    assert found["asked for a replay"] == ["launch 0"]
    assert found["broken: why"] == "this is why"
    assert "failed due to a previous error during capture" in found["invalid: why"]
    assert found["broken: as before"], "the current stream, and memory that comes back"
    assert found["invalid: as before"]
    assert "not currently recording" in found["ended"]
    assert "start again with --cuda_graph off" in found["memory that does not come back"]
