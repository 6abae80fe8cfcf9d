"""One scan's pairs: made, written, recorded, and recognised when they are already there.

Beside the pairs ``<save>/subset<k>/<uid>_img_<j>.npy`` of a scan lies its record ``<uid>.json``: the options,
the size of the scan's files, how many pairs there are and, where they are fewer than wanted, why; the boxes of each
pair, in voxels of 1 mm, and the scan's direction (ITK's matrix), for ``--preview``; how many pairs show nearly nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from preprocess.jobs.records import cannot_write, clear, is_array, read_record, recipe_of, write_array, write_record
from preprocess.volumes.crops import Pair, Window, draw_pairs, feasible_boxes
from preprocess.volumes.files import Scan
from preprocess.volumes.volume import ScanError, read_image, resample, shape_at_1mm
from utils.files import write_text
from utils.seeding import generator

TISSUE_HU = -150
OPTION_WORDS = {  # of PairOptions, for people
    "shape": "crops of",
    "nominal": "boxes of",
    "pairs": "--scale",
    "seed": "--seed",
    "hu_min": "--hu_min",
    "hu_max": "--hu_max",
    "percentiles": "--percentiles",
    "dtype": "--dtype",
}
RECORD_KEYS = ("pairs", "shortage")
RECIPE = 1  # to be raised when the same options no longer give the same pairs
TRAINING_SUBSETS = range(7)
FLAT = 0.01  # the standard deviation of a crop, in [0, 1], below which there is nothing to see in it
LIST_NAME = "luna_train.txt"
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
    """

    shape: tuple[int, int, int]
    nominal: tuple[int, int, int]
    pairs: int
    seed: int
    hu_min: int
    hu_max: int
    percentiles: tuple[float, float] | None
    dtype: str

    @property
    def size(self) -> str:
        """Of a crop, in words."""
        return " x ".join(map(str, self.shape))

    @property
    def has_tissue_rule(self) -> bool:
        """The rule compares with -150 HU: it needs a scan in HU and a window with that value inside."""
        return self.percentiles is None and self.hu_min < TISSUE_HU <= self.hu_max


@dataclass(frozen=True)
class PairJob:
    """A scan to make pairs of, how, and the folder to write them to."""

    scan: Scan
    options: PairOptions
    save: Path

    @property
    def folder(self) -> Path:
        """Where the scan's files go."""
        return self.save / f"subset{self.scan.subset}"

    @property
    def record(self) -> Path:
        """The file that says what lies there."""
        return self.folder / f"{self.scan.uid}.json"

    def pair(self, index: int) -> Path:
        """The file of one pair."""
        return self.folder / f"{self.scan.uid}_img_{index}.npy"


@dataclass(frozen=True)
class PairOutcome:
    """What became of a scan: its pairs, whether they were there before, why they are few, why it is broken.

    ``flat``: pairs of which a crop is nearly constant.
    """

    name: str
    pairs: int = 0
    done_before: bool = False
    shortage: str = ""
    problem: str = ""
    flat: int = 0


def make_pairs(job: PairJob) -> PairOutcome:
    """Make and write the pairs of one scan, unless they are there, whole and made in the same way.

    Raises:
        UserError: the pairs cannot be written.
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # the scans run side by side
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    name, options = job.scan.name, job.options
    try:
        recipe = recipe_of(job.scan, RECIPE, asdict(options))
        record = read_record(job.record, *RECORD_KEYS)
        if record and record["recipe"] == recipe and _all_readable(job, record["pairs"]):
            return PairOutcome(name, record["pairs"], True, record["shortage"], flat=record.get("flat", 0))
        image = read_image(job.scan)
        pairs, none_fits = _pairs(image, job)
    except (ScanError, OSError, RuntimeError, ValueError, MemoryError) as error:  # whatever a bad file does
        return PairOutcome(name, problem=" ".join(str(error).split()) or type(error).__name__)
    try:
        clear(job.record, "img")
        boxes, flat = _write(job, pairs)
        made = len(boxes)
        shortage = none_fits
        if made < options.pairs and not none_fits:
            shortage = "the other boxes that were tried hold too much tissue, or overlap too little"
        direction = image.GetDirection()
        record = {"recipe": recipe, "pairs": made, "shortage": shortage, "flat": flat}
        write_record(job.record, record | {"direction": direction, "boxes": boxes})
    except OSError as error:
        raise cannot_write(job.save, error) from None
    return PairOutcome(name, made, shortage=shortage, flat=flat)


def _pairs(image: sitk.Image, job: PairJob) -> tuple[Iterable[Pair], str]:
    """The scan's pairs, made one by one as they are asked for; or none and the reason."""
    options = job.options
    shape = shape_at_1mm(image)
    boxes = feasible_boxes(shape, options.nominal)
    if not len(boxes.sizes):
        return (), f"no box fits: the scan measures {' x '.join(map(str, shape))} mm"
    window = _window(image, options)
    origin, end = boxes.region()
    part = resample(image, origin, end)
    rng = generator(options.seed, "luna_pre", job.scan.uid)
    return draw_pairs(part, origin, boxes, options.shape, window, options.pairs, rng), ""


def _window(image: sitk.Image, options: PairOptions) -> Window:
    if options.percentiles is None:
        return Window(options.hu_min, options.hu_max, TISSUE_HU if options.has_tissue_rule else None)
    low, high = np.percentile(sitk.GetArrayViewFromImage(image), options.percentiles)
    if low == high:
        raise ScanError(f"both percentiles are {low:g}: there is nothing to see between them")
    return Window(float(low), float(high), None)


def _all_readable(job: PairJob, pairs: int) -> bool:
    shape = (2, *job.options.shape)
    return all(is_array(job.pair(index), shape, job.options.dtype) for index in range(pairs))


def is_flat(crops: np.ndarray) -> bool:
    """Whether one of a pair of crops (2, x, y, z) is nearly constant; every second voxel of a line will do."""
    return bool((crops[:, ::2, ::2, ::2].std(axis=(1, 2, 3)) < FLAT).any())


def _write(job: PairJob, pairs: Iterable[Pair]) -> tuple[list[dict[str, list[list[int]]]], int]:
    """Write the crops; -> the boxes of each pair, and how many pairs are flat."""
    boxes: list[dict[str, list[list[int]]]] = []
    flat = 0
    for pair in pairs:
        flat += is_flat(pair.crops)
        write_array(job.pair(len(boxes)), pair.crops.astype(job.options.dtype, copy=False))
        boxes.append({"starts": pair.starts.tolist(), "sizes": pair.sizes.tolist()})
    return boxes, flat


def write_training_list(save: Path) -> int:
    """Write ``luna_train.txt``: the uids of subsets 0-6 that have pairs, permuted, one a line; their number.

    It goes by the records in ``save``, so that runs with ``--fold`` and several data folders add up.
    """
    uids = []
    for subset in TRAINING_SUBSETS:
        for path in (save / f"subset{subset}").glob("*.json"):
            record = read_record(path, *RECORD_KEYS)
            if record and record["pairs"]:
                uids.append(path.name[: -len(".json")])
    if uids:
        order = generator(LIST_SEED, LIST_NAME).permutation(len(uids))
        uids.sort()
        try:
            write_text(save / LIST_NAME, "".join(f"{uids[i]}\n" for i in order))
        except OSError as error:
            raise cannot_write(save, error) from None
    return len(uids)
