"""Splits of cases: complete, without a case on two sides, and as a file says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.segmentation.splits import cross_validation, read_split
from utils.errors import UserError

NAMES = [f"case_{number:03d}" for number in range(20)]


@given(count=st.integers(3, 60), folds=st.integers(2, 8), seed=st.integers(0, 5))
def test_folds_are_disjoint_and_cover(count: int, folds: int, seed: int) -> None:
    if count < folds or count - -(-count // folds) < 2:
        return
    names = [str(number) for number in range(count)]
    tested: list[str] = []
    for fold in range(folds):
        split = cross_validation(names, folds, fold, seed)
        assert sorted(split.train + split.valid + split.test) == sorted(names)  # each once, in one part
        assert split.train
        assert split.valid
        assert len(split.test) in (count // folds, -(-count // folds))
        tested += split.test
    assert sorted(tested) == sorted(names)


def test_the_seed_decides_and_the_order_of_the_files_does_not() -> None:
    assert cross_validation(NAMES, 5, 0, 1) == cross_validation(NAMES[::-1], 5, 0, 1)
    assert cross_validation(NAMES, 5, 0, 1) != cross_validation(NAMES, 5, 0, 2)


def test_a_file_of_splits(tmp_path: Path) -> None:
    path = tmp_path / "splits_final.json"
    entries = [
        {"train": NAMES[:15], "val": NAMES[15:]},
        {"train": NAMES[:10], "val": NAMES[10:12], "test": NAMES[12:14]},
    ]
    path.write_text(json.dumps(entries))
    split = read_split(path, NAMES, 0, seed=0)
    assert split.test == NAMES[15:]
    assert len(split.valid) == 2  # a tenth of 15, rounded: they choose the epoch, and are not reported on
    assert sorted(split.train + split.valid) == NAMES[:15]
    split = read_split(path, NAMES, 1, seed=0)
    assert (sorted(split.train), split.valid, split.test) == (NAMES[:10], NAMES[10:12], NAMES[12:14])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "cannot be read as JSON"),
        ([{"train": ["case_000"]}], "entry 0: it has to be"),
        ([{"train": ["case_000", "x"], "val": ["case_001"]}], "there is no case x"),
        ([{"train": NAMES[:3], "val": NAMES[2:4]}], "case_002 occurs twice"),
        ([{"train": NAMES[:1], "val": NAMES[2:4]}], "the training, validation or test part has no case"),
        ([], "--fold 0: .* has 0 entries"),
    ],
)
def test_bad_files_of_splits_are_refused(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_split(path, NAMES, 0, seed=0)


def test_bad_folds_are_refused() -> None:
    with pytest.raises(UserError, match="numbered 0 to 4"):
        cross_validation(NAMES, 5, 5, 0)
    with pytest.raises(UserError, match="only 4 cases"):
        cross_validation(NAMES[:4], 5, 0, 0)
