"""How crops were made, from the records that ``preprocess/luna_pre.py`` and ``nodule_crops.py`` leave beside them.

Beside ``<uid>_img_<k>.npy`` or ``<uid>_global_<k>.npy``, a pair, or ``<uid>_crop_<k>.npy`` lies ``<uid>.json``, with
what made them under ``recipe``. The published code wrote none.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from datasets.layout import CROP, GLOBAL, PAIR, record_name
from utils import json_text
from utils.text import counted

SPACING_MM = 1.0  # to which luna_pre.py resamples every scan
UNKNOWN = "not recorded"


def recipes_of(files: Iterable[str]) -> list[dict[str, Any]]:
    """The different recipes of these pairs, plain data for a checkpoint, the most frequent one first.

    Each has ``scans``, their number, ``hu`` or ``percentiles``, the two ends of the window, ``crop``, voxels in x, y,
    z, ``box_mm``, the box that takes the place of the published 64 x 64 x 32 mm, and ``spacing_mm``; ``recipe`` where
    luna_pre.py's --recipe was another than pcrl. One with ``scans`` alone stands for those that have no record.
    """
    records = dict.fromkeys(_record_path(Path(file)) for file in files)
    found = Counter(json.dumps(_recipe(path)) for path in records)
    return [{**json.loads(text), "scans": scans} for text, scans in found.most_common()]


def records_hash(files: Iterable[str]) -> str:
    """SHA-256 of the records of these pairs, which change if the pairs are cut anew in another way; "" without any."""
    digest, some = hashlib.sha256(), False
    for path in dict.fromkeys(_record_path(Path(file)) for file in files):
        with suppress(OSError):
            digest.update(path.read_bytes())
            some = True
        digest.update(b"\0")
    return digest.hexdigest() if some else ""


def windows_of(files: Iterable[str]) -> list[dict[str, Any]]:
    """The different windows of these crops, ``hu`` or ``percentiles`` with its two ends; of those with a record."""
    found = {}
    for path in dict.fromkeys(_record_path(Path(file)) for file in files):
        recipe = _read(path)
        if recipe is not None and (window := _window(recipe)):
            found[json.dumps(window)] = window
    return list(found.values())


def direction_of(file: str) -> np.ndarray:
    """How the axes of the crops in this file run in the world (3, 3; ITK: left, back, head); as ITK's, if not known."""
    try:
        known = np.asarray(json_text.parse(_record_path(Path(file)).read_text(encoding="utf-8"))["direction"], float)
    except (OSError, ValueError, KeyError, TypeError):
        return np.eye(3)
    return known.reshape(3, 3) if known.size == 9 else np.eye(3)


def window_in_words(recipe: Mapping[str, Any]) -> str:
    """The window of a recipe, for people; "" if it is not known."""
    if recipe.get("percentiles"):
        low, high = recipe["percentiles"]
        return f"percentiles {low:g} to {high:g} of each scan"
    if recipe.get("hu"):
        low, high = recipe["hu"]
        return f"{low:g} to {high:g} HU"
    return ""


def in_words(recipe: Mapping[str, Any]) -> str:
    """One recipe, for people: the window, and the size of the boxes."""
    window = window_in_words(recipe)
    if not window:
        return f"window {UNKNOWN} (no record beside the pairs)"
    size, box = (" x ".join(map(str, recipe[name])) for name in ("crop", "box_mm"))
    name = f"--recipe {recipe['recipe']}, " if "recipe" in recipe else ""
    return (
        f"{name}window {window}, {size} voxels from boxes in proportion to {box} mm, scans at "
        f"{recipe['spacing_mm']:g} mm"
    )


def with_scans(recipes: Iterable[Mapping[str, Any]]) -> str:
    """Several recipes, each with the number of its scans."""
    return "; ".join(f"{in_words(each)} ({counted(each['scans'], 'scan')})" for each in recipes)


def _record_path(pair: Path) -> Path:
    match = PAIR.fullmatch(pair.name) or GLOBAL.fullmatch(pair.name) or CROP.fullmatch(pair.name)
    return pair.with_name(record_name(match["uid"] if match else pair.stem))


def _read(path: Path) -> dict[str, Any] | None:
    """The recipe of a record; None if there is none."""
    try:
        recipe = json_text.parse(path.read_text(encoding="utf-8"))["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return recipe if isinstance(recipe, dict) else None


def _window(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """``hu`` or ``percentiles``; empty if the recipe has neither."""
    if recipe.get("percentiles"):
        return {"percentiles": recipe["percentiles"]}
    return {"hu": [recipe["hu_min"], recipe["hu_max"]]} if {"hu_min", "hu_max"} <= recipe.keys() else {}


def _recipe(path: Path) -> dict[str, Any]:
    """What matters of the record of pairs; empty if there is none, or it is of another kind."""
    recipe = _read(path) or {}
    if not {"percentiles", "hu_min", "hu_max", "shape", "nominal"} <= recipe.keys():
        return {}
    known = {**_window(recipe), "crop": recipe["shape"], "box_mm": recipe["nominal"], "spacing_mm": SPACING_MM}
    name = recipe.get("recipe", "pcrl")
    return known if name == "pcrl" else {**known, "recipe": name}
