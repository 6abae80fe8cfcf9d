"""The data sets by their ``--n`` names. A new one is a file here, its test, and a line in DATASETS."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets.ct import luna, luna_v2
from datasets.ct.crop_records import recipes_of
from datasets.ct.luna import LunaPairs, count_luna, find_luna
from datasets.ct.luna_v2 import LunaViews
from datasets.layout import GLOBAL, HELD_OUT_SUBSETS, PAIR
from datasets.loader import Batch, PairDataset
from datasets.third_target import ThirdTarget, with_third_target
from datasets.xray import chest, chest_v2
from datasets.xray.chest import ChestPairs, find_chest
from datasets.xray.chest_v2 import ChestViews
from datasets.xray.files import ALL_IMAGES, PROJECT_LIST, VALID_LIST, Images, listed, training_list
from datasets.xray.lists import read_list
from datasets.xray.patients import patient
from utils.image_grid import Windows

# The first channel of an X-ray in ImageNet's normalisation: (0 - mean) / std .. (1 - mean) / std.
NORMALISED = Windows((-2.12, 2.25))
UNIT = (0.0, 1.0)
DEVIATIONS = (-2.5, 2.5)  # of what is normalised to mean 0 and deviation 1
LOCALS_SHOWN = 3


@dataclass(frozen=True)
class Views:
    """What a method sees of an image.

    ``find``: (folder, training list, ratio) -> paths. ``listed``: (folder, training list) -> how many there would be
    without a ratio. ``find_held_out``: folder -> paths. ``samples``: (files, seed, channels, size of a view,
    augmented) -> samples by (epoch, index). ``augment``: makes samples of a batch that was fetched with
    ``augmented=False``, on its device. ``windows``: the values shown black and white.
    ``shown``: a sample -> its pictures by their headings, for ``--preview``. ``z_normalised``: whether what a network
    sees has mean 0 and deviation 1: that travels with its weights.
    """

    find: Callable[[Path, str | None, float], Sequence[str]]
    listed: Callable[[Path, str | None], int]
    find_held_out: Callable[[Path], Sequence[str]]
    samples: Callable[[Sequence[str], int, int, int, bool], PairDataset]
    augment: Callable[[Batch], Batch]
    windows: Windows
    shown: Callable[[Batch], Batch]
    z_normalised: bool = False


@dataclass(frozen=True)
class Source:
    """A data set's lists and records, and the views that methods can have of its images.

    ``training_list``: (folder, training list) -> the list's path, None for all there are. ``views``: by the names that
    methods know them by. ``owner``: a file's path below the folder -> whose image it is. ``recipes``: how files were
    made, by the records beside them (datasets/ct/crop_records.py), if there are such.
    """

    training_list: Callable[[Path, str | None], Path | None]
    views: Mapping[str, Views]
    owner: Callable[[str], str]
    recipes: Callable[[Sequence[str]], list[dict[str, Any]]] | None = None


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


def list_lines(n: str, data: Path, train_list: str | None, image_column: str = "") -> tuple[str, list[str]]:
    """The training list's name and what its lines name, whatever the ratio; no line where there is no list."""
    path = DATASETS[n].training_list(data, train_list)
    if path is None:
        return ALL_IMAGES, []
    return path.name, luna.read_lines(path) if n == "luna" else list(read_list(path, image_column).names)


def _chest_list(data: Path, train_list: str | None) -> Path | None:
    return None if train_list == ALL_IMAGES else training_list(data, train_list)


def _held_out_chest(data: Path) -> list[str]:
    own = data / VALID_LIST
    path = own if os.path.lexists(own) else PROJECT_LIST.with_name(VALID_LIST)
    return Images(data).named(read_list(path).names, path, f"or write {own}, a list of images of other patients")


def _chest(files: Sequence[str], seed: int, channels: int, size: int, augmented: bool) -> PairDataset:
    return ChestPairs(files, seed, channels, size, augmented)


def _chest_v2(files: Sequence[str], seed: int, channels: int, size: int, augmented: bool) -> PairDataset:
    return ChestViews(files, seed, channels, size, augmented)


