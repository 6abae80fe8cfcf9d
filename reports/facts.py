"""Facts of a run in words: how its data were prepared, the weights it began with, the machine it ran on."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.text import counted

MILLIMETRES = "_mm"
SIZES = {"shape", "patch", "crop", "box_mm", "spacing_mm"}  # 64 x 64 x 32
START = ("weight", "begun_with")  # what first_weights tells
HASH = re.compile("[0-9a-f]{64}")
RANGES = {"hu", "windows", "percentiles"}  # -1000 .. 400


def mapping(value: Any) -> Mapping[str, Any]:
    """The value, if it has names; else an empty one: files may hold anything."""
    return value if isinstance(value, Mapping) else {}


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def short(value: Any) -> str:
    """A figure for people; "" if it is none."""
    return f"{value:.4g}" if is_number(value) else ""


def plain(value: Any, name: str = "") -> str:
    """A value of run.json in words; ``name``: what it is of. "" if it says nothing.

    >>> plain([64, 64], "shape"), plain([[-1000, 400], None], "windows"), plain(["Mass", "Edema"], "classes")
    ('64 x 64', '-1000 .. 400', 'Mass, Edema')
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {words}" for key, words in facts(value).items())
    if isinstance(value, list):
        simple = not any(isinstance(each, list | Mapping) for each in value)
        between = (
            " x " if name in SIZES and simple else " .. " if name in RANGES and simple else ", " if simple else "; "
        )
        return between.join(filter(None, (plain(each, name) for each in value)))
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def facts(values: Mapping[str, Any]) -> dict[str, str]:
    """Names and values in words, without what says nothing and without hashes."""
    found = {}
    for name, value in values.items():
        words = plain(value, name)
        if words and "sha256" not in name and not HASH.fullmatch(words):
            in_mm = name.endswith(MILLIMETRES)
            found[name.removesuffix(MILLIMETRES).replace("_", " ")] = f"{words} mm" if in_mm else words
    return found


def data_facts(data: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, str]:
    """What a run was trained on. ``data``, ``options``: those of run.json."""
    inner = mapping(data.get("segmentation"))
    known = facts({name: value for name, value in data.items() if name not in ("segmentation", *START)}) | facts(inner)
    if known.get("list") == "none":
        known["list"] = "none: all images in the folder"
    folder = {"folder": str(options.get("data", ""))} if options else {}
    weight = first_weights(data, options) if mapping(data.get("weight")) else ""
    return {**folder, **known} | ({"weights at the start": weight} if weight else {})


def first_weights(data: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """The ``--weight`` that a run began with: ``my_run/last.pt, 6 epochs on 60 samples``, or what stands for a file."""
    made, given = mapping(data.get("weight")), str(data.get("begun_with") or options.get("weight") or "none")
    if given == "none" and not made:
        return "random values"
    name = str(made.get("file") or Path(given).name)
    if made and Path(given).name == name and Path(given).parent.name:  # the folder is that of the run
        name = f"{Path(given).parent.name}/{name}"
    trained = [
        f"{made[unit]:g} {unit}{'s' * (made[unit] != 1)}" for unit in ("epoch", "step") if _is_count(made.get(unit))
    ]
    samples: Any = mapping(made.get("run")).get("samples")
    on = f" on {counted(samples, 'sample')}" if trained and _is_count(samples) else ""
    return ", ".join(filter(None, (name, " and ".join(trained) + on)))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value > 0
