"""How much is tried: a part in daily work, all where PCRL_TESTS=all, as .ci/run sets it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest

ALL = os.environ.get("PCRL_TESTS") == "all"
FEWEST = 10


def examples(number: int) -> int:
    """How many hypothesis tries: ``number`` where all are tried, else a tenth, but 10 or more if there are so many."""
    return number if ALL else max(number // 10, min(number, FEWEST))


def golden_steps(case: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps of a golden case; in daily work the first alone in 3D, which takes half a minute in float64.

    What later steps add, the optimizer's memory, the teacher and the queue, is the same code in 2D.
    """
    return case["steps"] if ALL or case["dim"] == 2 else case["steps"][:1]


def by_speed(cases: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """The names of golden cases as pytest's parameters, those in 3D marked as slow."""
    return [pytest.param(name, marks=pytest.mark.slow if case["dim"] == 3 else ()) for name, case in cases.items()]
