"""How a network's outputs become the numbers that people read: the ``kind`` of a checkpoint's ``run``."""

from __future__ import annotations

import numpy as np

SIGMOID, SOFTMAX, IDENTITY = "sigmoid", "softmax", "identity"  # several labels at once, one of many, a measure
KINDS = (SIGMOID, SOFTMAX, IDENTITY)


def as_numbers(outputs: np.ndarray, kind: str, mean: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Outputs (N, classes) -> probabilities, float64; of ``identity`` the measure, ``mean`` + ``scale`` times them.

    ``mean``, ``scale``: of the same ``run``, where it has them.
    """
    values = outputs.astype(np.float64)
    if kind == SIGMOID:
        return 1 / (1 + np.exp(-np.clip(values, -700, 700)))
    if kind == SOFTMAX:
        shares = np.exp(values - values.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)
    return mean + scale * values
