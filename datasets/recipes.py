"""How pairs of crops were made, from the records that ``preprocess/luna_pre.py`` leaves beside them.

Beside ``<uid>_img_<k>.npy`` lies ``<uid>.json``, with what made the pairs under ``recipe``. The published
code wrote none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets.luna import FILE_NAME
from utils.words import counted

SPACING_MM = 1.0  # to which luna_pre.py resamples every scan
UNKNOWN = "not recorded"


def recipes_of(files: Iterable[str]) -> list[dict[str, Any]]:
    """The different recipes of these pairs, plain data for a checkpoint, the most frequent one first.

    Each has ``scans``, their number, ``hu`` or ``percentiles``, the two ends of the window, ``crop``, voxels in x, y,
    z, ``box_mm``, the box that takes the place of the published 64 x 64 x 32 mm, and ``spacing_mm``. One with
    ``scans`` alone stands for those that have no record.
    """
    records = dict.fromkeys(_record_path(Path(file)) for file in files)
    found = Counter(json.dumps(_recipe(path)) for path in records)
    return [{**json.loads(text), "scans": scans} for text, scans in found.most_common()]


def in_words(recipe: Mapping[str, Any]) -> str:
    """One recipe, for people: the window, and the size of the boxes."""
    if recipe.get("percentiles"):
        low, high = recipe["percentiles"]
        window = f"window percentiles {low:g} to {high:g} of each scan"
    elif recipe.get("hu"):
        low, high = recipe["hu"]
        window = f"window {low} to {high} HU"
    else:
        return f"window {UNKNOWN} (no record beside the pairs)"
    size, box = (" x ".join(map(str, recipe[name])) for name in ("crop", "box_mm"))
    return f"{window}, {size} voxels from boxes in proportion to {box} mm, scans at {recipe['spacing_mm']:g} mm"


def with_scans(recipes: Iterable[Mapping[str, Any]]) -> str:
    """Several recipes, each with the number of its scans."""
    return "; ".join(f"{in_words(each)} ({counted(each['scans'], 'scan')})" for each in recipes)


def _record_path(pair: Path) -> Path:
    match = FILE_NAME.fullmatch(pair.name)
    return pair.with_name(f"{match['uid'] if match else pair.stem}.json")


def _recipe(path: Path) -> dict[str, Any]:
    """What matters of the record; empty if there is none, or it is of another kind."""
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))["recipe"]
        percentiles = recipe["percentiles"]
        window = {"percentiles": percentiles} if percentiles else {"hu": [recipe["hu_min"], recipe["hu_max"]]}
        return {**window, "crop": recipe["shape"], "box_mm": recipe["nominal"], "spacing_mm": SPACING_MM}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
