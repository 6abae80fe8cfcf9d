"""What a step launches on a GPU, and how often the host waits for it: counted on fake CUDA tensors, without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_cuda.run import count_steps, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"fake CUDA tensors: {why_not()}")
# Small images: the operators are those of large ones. The most that a step may launch, one by one.
CASES = [
    ({"dims": 2, "batch": 2, "size": [32, 32]}, 1950),
    ({"dims": 3, "batch": 2, "size": [8, 8, 8]}, 1650),
]
AUGMENTED = {"dims": 2, "batch": 2, "size": [64, 64], "augment": True}


def test_the_host_waits_once_a_step_and_a_step_late(tmp_path: Path) -> None:
    *steps, views = count_steps(tmp_path, *(case for case, _ in CASES), AUGMENTED)
    for (case, limit), counted in zip(CASES, steps, strict=True):
        assert [wait.split(" training")[0] for wait in counted["waits"]] == ["a step late"], case
        assert sum(counted["waits"].values()) == 1, case
        assert sum(counted["operators"].values()) <= limit, case
    assert views["operators"]
    assert not views["waits"], "views that are finished on the device"
