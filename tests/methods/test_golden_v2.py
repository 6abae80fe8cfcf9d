"""Three steps of PCRLv2 in 2D and in 3D give the published implementation's numbers, in float64."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.pcrlv2 import PCRLv2, PCRLv2Draws
from models.pcrlv2 import Outputs, Vectors, build_network, enlarge
from models.unet import load_published_state, published_state
from tests.examples import by_speed, golden_steps
from tests.golden import rules

GOLDEN = Path(__file__).parents[1] / "golden" / "pcrlv2_steps.json"
CASES = {case["case"]: case for case in json.loads(GOLDEN.read_text())}
RELATIVE, SMALLEST = 1e-9, 1e-3  # a comparison may be near 0
SCHEDULE = 240  # epochs of the published beta


def golden_method(case: dict[str, Any]) -> PCRLv2:
    channels = 3 if case["dim"] == 2 else 1
    network = build_network(case["dim"], channels, channels, "none" if case["dim"] == 2 else "sigmoid").double()
    load_published_state(network, {name: rules.weight(name, t) for name, t in published_state(network).items()})
    return PCRLv2(network).double().train()


def golden_batch(case: dict[str, Any], step: int) -> dict[str, Tensor]:
    channels = 3 if case["dim"] == 2 else 1
    size, tag = case["batch_size"], f"{case['case']}/{step}"

    def values(key: str, spatial: list[int]) -> np.ndarray:
        r, shape = rules.rng(f"{tag}/{key}"), (size, channels, *spatial)
        return r.random(shape) if key == "gt1" and case["dim"] == 3 else r.standard_normal(shape)

    batch = {key: values(key, case["spatial"]) for key in ("input1", "input2", "gt1")}
    locals_ = [values(f"local{number}", case["local_spatial"]) for number in range(case["local_views"])]
    return {key: torch.from_numpy(value) for key, value in (batch | {"locals": np.stack(locals_, axis=1)}).items()}


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
    method = golden_method(case)
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
        batch = golden_batch(case, record["step"])
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
