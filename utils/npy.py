"""Arrays from ``.npy`` files, whatever the file really holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def read_array(path: str | Path, mapped: bool = False) -> np.ndarray:
    """The array in a ``.npy`` file; ``mapped`` into memory, read-only, instead of read.

    Nothing in the file is run. OSError if it cannot be read; ValueError if it is damaged, of another kind, or holds
    Python objects.
    """
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError):
        raise
    except Exception as error:  # numpy evaluates the header as Python text: on a damaged one nearly anything is raised
        raise ValueError(f"damaged, or no .npy file ({type(error).__name__})") from error
    if not isinstance(array, np.ndarray):
        raise ValueError("an archive of arrays, not a .npy file")
    return array
