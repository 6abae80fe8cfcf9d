"""Weights of CT on MR, and the other way round: segmentation warns of them."""

from __future__ import annotations

from typing import Any

import pytest

from datasets.segmentation.msd import Recipe
from options import Options
from tasks.msd import Data
from training.network import differences

CT, MR = {"hu": [-1000, 1000]}, {"percentiles": [0.5, 99.5]}
WINDOW = (-1000.0, 1000.0)


@pytest.mark.parametrize(
    ("made", "here", "told"),
    [
        (CT, (None,), "window -1000 to 1000 HU, not percentiles 0.5 to 99.5 of each scan; take"),
        (MR, (WINDOW,), "window percentiles 0.5 to 99.5 of each scan, not -1000 to 1000 HU; take"),
        (CT, (WINDOW,), ""),
        (MR, (None, None), ""),
        (CT, (WINDOW, None), ""),  # PET beside CT
    ],
)
def test_segmentation(made: dict[str, Any], here: tuple[tuple[float, float] | None, ...], told: str) -> None:
    data = Data([], [], [], ["tumour"], Recipe((1, 1, 1), here))
    options = Options(data="x", n="msd", phase="finetune")
    found = differences({"run": {"recipes": [made]}}, options, data.windows)
    assert len(found) == bool(told)
    if told:
        assert found[0].startswith(told)
        assert found[0].endswith("(--modality, --hu_min, --hu_max)")
