"""One scan's pairs: made, written, recorded, and recognised when they are already there.

Beside the pairs ``<save>/subset<k>/<uid>_img_<j>.npy`` of a scan (``_global_`` and ``_local_`` of the recipe pcrlv2)
lies its record ``<uid>.json``: the options,
the size and content of the scan's files, how many pairs there are and, where they are fewer than wanted, why; the boxes
of each pair and of its local crops, in voxels of 1 mm, and the scan's direction (ITK's matrix), for ``--preview``; how
many pairs show nearly nothing (``flat``), how many such were drawn anew (``redrawn``); ``lowest``, if it is not air.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from datasets.layout import (
    GLOBAL,
    LOCAL,
    PAIR,
    TRAINING_LIST,
    TRAINING_SUBSETS,
    global_name,
    local_name,
    pair_name,
    record_name,
    subset_folder,
    uid_of_record,
)
from preprocess.jobs.flags import cannot_write
from preprocess.jobs.kinds import lowest_of, no_air, slices_of
from preprocess.jobs.records import (
    BAD_SCAN,
    clear,
    in_a_line,
    is_array,
    matches,
    not_written,
    read_record,
    read_with_identity,
    recipe_of,
    write_array,
    write_record,
)
from preprocess.volumes.crops import MIN_IOU, Pair, Window, draw_pairs, feasible_boxes
from preprocess.volumes.crops_v2 import LOCAL_CROP, LOCALS, CropsV2, feasible_boxes_v2, region, with_locals
from preprocess.volumes.crops_v2 import MIN_IOU as MIN_IOU_V2
from preprocess.volumes.files import Scan
from preprocess.volumes.volume import ScanError, one_thread, resample, shape_at_1mm
from utils.errors import UserError
from utils.files import write_text
from utils.seeding import generator

TISSUE_HU = -150
RECIPES = ("pcrl", "pcrlv2")  # the method that the pairs are for; the second has local crops, too
OPTION_WORDS = {  # of PairOptions, for people
    "shape": "crops of",
    "nominal": "boxes of",
    "pairs": "--scale",
    "seed": "--seed",
    "hu_min": "--hu_min",
    "hu_max": "--hu_max",
    "percentiles": "--percentiles",
    "dtype": "--dtype",
    "min_std": "--min_std",
}
RECORD_KEYS = ("pairs", "shortage")
RECIPE = 1  # to be raised when the same options no longer give the same pairs
FLAT = 0.01  # the standard deviation of a crop, in [0, 1], below which there is nothing to see in it
LOW_CONTRAST = 0.08  # the median of it, below which a window is a bad choice: in lung CT it is 0.2, in fat 0.04
LIST_SEED = 0


@dataclass(frozen=True)
class PairOptions:
    """What decides on the pairs of a scan, beside the scan itself.

    Attributes:
        shape: voxels of a crop in x, y, z.
        nominal: the box size in mm that takes the place of the published (64, 64, 32).
        pairs: how many a scan.
        seed: all randomness, together with the scan's uid.
        hu_min, hu_max: the window that becomes [0, 1].
        percentiles: two percentiles of the scan's voxels that bound the window instead.
        dtype: float32 or float16.
        min_std: pairs of which a crop has a smaller standard deviation are drawn anew; 0 keeps all, as published.
        recipe: one of RECIPES.
    """

    shape: tuple[int, int, int]
    nominal: tuple[int, int, int]
    pairs: int
    seed: int
    hu_min: int
    hu_max: int
    percentiles: tuple[float, float] | None
    dtype: str
    min_std: float = FLAT
    recipe: str = RECIPES[0]

    @property
    def has_locals(self) -> bool:
        """Whether small crops go with each pair."""
        return self.recipe == "pcrlv2"

    @property
    def size(self) -> str:
        """Of a crop, in words."""
        return " x ".join(map(str, self.shape))

    @property
    def in_hu(self) -> bool:
        """Whether the window is one of HU: no other unit that scans have goes below 0."""
        return self.percentiles is None and self.hu_min < 0

    @property
    def has_tissue_rule(self) -> bool:
        """The rule compares with -150 HU: it needs a scan in HU and a window with that value inside."""
        return self.percentiles is None and self.hu_min < TISSUE_HU <= self.hu_max


@dataclass(frozen=True)
class PairJob:
    """A scan to make pairs of, how, and the folder to write them to.

    ``anew``: even if there are pairs made in the same way, which are another scan's then. ``like``: a hash in ``save``,
    to be compared with those of this scan.
    """

    scan: Scan
    options: PairOptions
    save: Path
    anew: bool = False
    like: str = ""

    @property
    def folder(self) -> Path:
        """Where the scan's files go."""
        return self.save / subset_folder(self.scan.subset)

    @property
    def record(self) -> Path:
        """The file that says what lies there."""
        return self.folder / record_name(self.scan.uid)

    def pair(self, index: int) -> Path:
        """The file of one pair."""
        name = global_name if self.options.has_locals else pair_name
        return self.folder / name(self.scan.uid, index)

    def locals(self, index: int) -> Path:
        """The file of the local crops of one pair, where the recipe has such."""
        return self.folder / local_name(self.scan.uid, index)

    def recipe(self) -> dict[str, Any]:
        """All that its pairs depend on; OSError if the scan is not there."""
        return recipe_of(self.scan, RECIPE, asdict(self.options))


