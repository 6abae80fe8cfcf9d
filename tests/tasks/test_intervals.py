"""Bootstrap intervals against a literal bootstrap: patients drawn, their images put together, scikit-learn called."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, mean_absolute_error, roc_auc_score

from datasets.xray.label_columns import Target
from tasks.intervals import DRAWS, auroc_intervals, auroc_of_draws, mean_interval, weights
from tasks.kinds import OneOfMany
from utils.seeding import generator

PATIENTS, IMAGES = 9, 40
DRAWN = 60  # of the literal bootstrap, which is slow: more than are computed together


def literal(groups: list[str], figure, seed: int, draws: int = DRAWN) -> tuple[float, float]:
    """The percentiles of ``figure`` (rows of images -> number or NaN) over draws of patients."""
    names = list(dict.fromkeys(groups))
    rng, values = generator(seed, "bootstrap"), []
    for _ in range(draws):
        drawn = [names[number] for number in rng.integers(len(names), size=len(names))]
        values.append(figure(np.array([row for name in drawn for row, group in enumerate(groups) if group == name])))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return low, high


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels, some not known, scores with ties, and whose each image is: patients of 1 to 10 images, not in order."""
    rng = np.random.default_rng(0)
    labels = (rng.random((IMAGES, 2)) < [0.4, 0.15]).astype(np.float32)
    scores = (rng.integers(0, 9, (IMAGES, 2)) + 2 * labels).astype(np.float32)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    return labels, scores, [f"p{number}" for number in rng.integers(0, PATIENTS, IMAGES)]


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    known = ~np.isnan(labels)
    if len(set(labels[known])) < 2:
        return np.nan
    return float(roc_auc_score(labels[known], scores[known]))


def test_auroc_of_each_class_and_of_the_mean(images: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    labels, scores, groups = images
    found = auroc_intervals(labels, scores, ["a", "b"], groups, seed=5, draws=DRAWN)

    def each(rows: np.ndarray) -> list[float]:
        return [auroc(labels[rows, k], scores[rows, k]) for k in (0, 1)]

    for k, name in enumerate("ab"):
        np.testing.assert_allclose(found[name], literal(groups, lambda rows, k=k: each(rows)[k], 5), atol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, of draws without any
        np.testing.assert_allclose(found[""], literal(groups, lambda rows: np.nanmean(each(rows)), 5), atol=1e-12)
    assert found["a"][0] < auroc(labels[:, 0], scores[:, 0]) < found["a"][1]
    assert auroc_intervals(labels, scores, ["a", "b"], groups, seed=6) != found


def test_images_of_one_patient_are_no_independent_witnesses() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((200, 1)) < 0.5).astype(np.float32)
    scores = labels + rng.normal(size=(200, 1))
    alone = auroc_intervals(labels, scores, ["a"], list(range(200)), 0)["a"]
    labels, scores = labels.repeat(4, axis=0), scores.repeat(4, axis=0)
    together = auroc_intervals(labels, scores, ["a"], [n // 4 for n in range(800)], 0)["a"]
    as_if_others = auroc_intervals(labels, scores, ["a"], list(range(800)), 0)["a"]
    assert together == pytest.approx(alone), "four copies of an image say no more than one"
    assert as_if_others[1] - as_if_others[0] < 0.6 * (alone[1] - alone[0])


def test_what_is_never_defined_has_no_interval() -> None:
    labels = np.array([[1, 1], [0, 1], [1, np.nan]], np.float32)
    found = auroc_intervals(labels, labels, ["a", "b"], "xyz", 0)
    assert set(found) == {"a", ""}
    assert np.isnan(auroc_of_draws(labels[:, 1], labels[:, 0], np.ones((3, 3)))).all()


def test_one_patient_has_no_interval() -> None:
    """All draws are alike: it would have no width."""
    labels, scores = np.array([[1, 0], [0, 1], [1, 0]], np.float32), np.eye(3, 2)
    assert auroc_intervals(labels, scores, ["a", "b"], "xxx", 0) == {}
    assert mean_interval(scores[:, 0], "xxx", 0) is None
    assert OneOfMany(Target("classes", ("a", "b"))).others(labels, scores, "xxx", 0)["balanced_accuracy"][1] is None


def test_balanced_accuracy_and_mean_error() -> None:
    rng = np.random.default_rng(2)
    truth, groups = rng.integers(0, 3, IMAGES), [f"p{number}" for number in rng.integers(0, PATIENTS, IMAGES)]
    scores = rng.random((IMAGES, 3)) + np.eye(3)[truth] * 0.4
    kind = OneOfMany(Target("classes", ("a", "b", "c")))
    value, span = kind.others(np.eye(3, dtype=np.float32)[truth], scores, groups, 7)["balanced_accuracy"]
    assert value == pytest.approx(balanced_accuracy_score(truth, scores.argmax(axis=1)))

    def recalls(rows: np.ndarray) -> float:
        right = scores[rows].argmax(axis=1) == truth[rows]
        return float(np.mean([right[truth[rows] == k].mean() for k in set(truth[rows])]))

    expected = literal(groups, recalls, 7, DRAWS)
    np.testing.assert_allclose(span, expected, atol=1e-12)
    errors, truths = rng.normal(size=IMAGES), rng.normal(size=IMAGES)
    span = mean_interval(np.abs(errors), groups, 3, DRAWN)
    expected = literal(groups, lambda rows: mean_absolute_error(truths[rows], (truths + errors)[rows]), 3)
    np.testing.assert_allclose(span, expected, atol=1e-12)


def test_each_draw_takes_as_many_patients_as_there_are() -> None:
    for chunk in weights(["a", "b", "a", "c"], 0, draws=120):
        assert chunk.shape[0] in (50, 20)
        np.testing.assert_array_equal(chunk[:, 0], chunk[:, 2])
        np.testing.assert_array_equal(chunk[:, [0, 1, 3]].sum(axis=1), 3)
