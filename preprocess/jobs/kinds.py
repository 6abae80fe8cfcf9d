"""Scans of another kind than the others, or than the window is for: what their records tell, and warnings of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import SimpleITK as sitk

from utils.console import warn
from utils.text import counted, listing

AIR_HU = -500  # air and lungs lie below; a scan of CT without any is a crop of the body, or not in HU
SLICES = ("sagittal", "coronal", "axial")  # by the direction from one slice to the next: left, back, head
SHOWN = 3  # names of scans in a line


class InHU(Protocol):
    """What became of a scan; ``lowest``: its lowest value, where it has no air in a window of HU."""

    @property
    def name(self) -> str: ...
    @property
    def lowest(self) -> float | None: ...


class Sliced(Protocol):
    """What became of a scan, and the ``slices`` that it is stored in, a word of SLICES; "": not known."""

    @property
    def name(self) -> str: ...
    @property
    def slices(self) -> str: ...


def no_air(image: sitk.Image) -> dict[str, float]:
    """What the record of a scan without air has beside the others' keys: its ``lowest`` value; {} of one with air."""
    lowest = float(sitk.GetArrayViewFromImage(image).min())
    return {} if lowest < AIR_HU else {"lowest": lowest}


def lowest_of(record: Mapping[str, Any]) -> float | None:
    """The ``lowest`` value in a record; None if there is none."""
    lowest = record.get("lowest")
    return lowest if isinstance(lowest, float) else None


def slices_of(direction: Any) -> str:
    """The slices that a scan of this direction (ITK's matrix, nine numbers) is stored in; "" if it is none."""
    try:
        along = np.abs(np.asarray(direction, float).reshape(3, 3)[:, 2])
    except (TypeError, ValueError):
        return ""
    return SLICES[int(along.argmax())]


def warn_of_units(outcomes: Iterable[InHU], advice: str) -> None:
    """Say which scans have no air. ``advice``: what to do if they are not in HU."""
    odd = [outcome for outcome in outcomes if outcome.lowest is not None]
    if odd:
        have = "scan has" if len(odd) == 1 else "scans have"
        warn(
            f"{len(odd)} {have} no value below {AIR_HU} ({_names(odd)}), as if not in Hounsfield units; {advice} (a "
            f"scan of the body without air around it is right as it is)"
        )


def warn_of_slices(outcomes: Sequence[Sliced]) -> None:
    """Say which scans are stored in other slices than most, so that their crops are thin in another direction."""
    kinds = {word: [outcome for outcome in outcomes if outcome.slices == word] for word in reversed(SLICES)}
    there = sorted((word for word in kinds if kinds[word]), key=lambda word: -len(kinds[word]))
    if len(there) > 1:
        odd = [f"{len(kinds[word])} in {word} ones ({_names(kinds[word])})" for word in there[1:]]
        warn(
            f"{counted(len(kinds[there[0]]), 'scan')} stored in {there[0]} slices, {listing(odd)}: crops are thin "
            f"across the slices, so in different directions of the body; store all scans alike, e.g. in axial slices"
        )


def _names(outcomes: Sequence[InHU | Sliced]) -> str:
    return ", ".join(outcome.name for outcome in outcomes[:SHOWN]) + ", ..." * (len(outcomes) > SHOWN)
