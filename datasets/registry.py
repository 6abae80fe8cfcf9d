"""The data sets by their ``--n`` names. A new one is a file here, its test, and a line in DATASETS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.ct import luna
from datasets.ct.crop_records import recipes_of
from datasets.ct.luna import LunaPairs, count_luna, find_luna
from datasets.layout import HELD_OUT_SUBSETS
from datasets.loader import Batch, PairDataset
from datasets.xray import chest
from datasets.xray.chest import ChestPairs, find_chest
from datasets.xray.files import ALL_IMAGES, PROJECT_LIST, listed, training_list
from datasets.xray.lists import read_list

HELD_OUT_LIST = "chest_valid.txt"
# The first channel of an X-ray in ImageNet's normalisation: (0 - mean) / std .. (1 - mean) / std.
NORMALISED = (-2.12, 2.25)


@dataclass(frozen=True)
class Views:
    """What a method sees of an image.

    ``samples``: (files, seed, channels, size of a view, augmented) -> samples by (epoch, index). ``augment``: makes
    samples of a batch that was fetched with ``augmented=False``, on its device. ``window``: the values of a view that
    are shown black and white. ``shown``: a sample -> its pictures by their headings, for ``--preview``.
    """

    samples: Callable[[Sequence[str], int, int, int, bool], PairDataset]
    augment: Callable[[Batch], Batch]
    window: tuple[float, float]
    shown: Callable[[Batch], Batch]


@dataclass(frozen=True)
class Source:
    """How to find a data set's files, and the views that methods can have of them.

    ``find``: (folder, training list, ratio) -> paths. ``listed``: (folder, training list) -> how many there would be
    without a ratio. ``training_list``: (folder, training list) -> the list's path, None for all there are.
    ``find_held_out``: folder -> paths. ``views``: by the names that methods know them by. ``recipes``: how files were
    made, by the records beside them (datasets/ct/crop_records.py), if there are such.
    """

    find: Callable[[Path, str | None, float], Sequence[str]]
    listed: Callable[[Path, str | None], int]
    training_list: Callable[[Path, str | None], Path | None]
    find_held_out: Callable[[Path], Sequence[str]]
    views: Mapping[str, Views]
    recipes: Callable[[Sequence[str]], list[dict[str, Any]]] | None = None


def _find_luna(data: Path, train_list: str | None, ratio: float) -> list[str]:
    return [str(path) for path in find_luna(data, train_list, ratio)]


def _held_out_luna(data: Path) -> list[str]:
    return [str(path) for path in find_luna(data, "none", 1.0, subsets=HELD_OUT_SUBSETS)]


def list_name(n: str, data: Path, train_list: str | None) -> str:
    """What the training list is called, "none" for all there are; "" where ``n`` has no such lists.

    Of the project's own list with its folder, since many a list has the same name.
    """
    if n not in DATASETS:
        return ""
    path = DATASETS[n].training_list(data, train_list)
    if path is None:
        return ALL_IMAGES
    return f"{path.parent.name}/{path.name}" if path == PROJECT_LIST else path.name


def list_lines(n: str, data: Path, train_list: str | None) -> tuple[str, list[str]]:
    """The training list's name and what its lines name, whatever the ratio; no line where there is no list."""
    path = DATASETS[n].training_list(data, train_list)
    if path is None:
        return ALL_IMAGES, []
    return path.name, luna.read_lines(path) if n == "luna" else list(read_list(path).names)


def _chest_list(data: Path, train_list: str | None) -> Path | None:
    return None if train_list == ALL_IMAGES else training_list(data, train_list)


def _held_out_chest(data: Path) -> list[str]:
    own = data / HELD_OUT_LIST
    return find_chest(data, str(own if own.exists() else PROJECT_LIST.with_name(HELD_OUT_LIST)))


def _chest(files: Sequence[str], seed: int, channels: int, size: int, augmented: bool) -> PairDataset:
    return ChestPairs(files, seed, channels, size, augmented)


def _luna(files: Sequence[str], seed: int, channels: int, size: int, augmented: bool) -> PairDataset:
    return LunaPairs(files, seed, augmented)


def _pairs_shown(sample: Batch) -> Batch:
    """The crop of each view, the view, and its target."""
    columns = {"crop {0}": "gt", "view {0}": "input", "target {0}: view {0},\nturned or flipped": "mask"}
    return {name.format(view): sample[f"{key}{view}"] for view in (1, 2) for name, key in columns.items()}


DATASETS = {
    "chest": Source(
        find_chest,
        listed,
        _chest_list,
        _held_out_chest,
        {"pcrl": Views(_chest, chest.augment_batch, NORMALISED, _pairs_shown)},
    ),
    "luna": Source(
        _find_luna,
        count_luna,
        luna.training_list,
        _held_out_luna,
        {"pcrl": Views(_luna, luna.augment_batch, (0.0, 1.0), _pairs_shown)},
        recipes=recipes_of,
    ),
}
