"""Numbers of things, in words."""

from __future__ import annotations

import pytest

from utils.text import counted


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [
        (1, "class", "1 class"),
        (0, "class", "0 classes"),
        (2, "batch", "2 batches"),
        (1, "epoch", "1 epoch"),
        (3, "epoch", "3 epochs"),
        (2, "training sample", "2 training samples"),
    ],
)
def test_one_and_many(number: int, noun: str, words: str) -> None:
    assert counted(number, noun) == words
