"""Three steps in 2D and in 3D give the published implementation's numbers, in float64."""

from __future__ import annotations

import pytest
import torch

from methods.pcrl import PCRLDraws
from models.unet import published_state
from tests.examples import by_speed, golden_steps
from tests.golden import methods, rules

CASES = {case["case"]: case for case in methods.cases("pcrl")}
RELATIVE = 1e-9


def assert_figures(actual: list[float], expected: list[float], what: str) -> None:
    # A sum can cancel: its error is relative to the sum of absolute values, the second of three.
    scale = max(map(abs, expected))
    assert actual == pytest.approx(expected, rel=RELATIVE, abs=RELATIVE * scale), what


@pytest.mark.parametrize("name", by_speed(CASES))
def test_three_steps_give_the_published_numbers(name: str) -> None:
    case = CASES[name]
    method = methods.pcrl(case)
    optimizer = torch.optim.SGD(
        method.trainable(), case["lr"], momentum=case["momentum"], weight_decay=case["weight_decay"]
    )
    for record in golden_steps(case):
        drawn = record["draws"]
        draws = PCRLDraws(
            drawn["alpha1"],
            drawn["lam"],
            drawn["alpha2"],
            torch.tensor(drawn["shuffle"]),
            torch.tensor(drawn["index"]),
        )
        output = method(rules.batch(case, record["step"]), draws)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        method.commit(output)

        terms = {key: value.item() for key, value in output.terms.items()}
        nce = [terms[key] for key in ("nce", "nce_mixup", "nce_mixed_key")]
        mse = [terms[key] for key in ("rec", "rec_mixup", "rec_mixed", "rec_mixup_mixed")]
        assert nce == pytest.approx(record["nce"], rel=RELATIVE)
        assert mse == pytest.approx(record["mse"], rel=RELATIVE)
        assert terms["contrast"] == pytest.approx(record["c2l_loss"], rel=RELATIVE)
        assert terms["reconstruction"] == pytest.approx(record["mg_loss"], rel=RELATIVE)
        assert output.loss.item() == pytest.approx(record["c2l_loss"] + record["mg_loss"], rel=RELATIVE)
        assert terms["positive"] == pytest.approx(record["prob"], rel=RELATIVE)
        assert method.queue.pointer.item() == record["queue"]["pointer"]
        assert method.queue.z.item() == pytest.approx(record["queue"]["Z"], rel=RELATIVE)
        assert_figures(rules.sums(method.queue.memory), record["queue"]["memory"], "queue memory")
        for who, network in (("student", method.student), ("ema", method.teacher)):
            state = published_state(network)
            for key, expected in record[who].items():
                assert_figures(rules.sums(state[key]), expected, f"{who} {key}, step {record['step']}")
