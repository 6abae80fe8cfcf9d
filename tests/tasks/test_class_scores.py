"""AUROC and neighbours against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tasks.class_scores import class_scores, neighbour_scores
from tests.examples import examples


def literal_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The part of the pairs (positive, negative) that are in order; ties count half."""
    above = scores[labels == 1][:, None] - scores[labels == 0][None]
    return ((above > 0) + 0.5 * (above == 0)).mean()


@settings(max_examples=examples(30), deadline=None)
@given(seed=st.integers(0, 10_000), images=st.integers(2, 40), classes=st.integers(1, 4), levels=st.integers(2, 9))
def test_auroc_is_the_part_of_pairs_in_order(seed: int, images: int, classes: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random((images, classes)) < 0.3).astype(np.float32)
    scores = rng.integers(0, levels, (images, classes)).astype(np.float32)  # with ties
    names = [f"c{number}" for number in range(classes)]
    found = class_scores(labels, scores, names)
    for column, name in enumerate(names):
        positives = int(labels[:, column].sum())
        assert found.positives[name] == positives
        if 0 < positives < images:
            assert found.auroc[name] == pytest.approx(literal_auroc(labels[:, column], scores[:, column]))
            assert found.auroc[name] == roc_auc_score(labels[:, column], scores[:, column])
            assert name not in found.skipped
        else:
            assert found.skipped[name] == ("no negatives" if positives else "no positives")
    if found.auroc:
        assert found.mean == pytest.approx(np.mean(list(found.auroc.values())))
    else:
        assert np.isnan(found.mean)


def test_perfect_and_random_predictors() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((20_000, 2)) < 0.1).astype(np.float32)
    perfect = class_scores(labels, labels + 0.1 * rng.random(labels.shape), ["a", "b"])
    assert perfect.auroc == {"a": 1.0, "b": 1.0}
    assert class_scores(labels, -labels, ["a", "b"]).mean == 0.0
    assert class_scores(labels, rng.random(labels.shape), ["a", "b"]).mean == pytest.approx(0.5, abs=0.02)


def test_the_table_names_what_was_skipped() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 1]], np.float32)
    lines = class_scores(labels, labels, ["Mass", "Hernia", "Edema"]).table("2 test images").splitlines()
    assert lines[0].split() == ["2", "test", "images", "positives", "AUROC"]
    assert lines[1].split() == ["Mass", "1", "1.0000"]
    assert lines[2].split() == ["Hernia", "0", "nan", "no", "positives"]
    assert lines[3].split() == ["Edema", "2", "nan", "no", "negatives"]
    assert lines[4].split() == ["mean", "of", "1", "class", "1.0000"]
    remarked = class_scores(labels, labels, ["Mass", "Hernia", "Edema"]).table("2 test images", ["Mass", "Hernia"])
    assert remarked.splitlines()[1] == f"{lines[1]}  no positives in training"
    assert remarked.splitlines()[2:] == [*lines[3:], "no positives: Hernia"], "neither here nor in training"


def test_neighbours_by_cosine() -> None:
    rng = np.random.default_rng(0)
    features, queries = rng.normal(size=(30, 5)), rng.normal(size=(7, 5))
    labels = (rng.random((30, 3)) < 0.4).astype(np.float32)
    cosine = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ (
        features / np.linalg.norm(features, axis=1, keepdims=True)
    ).T
    expected = np.stack([labels[np.argsort(-row)[:4]].mean(axis=0) for row in cosine])
    np.testing.assert_allclose(neighbour_scores(features, labels, queries, 4), expected, atol=1e-6)
