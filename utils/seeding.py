"""Random generators that depend on a seed and on what they are for, never on who ran before.

Every random draw of the project comes from a generator made here from ``--seed`` and a purpose (an epoch
and a sample, a step, a scan's uid). So a sample's augmentation is the same whichever worker makes it, and
nothing inside a worker has to be saved for a run to resume exactly.
"""

from __future__ import annotations

import hashlib

import numpy as np


def _words(seed: int, keys: tuple[int | str, ...]) -> list[int]:
    words = [seed]
    for key in keys:
        if isinstance(key, str):  # a stable hash: Python's own differs from process to process
            text = key.encode("utf-8", "surrogateescape")  # the name of a file need not be UTF-8
            words.append(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))
        else:
            words.append(int(key))
    return words


def generator(seed: int, *keys: int | str) -> np.random.Generator:
    """A numpy generator for this seed and purpose, e.g. ``generator(seed, "sample", epoch, index)``.

    ``seed`` and integer keys are non-negative; different keys give independent streams.
    """
    return np.random.default_rng(_words(seed, keys))
