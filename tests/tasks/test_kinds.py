"""Kinds of labels: losses, answers and figures, against scikit-learn and torch; edge cases."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, roc_auc_score
from torch.nn import functional as F

from datasets.xray.label_columns import KINDS, Target
from options.labels import TARGETS
from tasks.class_scores import known_bce_loss, neighbour_scores
from tasks.kinds import Number, OneOfMany, YesOrNo, kind_of, warn_of_undefined
from tasks.outputs import as_numbers
from utils.errors import UserError

NAN = np.nan


def test_the_flag_has_the_kinds() -> None:
    assert KINDS == TARGETS


def test_what_is_not_known_teaches_nothing() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=rng, requires_grad=True)
    labels = (torch.rand(6, 3, generator=rng) < 0.5).float()
    everything = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    assert torch.equal(known_bce_loss(logits, labels), everything.mean())
    labels[1, 2] = labels[4, 0] = NAN
    loss = known_bce_loss(logits, labels)
    known = ~labels.isnan()
    assert loss.item() == pytest.approx(everything[known].sum().item() / labels.numel())
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()
    assert ((gradient == 0) == ~known).all()
    halves = [known_bce_loss(logits[rows], labels[rows]) for rows in (slice(3), slice(3, 6))]
    assert sum(halves).item() / 2 == pytest.approx(loss.item()), "however a batch is dealt to devices"


def test_auroc_of_what_is_known() -> None:
    rng = np.random.default_rng(0)
    labels, scores = (rng.random((60, 3)) < 0.4).astype(np.float32), rng.random((60, 3)).astype(np.float32)
    labels[rng.random(labels.shape) < 0.3] = NAN
    labels[:, 2] = np.where(np.isnan(labels[:, 2]), NAN, 1)
    kind = kind_of(Target("multilabel", ("a", "b", "c")), labels, masked=True)
    found = kind.results(labels, scores, [str(n // 2) for n in range(60)], labels, 0)
    for k, name in enumerate("ab"):
        known = ~np.isnan(labels[:, k])
        assert found.values["auroc"][name] == roc_auc_score(labels[known, k], scores[known, k])
        assert found.values["positives"][name] == np.nansum(labels[:, k])
    assert found.values["skipped"] == {"c": "no negatives"}
    assert found.table.splitlines()[3].split() == ["c", str(int(np.nansum(labels[:, 2]))), "nan", "no", "negatives"]
    assert len({len(line.rstrip()) for line in found.table.splitlines()[1:3]}) == 1
    record = json.loads(json.dumps(found.values))["intervals"]
    assert record["how"] == "95 %, bootstrap of 2000 draws over 30 patients"
    assert set(record["auroc"]) == {"a", "b"}
    assert record["mean_auroc"][0] < found.values["mean_auroc"] < record["mean_auroc"][1]


def test_one_of_many_is_one_against_the_rest() -> None:
    rng = np.random.default_rng(1)
    truth = np.r_[rng.integers(0, 3, 50), 0, 1, 2]
    labels, outputs = np.eye(4, dtype=np.float32)[truth], rng.normal(size=(53, 4)).astype(np.float32)
    kind = kind_of(Target("classes", ("a", "b", "c", "d")), labels)
    assert isinstance(kind, OneOfMany)
    scores = kind.scored(outputs)
    np.testing.assert_allclose(scores, np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True), rtol=1e-5)
    loss = kind.loss(torch.from_numpy(outputs), torch.from_numpy(labels))
    assert loss.item() == pytest.approx(F.cross_entropy(torch.from_numpy(outputs), torch.from_numpy(truth)).item())
    found = kind.results(labels, scores, ["p"] * 50 + ["q", "r", "s"], labels, 0)
    each = [roc_auc_score(truth == k, scores[:, k]) for k in range(3)]
    assert found.values["mean_auroc"] == pytest.approx(np.mean(each))
    assert found.values["skipped"] == {"d": "no positives"}
    assert {"auroc", "balanced_accuracy", "auroc/a"} <= set(found.scalars)
    assert found.table.splitlines()[-2].startswith("balanced accuracy  ")
    assert found.table.splitlines()[-1] == "no positives: d"
    judged = kind.judged(labels, scores)
    assert judged.score == -judged.values["auroc"] == -found.values["mean_auroc"]
    assert judged.values["balanced_accuracy"] == found.values["balanced_accuracy"]


def test_a_number_is_learned_in_deviations_and_judged_beside_the_mean() -> None:
    train, labels = np.array([[40.0], [60.0], [80.0]], np.float32), np.array([[50.0], [90.0]], np.float32)
    kind = kind_of(Target("regression", ("age",)), train)
    assert isinstance(kind, Number)
    assert (kind.mean, kind.scale) == (60.0, pytest.approx(np.std([40, 60, 80])))
    outputs = np.array([[0.0], [1.0]], np.float32)
    found = kind.results(labels, kind.scored(outputs), ["p", "q"], train, 0)
    assert found.values["mae"] == pytest.approx(mean_absolute_error(labels, 60 + kind.scale * outputs))
    assert found.values["baseline_mae"] == pytest.approx(20)
    assert set(found.values["intervals"]) == {"how", "mae", "baseline_mae"}
    assert found.table.splitlines()[2].startswith("baseline: always 60 (training mean) ")
    loss = kind.loss(torch.from_numpy(outputs), torch.from_numpy(labels))
    assert loss.item() * kind.scale == pytest.approx(found.values["mae"], rel=1e-6)
    assert kind.judged(labels, labels).score == 0
    with pytest.raises(UserError, match="all training images have the same age, 40: there is nothing to learn"):
        kind_of(Target("regression", ("age",)), train[:1])


def test_records_turn_outputs_into_answers() -> None:
    outputs = np.array([[0.0, 2.0]], np.float32)
    np.testing.assert_allclose(as_numbers(outputs, "sigmoid"), [[0.5, 1 / (1 + np.exp(-2))]], rtol=1e-6)
    np.testing.assert_allclose(as_numbers(outputs, "softmax").sum(), 1, rtol=1e-6)
    number = Number(Target("regression", ("age",)), 60, 10)
    np.testing.assert_array_equal(as_numbers(outputs[:, 1:], **number.in_numbers()), [[80]])
    assert number.record() == {"kind": "identity", "classes": ["age"], "mean": 60, "scale": 10}


MISSING = (("negatives", "a"), ("positives", "b"))


def test_a_part_that_nothing_can_be_judged_on_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    kind = YesOrNo(Target("multilabel", ("a", "b")))
    labels = np.array([[1, NAN], [1, 0]], np.float32)
    kind.check("training", labels, judged=False)
    both = np.array([[1, 1], [0, 0]], np.float32)
    warn_of_undefined(kind, {"training": labels, "validation": both, "test": labels})
    told = "".join(f"warning: no {what} in training and test images: {name}\n" for what, name in MISSING)
    assert capsys.readouterr().err == told
    warn_of_undefined(kind, {"training": both, "validation": labels})
    assert capsys.readouterr().err == told.replace("training and test", "validation")
    with pytest.raises(UserError, match="test images: no class has both positives and negatives"):
        kind.check("test", labels, judged=True)


def test_a_number_that_stands_for_not_known_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    kind = Number(Target("regression", ("age",)), 60.0, 10.0)
    ages = np.random.default_rng(0).normal(60, 15, (40, 1)).round().astype(np.float32)
    for stand_ins in ([-1000.0], [-999.0, -999.0], [9999.0, 9999.0], [-998.0, -999.0, -998.0, -999.0]):
        kind.check("training", np.concatenate([ages, np.float32(stand_ins)[:, None]]), judged=False)
        number = "1 value" if len(stand_ins) == 1 else f"{len(stand_ins)} values"
        assert f"training images: {number} of age ({stand_ins[0]:g}) far from all others, " in capsys.readouterr().err


def test_a_skewed_quantity_has_no_such_number(capsys: pytest.CaptureFixture[str]) -> None:
    """As volumes and laboratory values are; and small parts, and values most of which are one."""
    kind = Number(Target("regression", ("volume",)), 1.0, 1.0)
    rng = np.random.default_rng(0)
    for count in (5, 30, 300, 3000):
        for values in (rng.lognormal(0, 1.5, count), rng.chisquare(1, count), rng.lognormal(3, 1.5, count).round()):
            kind.check("training", values[:, None].astype(np.float32), judged=False)
    kind.check("training", np.float32([[5]] * 30 + [[7]]), judged=False)
    for seed in range(20):  # three images of each patient, and an instrument that measures up to 10,000
        values = np.random.default_rng(seed).lognormal(5, 2, 200).round().clip(max=10_000)
        kind.check("training", np.repeat(values, 3)[:, None].astype(np.float32), judged=False)
    assert capsys.readouterr().err == ""


def test_neighbours_whose_labels_are_not_known_count_as_the_mean() -> None:
    features, labels = np.eye(3) + 0.1, np.array([[1], [NAN], [0]], np.float32)
    np.testing.assert_allclose(neighbour_scores(features, labels, np.array([[0.1, 5, 0.1]]), 1), [[0.5]])