@dataclass(frozen=True)
class PairOutcome:
    """What became of a scan: its pairs, whether they were there before, why they are few, why it is broken.

    ``flat``: pairs of which a crop is nearly constant. ``redrawn``: such pairs that others took the place of.
    ``contrast``: median standard deviation of a crop, in [0, 1]; None: not known. ``slices``: as of ``slices_of``.
    ``lowest``: the scan's lowest value, where that is not air; None: it is, or not known, or the window not in HU.
    """

    name: str
    pairs: int = 0
    done_before: bool = False
    shortage: str = ""
    problem: str = ""
    flat: int = 0
    redrawn: int = 0
    contrast: float | None = None
    slices: str = ""
    lowest: float | None = None


class FlatPairs:
    """Tells nearly constant pairs, and counts them."""

    def __init__(self, min_std: float) -> None:
        self.min_std, self.count = min_std, 0

    def __call__(self, crops: np.ndarray) -> bool:
        """Whether it is one."""
        flat = is_flat(crops, self.min_std)
        self.count += flat
        return flat


def make_pairs(job: PairJob) -> PairOutcome:
    """Make and write the pairs of one scan, unless they are there, whole and made in the same way.

    Raises:
        UserError: the pairs cannot be written.
    """
    one_thread()
    name = job.scan.name
    try:
        recipe = job.recipe()
        record = None if job.anew else read_record(job.record, *RECORD_KEYS)
        if record and matches(record, recipe) and _all_readable(job, record["pairs"]):
            return _outcome(name, record, done_before=True)
        image, source = read_with_identity(job.scan, job.like)
        refused = FlatPairs(job.options.min_std)
        pairs, none_fits = _pairs(image, job, refused)
    except BAD_SCAN as error:
        return PairOutcome(name, problem=in_a_line(error))
    try:
        clear(job.record, *((GLOBAL, LOCAL) if job.options.has_locals else (PAIR,)))
        boxes, flat, contrast = _write(job, pairs)
        made = len(boxes)
        shortage = none_fits or (_shortage(job.options, refused.count, made) if made < job.options.pairs else "")
        record = {"recipe": recipe, **source, "pairs": made, "shortage": shortage, "flat": flat}
        record |= {"redrawn": refused.count, "direction": image.GetDirection(), "boxes": boxes}
        record |= {"contrast": contrast} | (no_air(image) if job.options.in_hu else {})
        write_record(job.record, record)
    except OSError as error:
        return PairOutcome(name, problem=not_written(job.save, error))
    return _outcome(name, record)


def _outcome(name: str, record: Mapping[str, Any], done_before: bool = False) -> PairOutcome:
    """What the record tells of its scan; those of earlier versions tell less."""
    made = (record["pairs"], done_before, record["shortage"], "", record.get("flat", 0), record.get("redrawn", 0))
    contrast = known if isinstance(known := record.get("contrast"), float) else None
    return PairOutcome(name, *made, contrast, slices_of(record.get("direction")), lowest_of(record))


def _pairs(image: sitk.Image, job: PairJob, refused: FlatPairs) -> tuple[Iterable[Pair | CropsV2], str]:
    """The scan's pairs, made one by one as they are asked for; or none and the reason."""
    options = job.options
    shape = shape_at_1mm(image)
    boxes = (feasible_boxes_v2 if options.has_locals else feasible_boxes)(shape, options.nominal)
    if not len(boxes.sizes):
        return (), f"no box fits: the scan measures {' x '.join(map(str, shape))} mm"
    window = _window(image, options)
    origin, end = region(boxes, shape) if options.has_locals else boxes.region()
    part = resample(image, origin, end)
    rng = generator(options.seed, "luna_pre", job.scan.uid)
    min_iou = MIN_IOU_V2 if options.has_locals else MIN_IOU
    pairs = draw_pairs(part, origin, boxes, options.shape, window, options.pairs, rng, refused, min_iou)
    return (with_locals(pairs, part, origin, shape, window, rng) if options.has_locals else pairs), ""


