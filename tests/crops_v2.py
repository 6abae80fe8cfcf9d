"""Crops of the recipe pcrlv2, as luna_pre.py leaves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_crops_v2(folder: Path, scans: int = 2, pairs: int = 2, first_subset: int = 0) -> Path:
    """Pairs of 16 x 8 x 8 voxels and two local crops of 8 x 8 x 8 each; one subset a scan."""
    rng = np.random.default_rng(first_subset)
    for scan in range(first_subset, first_subset + scans):
        subset = folder / f"subset{scan}"
        subset.mkdir(parents=True, exist_ok=True)
        for k in range(pairs):
            coarse = rng.random((2, 4, 2, 2), dtype=np.float32)
            np.save(subset / f"1.2.{scan}_global_{k}.npy", coarse.repeat(4, 1).repeat(4, 2).repeat(4, 3))
            coarse = rng.random((2, 2, 2, 2), dtype=np.float32)
            np.save(subset / f"1.2.{scan}_local_{k}.npy", coarse.repeat(4, 1).repeat(4, 2).repeat(4, 3))
    return folder
