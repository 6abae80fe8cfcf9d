"""numpy's numbers in files that are not unpickled: stand-ins that a restricted unpickler may call in numpy's place.

numpy's own must not be called: ``numpy.dtype.__setstate__`` crashes the process at a state that was made up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

NUMBERS = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})


class _DType:
    """What a file says of a number's type: its code, and its byte order in the second place of the state."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1:
            self.order = state[1]


def _scalar(dtype: Any, data: Any) -> Any:
    """The number as a Python one; ValueError if it is none."""
    if not (isinstance(dtype, _DType) and dtype.code in NUMBERS and dtype.order in ("<", ">", "|")):
        raise ValueError("a numpy scalar that is no number")
    return np.frombuffer(data, dtype.order + dtype.code)[0].item()


def _scalar_of(module: str) -> Callable[..., Any]:
    """:func:`_scalar` under its name in files, whose module differs between versions of numpy."""

    def scalar(dtype: Any, data: Any) -> Any:
        return _scalar(dtype, data)

    scalar.__module__, scalar.__qualname__ = module, "scalar"
    return scalar


_DType.__module__, _DType.__qualname__ = "numpy", "dtype"
STAND_INS = [_DType, _scalar_of("numpy.core.multiarray"), _scalar_of("numpy._core.multiarray")]
