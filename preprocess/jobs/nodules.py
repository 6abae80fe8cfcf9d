"""One scan's nodule crops: made, written, recorded, and recognised when they are already there.

Beside the crops ``<save>/subset<k>/<uid>_crop_<j>.npy`` of a scan lies its record ``<uid>.json``: the options, the
size and content of the scan's files, label and place of each crop and, where negatives are fewer than wanted, why; the
``lowest`` value of a scan without air.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from datasets.layout import CROP, LABEL_COLUMNS, LABELS, SUBSET, crop_name, record_name, subset_folder, uid_of_record
from preprocess.jobs.flags import cannot_write
from preprocess.jobs.kinds import lowest_of, no_air
from preprocess.jobs.nodule_table import Place
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
from preprocess.volumes.crops import Window
from preprocess.volumes.files import Scan
from preprocess.volumes.volume import (
    OUTSIDE_HU,
    ScanError,
    one_thread,
    place_at_1mm,
    resample,
    shape_at_1mm,
)
from utils.files import write_text
from utils.seeding import generator

RECORD_KEYS = ("crops", "shortage")
RECIPE = 1  # to be raised when the same options no longer give the same crops
OPTION_WORDS = {  # of CropOptions, for people
    "shape": "crops of",
    "max_negatives": "--max_negatives",
    "seed": "--seed",
    "hu_min": "--hu_min",
    "hu_max": "--hu_max",
    "dtype": "--dtype",
}

# Negatives are drawn where the table has none: away from nodules, and where there is lung around.
AWAY_MM = 10.0  # from a nodule's surface
LUNG_HU = (-950, -500)
LUNG_SHARE = 0.3  # of a crop's voxels
DRAWS = 50  # for each negative that is wanted


@dataclass(frozen=True)
class CropOptions:
    """What decides on the crops of a scan, beside the scan and its places.

    Attributes:
        shape: voxels of a crop in x, y, z; they are 1 mm wide.
        max_negatives: how many places without a nodule are taken, at most.
        seed: of which ones, together with the scan's uid.
        hu_min, hu_max: the window that becomes [0, 1].
        dtype: float32 or float16.
    """

    shape: tuple[int, int, int]
    max_negatives: int
    seed: int
    hu_min: int
    hu_max: int
    dtype: str


@dataclass(frozen=True)
class NoduleJob:
    """A scan to cut crops out of, its ``places``, how, and the folder to write to.

    ``draw_negatives``: the table has nodules alone, so that other places have to be found. ``anew``: even if there
    are crops made in the same way, which are another scan's then. ``like``: a hash in ``save``, to be compared with
    those of this scan.
    """

    scan: Scan
    places: tuple[Place, ...]
    draw_negatives: bool
    options: CropOptions
    save: Path
    anew: bool = False
    like: str = ""

    @property
    def record(self) -> Path:
        """The file that says what lies there."""
        return self.save / subset_folder(self.scan.subset) / record_name(self.scan.uid)

    def crop(self, index: int) -> Path:
        """The file of one crop."""
        return self.record.with_name(crop_name(self.scan.uid, index))

    def recipe(self) -> dict[str, Any]:
        """All that its crops depend on; OSError if the scan is not there."""
        table = {"places": [asdict(place) for place in self.places], "draw_negatives": self.draw_negatives}
        return recipe_of(self.scan, RECIPE, asdict(self.options) | table)


@dataclass(frozen=True)
class NoduleOutcome:
    """What became of a scan: its crops with and without a nodule, why these are few, why it is broken.

    ``lowest``: the scan's lowest value, where that is not air; None: it is, or not known, or the window not in HU.
    """

    name: str
    positives: int = 0
    negatives: int = 0
    done_before: bool = False
    shortage: str = ""
    problem: str = ""
    lowest: float | None = None


def make_crops(job: NoduleJob) -> NoduleOutcome:
    """Make and write the crops of one scan, unless they are there, whole and made in the same way.

    Raises:
        UserError: the crops cannot be written.
    """
    one_thread()
    try:
        recipe = job.recipe()
        record = None if job.anew else read_record(job.record, *RECORD_KEYS)
        if record and matches(record, recipe) and _all_readable(job, len(record["crops"])):
            return _outcome(job, record, done_before=True)
        image, source = read_with_identity(job.scan, job.like)
        places = _choose(image, job)
        _check_inside(image, [place for place in places if place.label or not job.draw_negatives])
    except BAD_SCAN as error:
        return NoduleOutcome(job.scan.name, problem=in_a_line(error))
    negatives = sum(place.label == 0 for place in places)
    shortage = ""
    if job.draw_negatives and negatives < job.options.max_negatives:
        shortage = (
            f"{negatives} of {job.options.max_negatives} negatives: other positions are near a nodule or have too "
            f"little lung"
        )
    try:
        clear(job.record, CROP)
        for index, place in enumerate(places):
            centre = nearest_voxel(image, place.world)
            write_array(job.crop(index), _scaled(cut_around(image, centre, job.options.shape), job.options))
        crops = [(place.label, *place.world) for place in places]
        record = {"recipe": recipe, **source, "crops": crops, "shortage": shortage}
        record |= no_air(image) if job.options.hu_min < 0 else {}
        write_record(job.record, record)
    except OSError as error:
        return NoduleOutcome(job.scan.name, problem=not_written(job.save, error))
    return _outcome(job, record)


def _outcome(job: NoduleJob, record: Mapping[str, Any], done_before: bool = False) -> NoduleOutcome:
    labels = [crop[0] for crop in record["crops"]]
    numbers = (sum(labels), len(labels) - sum(labels))
    return NoduleOutcome(job.scan.name, *numbers, done_before, record["shortage"], lowest=lowest_of(record))


def _all_readable(job: NoduleJob, crops: int) -> bool:
    return all(is_array(job.crop(index), job.options.shape, job.options.dtype) for index in range(crops))


def nearest_voxel(image: sitk.Image, world: tuple[float, float, float]) -> np.ndarray:
    """The voxel (x, y, z) of the 1 mm grid that lies nearest to a point in world coordinates (mm)."""
    return np.floor(place_at_1mm(image, world) + 0.5).astype(int)


def cut_around(image: sitk.Image, centre: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """float32 (x, y, z) at 1 mm whose voxel ``shape // 2`` is ``centre``; beyond the scan lies air (-1000 HU)."""
    first = centre - np.array(shape) // 2
    low, high = (np.clip(corner, 0, shape_at_1mm(image)) for corner in (first, first + shape))
    crop = np.full(shape, OUTSIDE_HU, np.float32)
    inside = tuple(slice(start, end) for start, end in zip(low - first, high - first, strict=True))
    crop[inside] = resample(image, low, high)
    return crop


