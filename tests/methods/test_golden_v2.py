"""Three steps of PCRLv2 in 2D and in 3D give the published implementation's numbers, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from methods.pcrlv2 import PCRLv2Draws
from models.pcrlv2 import Outputs, Vectors, enlarge
from models.unet import published_state
from tests.examples import by_speed, golden_steps
from tests.golden import methods, rules

CASES = {case["case"]: case for case in methods.cases("pcrlv2")}
RELATIVE, SMALLEST = 1e-9, 1e-3  # a comparison may be near 0
SCHEDULE = 240  # epochs of the published beta


def assert_sums(actual: list[float], expected: list[float], what: str) -> None:
    assert actual == pytest.approx(expected, rel=RELATIVE, abs=RELATIVE * max(map(abs, expected))), what


def assert_outputs(out: Outputs, expected: dict[str, Any], size: torch.Size) -> None:
    local_by_local = [Vectors(*(vector.transpose(0, 1).flatten(0, 1) for vector in each)) for each in out.locals]
    passes = {"view1": out.view1, "view2": out.view2, "local": local_by_local}
    for name, vectors in passes.items():
        for scale, (projection, prediction) in enumerate(vectors):
            assert_sums(rules.sums(projection), expected[name]["projections"][scale], f"{name} {scale}")
            assert_sums(rules.sums(prediction), expected[name]["predictions"][scale], f"{name} {scale}")
    assert_sums(rules.sums(out.restored), expected["view1"]["restored"], "restored")
    for scale, restoration in enumerate(out.restorations):
        sums = rules.sums(enlarge(restoration, size))
        assert_sums(sums, expected["view1"]["deep_restored"][scale], f"restored at scale {scale}")


@pytest.mark.parametrize("name", by_speed(CASES))
def test_three_steps_give_the_published_numbers(name: str) -> None:
    case = CASES[name]
    method = methods.pcrlv2(case)
    seen: list[Outputs] = []
    method.network.register_forward_hook(lambda _, inputs, outputs: seen.append(outputs))
    optimizer = torch.optim.SGD(
        method.trainable(), case["lr"], momentum=case["momentum"], weight_decay=case["weight_decay"]
    )
    for record in golden_steps(case):
        lr = case["lr"] * (1 + math.cos(math.pi * record["epoch"] / case["epochs"])) / 2
        assert lr == pytest.approx(record["lr"], rel=RELATIVE)
        optimizer.param_groups[0]["lr"] = lr
        method.begin(record["epoch"], SCHEDULE)
        batch = methods.pcrlv2_batch(case, record["step"])
        output = method(batch, PCRLv2Draws(tuple(record["draws"]["scales"])))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        method.commit(output)

        figures = {
            "beta": method.beta,
            "loss": output.loss.item(),
            "restoration": output.terms["restoration"].item(),
            "comparison": output.terms["comparison"].item(),
            "local": output.terms["local"].item(),
            "deep_restoration": output.terms["deep"].item(),
        }
        for key, value in figures.items():
            assert value == pytest.approx(record[key], rel=RELATIVE, abs=RELATIVE * SMALLEST), key
        if "outputs" in record:
            assert_outputs(seen[0], record["outputs"], batch["gt1"].shape[2:])
        state = published_state(method.network)
        for key, expected in record["student"].items():
            assert_sums(rules.sums(state[key]), expected, f"{key}, step {record['step']}")
        of_all = {
            "all_parameters": list(method.network.parameters()),
            "all_buffers": [b for b in method.network.buffers() if b.is_floating_point()],
        }
        for key, tensors in of_all.items():
            sums = np.sum([rules.sums(tensor) for tensor in tensors], axis=0).tolist()
            assert_sums(sums, record[key], f"{key}, step {record['step']}")
