"""DICOM series whose slices lie in several folders: each folder would make a false volume of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets.ct.dicom import SPACE, Slice
from datasets.ct.dicom_series import AXIAL
from utils.text import counted, listing

NEXT = 1.5  # distances of slices that two parts may lie apart; parts further away are volumes of their own
GRID = 0.1  # of a distance of slices: how far from its place one may lie
SHOWN = 3  # series, and folders of each, in a line


@dataclass(frozen=True)
class Part:
    """The slices of a series that lie in one folder, perhaps one alone.

    ``places``: of the slices along their normal, mm. ``numbers``: their InstanceNumber.
    """

    uid: str
    files: tuple[Path, ...]
    size: tuple[int, int]
    orientation: tuple[float, ...]
    places: np.ndarray
    numbers: np.ndarray

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self.files[0].parent

    @cached_property
    def known(self) -> tuple[frozenset[int], frozenset[float]]:
        """Its places, to a hundredth of a millimetre, and its numbers."""
        return frozenset(np.rint(self.places / SPACE).astype(int).tolist()), frozenset(self.numbers.tolist())

    @property
    def step(self) -> float:
        """The usual distance of its slices; 0 of one slice."""
        return float(np.median(np.diff(np.sort(self.places)))) if len(self.places) > 1 else 0.0


def part_of(uid: str, slices: Sequence[Slice]) -> Part | None:
    """The slices of one folder; None where they do not say enough to be compared with those of another."""
    first = slices[0]
    normal = np.cross(*np.reshape(first.orientation or AXIAL, (2, 3)))
    places = [slice_.location if slice_.position is None else float(normal @ slice_.position) for slice_ in slices]
    numbers = [slice_.number for slice_ in slices]
    if not uid or None in places or None in numbers:
        return None
    files = tuple(slice_.file for slice_ in slices)
    return Part(uid, files, first.size, first.orientation or AXIAL, np.array(places, float), np.array(numbers, float))


def split_series(parts: Iterable[Part]) -> list[list[Part]]:
    """Groups of parts, each of one series.

    Copies of a series have the same places, and time points the same or some beside them; scans of several patients to
    which an anonymiser gave one SeriesInstanceUID have the same numbers. None of these belong together.
    """
    by_uid: dict[str, list[list[Part]]] = defaultdict(list)
    for part in parts:
        groups = by_uid[part.uid]
        near = [group for group in groups if any(_together(part, other) for other in group)]
        joined = [*(other for group in near for other in group), part]
        by_uid[part.uid] = [*(group for group in groups if group not in near), joined]
    return [group for groups in by_uid.values() for group in groups if len(group) > 1]


def _together(one: Part, other: Part) -> bool:
    """Whether two parts are of one series: slices of a kind, none of them the same, between or behind one another."""
    if any(not mine.isdisjoint(its) for mine, its in zip(one.known, other.known, strict=True)):
        return False
    if one.size != other.size or not np.allclose(one.orientation, other.orientation, atol=SPACE):
        return False
    gap = max(one.places.min(), other.places.min()) - min(one.places.max(), other.places.max())
    if gap <= 0 and not _on_one_grid(np.sort(np.concatenate((one.places, other.places)))):
        return False
    usual = max(one.step, other.step)
    return not usual or bool(gap <= NEXT * usual)


def _on_one_grid(places: np.ndarray) -> bool:
    """Whether all distances are multiples of the smallest one; those of two volumes of a moved table are not."""
    steps = np.diff(places) / np.diff(places).min()
    return bool(np.allclose(steps, np.rint(steps), atol=GRID))


def split_in_words(groups: Sequence[Sequence[Part]], data: Path) -> str:
    """One line on series that are split; "" if none is. Folders are named by their paths below ``data``."""
    if not groups:
        return ""
    shown = []
    for group in groups[:SHOWN]:
        paths = [part.folder.relative_to(data) for part in group[:SHOWN]]
        folders = [str(path) if path.name else data.resolve().name for path in paths]
        folders += [f"{len(group) - SHOWN} more"] if len(group) > SHOWN else []
        slices = counted(sum(len(part.files) for part in group), "slice")
        shown.append(f"{group[0].uid}: {slices} in {listing(folders)}")
    shown += ["..."] if len(groups) > SHOWN else []
    return (
        f"{len(groups)} DICOM series passed over, since the slices lie in several folders ({'; '.join(shown)}); put "
        f"all slices of a series into one folder"
    )
