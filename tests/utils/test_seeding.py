"""Generators depend on seed and purpose alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from utils.seeding import generator

ROOT = Path(__file__).resolve().parents[2]


def test_streams_are_stable_across_processes() -> None:
    code = "from utils.seeding import generator; print(generator(3, 'sample', 1, 2).random(3).tolist())"
    outputs = {
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert outputs == {f"{generator(3, 'sample', 1, 2).random(3).tolist()}\n"}


def test_other_purposes_give_other_numbers() -> None:
    keys = [(0, "a", 1, 2), (0, "a", 2, 1), (0, "b", 1, 2), (1, "a", 1, 2), (0, "a", 1), (0, 1, 2)]
    assert len({generator(*key).random() for key in keys}) == len(keys)  # type: ignore[arg-type]