def _shortage(options: PairOptions, redrawn: int, made: int) -> str:
    """Why there are fewer pairs than wanted."""
    causes = ["hold too much tissue"] * options.has_tissue_rule + ["are nearly constant"] * bool(redrawn)
    causes = [*causes, "overlap too little"]
    which = "the other boxes" if made else "the boxes"
    return f"{which} that were tried {', '.join(causes[:-1])}{', or ' * (len(causes) > 1)}{causes[-1]}"


def _window(image: sitk.Image, options: PairOptions) -> Window:
    if options.percentiles is None:
        return Window(options.hu_min, options.hu_max, TISSUE_HU if options.has_tissue_rule else None)
    low, high = np.percentile(sitk.GetArrayViewFromImage(image), options.percentiles)
    if low == high:
        raise ScanError(f"both percentiles are {low:g}: no value lies between them; give others with --percentiles")
    return Window(float(low), float(high), None)


def _all_readable(job: PairJob, pairs: int) -> bool:
    shape, dtype = (2, *job.options.shape), job.options.dtype
    return all(
        is_array(job.pair(index), shape, dtype)
        and (not job.options.has_locals or is_array(job.locals(index), (LOCALS, *LOCAL_CROP), dtype))
        for index in range(pairs)
    )


def is_flat(crops: np.ndarray, min_std: float = FLAT) -> bool:
    """Whether one of a pair of crops (2, x, y, z) is nearly constant."""
    return bool((_deviations(crops) < min_std).any())


def _deviations(crops: np.ndarray) -> np.ndarray:
    """Of each of a pair of crops (2, x, y, z) the standard deviation; every second voxel of a line will do."""
    found: np.ndarray = crops[:, ::2, ::2, ::2].std(axis=(1, 2, 3))
    return found


def kept_flat(job: PairJob) -> bool:
    """Whether an earlier version, which kept all pairs, left nearly constant ones of this scan, against the options."""
    record = read_record(job.record, *RECORD_KEYS)
    if record is None or not isinstance(record["recipe"], dict) or "min_std" in record["recipe"]:
        return False
    return bool(record.get("flat")) and job.options.min_std > 0


def _write(job: PairJob, pairs: Iterable[Pair | CropsV2]) -> tuple[list[dict[str, list[list[int]]]], int, float | None]:
    """Write the crops; -> the boxes of each pair, how many pairs are flat, and the contrast (see PairOutcome).

    Local crops come first: where a pair is, they are there as well.
    """
    boxes: list[dict[str, list[list[int]]]] = []
    flat, deviations = 0, []
    for made in pairs:
        pair = made.pair if isinstance(made, CropsV2) else made
        box = {"starts": pair.starts.tolist(), "sizes": pair.sizes.tolist()}
        if isinstance(made, CropsV2):
            write_array(job.locals(len(boxes)), made.crops.astype(job.options.dtype, copy=False))
            box |= {"local_starts": made.starts.tolist(), "local_sizes": made.sizes.tolist()}
        flat += is_flat(pair.crops)
        deviations += _deviations(pair.crops).tolist()
        write_array(job.pair(len(boxes)), pair.crops.astype(job.options.dtype, copy=False))
        boxes.append(box)
    return boxes, flat, round(float(np.median(deviations)), 4) if deviations else None


def refuse_other_recipe(save: Path, options: PairOptions) -> None:
    """UserError if ``save`` holds pairs that were made for another method: a folder holds those of one."""
    for path in sorted(save.glob("subset?/*.json")):
        record = read_record(path, *RECORD_KEYS)
        recipe = record["recipe"] if record else None
        there = recipe.get("recipe", RECIPES[0]) if isinstance(recipe, dict) else options.recipe
        if there != options.recipe:
            raise UserError(
                f"--save {save} holds pairs of --recipe {there} ({path.parent.name}/{path.name}); give another --save "
                f"for --recipe {options.recipe}"
            )


def write_training_list(save: Path) -> int:
    """Write ``luna_train.txt``: the uids of subsets 0-6 that have pairs, permuted, one a line; their number.

    It goes by the records in ``save``, so that runs with ``--fold`` and several data folders add up.
    """
    uids = []
    for subset in TRAINING_SUBSETS:
        for path in (save / subset_folder(subset)).glob("*"):
            uid = uid_of_record(path.name)
            record = read_record(path, *RECORD_KEYS) if uid else None
            if record and record["pairs"]:
                uids.append(uid)
    if uids:
        order = generator(LIST_SEED, TRAINING_LIST).permutation(len(uids))
        uids.sort()
        try:
            write_text(save / TRAINING_LIST, "".join(f"{uids[i]}\n" for i in order))
        except OSError as error:
            raise cannot_write(save, error) from None
    return len(uids)