def _scaled(crop: np.ndarray, options: CropOptions) -> np.ndarray:
    return Window(options.hu_min, options.hu_max, None).scale(crop).astype(options.dtype)


def _check_inside(image: sitk.Image, places: list[Place]) -> None:
    """Raise a ScanError if a place of the table is not in the scan: the table then belongs to another one.

    Drawn places are voxels of the 1 mm grid, the last of which may lie beyond half a thick slice.
    """
    for place in places:
        index = np.array(image.TransformPhysicalPointToContinuousIndex(place.world))
        if (index < -0.5).any() or (index > np.array(image.GetSize()) - 0.5).any():
            raise ScanError(f"the table lists a position outside the scan, {place.world} mm; does it fit this scan?")


def _choose(image: sitk.Image, job: NoduleJob) -> list[Place]:
    """All nodules, and up to ``max_negatives`` places without one: of the table, in its order, or drawn."""
    rng = generator(job.options.seed, "nodule negatives", job.scan.uid)
    nodules = [place for place in job.places if place.label]
    if job.draw_negatives:
        return nodules + list(_draw(image, nodules, job.options, rng))
    others = [place for place in job.places if not place.label]
    chosen = sorted(rng.permutation(len(others))[: job.options.max_negatives])
    return nodules + [others[index] for index in chosen]


def _draw(image: sitk.Image, nodules: list[Place], options: CropOptions, rng: np.random.Generator) -> Iterator[Place]:
    """Places of the scan that are away from all nodules and have lung around, uniformly."""
    size = np.array(shape_at_1mm(image))
    wanted = options.max_negatives
    for _ in range(DRAWS * wanted):
        centre = rng.integers(size)
        index = centre / image.GetSpacing()
        world = image.TransformContinuousIndexToPhysicalPoint(index.tolist())
        if any(np.linalg.norm(np.subtract(world, n.world)) < n.diameter_mm / 2 + AWAY_MM for n in nodules):
            continue
        crop = cut_around(image, centre, options.shape)
        if np.mean((crop >= LUNG_HU[0]) & (crop <= LUNG_HU[1])) < LUNG_SHARE:
            continue
        yield Place(world, 0)
        wanted -= 1
        if not wanted:
            return


def write_labels(save: Path) -> int:
    """Write ``labels.csv``, one crop a line, sorted by subset, uid and number; -> how many there are.

    It goes by the records in ``save``, so that runs with ``--fold`` and several data folders add up.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(LABEL_COLUMNS)
    number = 0
    for folder in sorted(path for path in save.glob("*") if SUBSET.fullmatch(path.name)):
        for path in sorted(path for path in folder.glob("*") if uid_of_record(path.name)):
            uid, record = uid_of_record(path.name), read_record(path, *RECORD_KEYS)
            for index, (label, *world) in enumerate(record["crops"] if record else ()):
                place = (f"{value:.6f}" for value in world)
                table.writerow([f"{folder.name}/{crop_name(uid, index)}", uid, folder.name[-1], label, *place])
                number += 1
    if number:
        try:
            write_text(save / LABELS, text.getvalue())
        except OSError as error:
            raise cannot_write(save, error) from None
    return number
