"""The order of an epoch takes time in proportion to its samples."""

from __future__ import annotations

import itertools
import time

from datasets.loader import _EpochBatches
from utils.process_group import SINGLE


def test_an_epoch_of_many_batches_is_ordered_in_seconds() -> None:
    batches = _EpochBatches([1] * 200_000, 0, SINGLE, shuffled=True)
    started = time.process_time()
    seen = {key for (key,) in batches}
    assert len(seen) == 200_000
    assert time.process_time() - started < 12, "minutes, where each batch adds up those before it"


def test_a_resumed_epoch_goes_on_in_the_same_order() -> None:
    batches = _EpochBatches([4, 4, 3], 0, SINGLE, shuffled=True)
    whole = list(batches)
    assert sorted(itertools.chain(*whole)) == [(0, index) for index in range(11)]
    batches.first = 2
    assert list(batches) == whole[2:]
