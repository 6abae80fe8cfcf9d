"""What a step launches on a GPU, and how often the host waits for it: counted on fake CUDA tensors, without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fake_cuda.run import run, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"fake CUDA tensors: {why_not()}")
# Small images: the operators are those of large ones. The most that a step may launch, one by one.
STEPS = [
    ({"dims": 2, "batch": 2, "size": [32, 32], "precision": "float16"}, 1180),
    ({"dims": 3, "batch": 2, "size": [8, 8, 8], "precision": "bfloat16"}, 980),
    ({"dims": 3, "batch": 2, "size": [8, 8, 8], "precision": "float32"}, 1040),
]
AUGMENTED = [
    ({"dims": 2, "batch": 2, "size": [64, 64], "augment": True}, 60),
    ({"dims": 3, "batch": 2, "size": [32, 32, 16], "augment": True}, 750),
]


def test_the_host_waits_once_a_step_and_a_step_late(tmp_path: Path) -> None:
    cases = [*STEPS, *AUGMENTED]
    found = run(tmp_path, "steps", *(json.dumps(case) for case, _ in cases))
    for (case, limit), counted in zip(cases, found, strict=True):
        assert 0 < sum(counted["operators"].values()) <= limit, case
        if "augment" in case:
            assert not counted["waits"], "views that are finished on the device"
            continue
        assert [wait.split(" training")[0] for wait in counted["waits"]] == ["a step late"], case
        assert sum(counted["waits"].values()) == 1, case
        assert counted["copies"] == {"_foreach_copy_": 2}, "what a graph's inputs are filled by: a batch, and draws"