def _chest_third(files: Sequence[str], seed: int, channels: int, size: int, augmented: bool) -> PairDataset:
    return ThirdTarget(_chest(files, seed, channels, size, augmented), seed, augmented)


def _luna_third(files: Sequence[str], seed: int, channels: int, size: int, augmented: bool) -> PairDataset:
    return ThirdTarget(_luna(files, seed, channels, size, augmented), seed, augmented)


def _scan_of(file: str) -> str:
    match = PAIR.fullmatch(Path(file).name) or GLOBAL.fullmatch(Path(file).name)
    return match["uid"] if match else file


def _luna(files: Sequence[str], seed: int, channels: int, size: int, augmented: bool) -> PairDataset:
    return LunaPairs(files, seed, augmented)


def _luna_v2(files: Sequence[str], seed: int, channels: int, size: int, augmented: bool) -> PairDataset:
    return LunaViews(files, seed, augmented)


def _find_luna(data: Path, train_list: str | None, ratio: float, pattern: re.Pattern[str]) -> list[str]:
    return [str(path) for path in find_luna(data, train_list, ratio, pattern=pattern)]


def _held_out_luna(data: Path, pattern: re.Pattern[str]) -> list[str]:
    return [str(path) for path in find_luna(data, "none", 1.0, HELD_OUT_SUBSETS, pattern)]


def _chest_views(
    samples: Callable[[Sequence[str], int, int, int, bool], PairDataset],
    augment: Callable[[Batch], Batch],
    shown: Callable[[Batch], Batch],
) -> Views:
    return Views(find_chest, listed, _held_out_chest, samples, augment, NORMALISED, shown)


def _luna_views(
    pattern: re.Pattern[str],
    samples: Callable[[Sequence[str], int, int, int, bool], PairDataset],
    augment: Callable[[Batch], Batch],
    windows: Windows,
    shown: Callable[[Batch], Batch],
    z_normalised: bool = False,
) -> Views:
    """``pattern``: of the names of the method's files."""
    return Views(
        partial(_find_luna, pattern=pattern),
        partial(count_luna, pattern=pattern),
        partial(_held_out_luna, pattern=pattern),
        samples,
        augment,
        windows,
        shown,
        z_normalised,
    )


def _pairs_shown(sample: Batch) -> Batch:
    """The crop of each view, the view, and its target, which is the view turned or flipped."""
    columns = {"crop {0}": "gt", "view {0}": "input", "target {0}": "mask"}
    return {name.format(view): sample[f"{key}{view}"] for view in (1, 2) for name, key in columns.items()}


def _third_shown(sample: Batch) -> Batch:
    """Those of a pair, and the third target."""
    return _pairs_shown(sample) | {"target 3: view 1,\nturned or flipped": sample["mask3"]}


def _views_shown(sample: Batch) -> Batch:
    """Both views, the target of the first, which is not corrupted, and some local views."""
    named = {"view 1": "input1", "target 1": "gt1", "view 2": "input2"}
    pictures = {name: sample[key] for name, key in named.items()}
    return pictures | {f"local view {i + 1}": local for i, local in enumerate(sample["locals"][:LOCALS_SHOWN])}


Z_WINDOWS = Windows(UNIT, {"view": DEVIATIONS, "local view": DEVIATIONS})
DATASETS = {
    "chest": Source(
        _chest_list,
        {
            "pcrl": _chest_views(_chest, chest.augment_batch, _pairs_shown),
            "pcrl_paper": _chest_views(_chest_third, with_third_target(chest.augment_batch), _third_shown),
            "pcrlv2": _chest_views(_chest_v2, chest_v2.augment_batch, _views_shown),
        },
        owner=patient,
    ),
    "luna": Source(
        luna.training_list,
        {
            "pcrl": _luna_views(PAIR, _luna, luna.augment_batch, Windows(UNIT), _pairs_shown),
            "pcrl_paper": _luna_views(
                PAIR, _luna_third, with_third_target(luna.augment_batch), Windows(UNIT), _third_shown
            ),
            "pcrlv2": _luna_views(GLOBAL, _luna_v2, luna_v2.augment_batch, Z_WINDOWS, _views_shown, True),
        },
        owner=_scan_of,
        recipes=recipes_of,
    ),
}
