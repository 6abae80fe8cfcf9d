"""Which equal forms of a computation are in use: a switch for benchmarks and tests, and no user's flag."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Forms:
    """``composed``: upsampling and its convolution as one (models/upconv.py); else one after the other, on joined maps.

    ``recomputed``: normalised maps are computed again in the backward pass (models/recompute.py); else they are kept.
    """

    composed: bool = True
    recomputed: bool = True


FORMS = Forms()
