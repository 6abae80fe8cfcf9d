"""Compiling a numerical kernel with numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """``kernel`` compiled on its first call, without the GIL, and kept on disk for later processes.

    Where neither the project's folder nor the user's cache folder can be written, it is kept in memory
    alone: each process then compiles for itself. A kernel may call other kernels of its own file only: what
    is kept on disk is made anew when that file changes, and no other file is looked at.
    """
    try:
        return njit(kernel, nogil=True, error_model="numpy", cache=True)
    except RuntimeError:  # numba's "no locator available": there is nowhere to write
        return njit(kernel, nogil=True, error_model="numpy")
