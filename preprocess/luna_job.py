"""One scan's pairs: made, written, recorded, and recognised when they are already there.

Beside the pairs ``<save>/subset<k>/<uid>_img_<j>.npy`` of a scan lies its record ``<uid>.json``: the options,
the size of the scan's files, how many pairs there are and, where they are fewer than wanted, why. It goes
before the first pair is written and comes after the last, so that after a kill it is right or not there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from preprocess.crops import Window, draw_pairs, feasible_boxes
from preprocess.scans import Scan
from preprocess.volume import ScanError, read_image, resample, shape_at_1mm
from utils.errors import UserError
from utils.files import TEMPORARY_SUFFIX, atomic_path, write_text
from utils.seeding import generator

TISSUE_HU = -150
RECIPE = 1  # to be raised when the same options no longer give the same pairs
TRAINING_SUBSETS = range(7)
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
    def has_tissue_rule(self) -> bool:
        """The rule compares with -150 HU: it needs a scan in HU and a window with that value inside."""
        return self.percentiles is None and self.hu_min < TISSUE_HU <= self.hu_max


@dataclass(frozen=True)
class Job:
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
class Outcome:
    """What became of a scan: its pairs, whether they were there before, why they are few, why it is broken."""

    name: str
    pairs: int = 0
    done_before: bool = False
    shortage: str = ""
    problem: str = ""


def make_pairs(job: Job) -> Outcome:
    """Make and write the pairs of one scan, unless they are there, whole and made in the same way.

    Raises:
        UserError: the pairs cannot be written.
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # the scans run side by side
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    name, options = job.scan.name, job.options
    try:
        recipe = _recipe(job)
        record = _read_record(job.record)
        if record and record["recipe"] == recipe and _all_readable(job, record["pairs"]):
            return Outcome(name, record["pairs"], done_before=True, shortage=record["shortage"])
        image = read_image(job.scan)
        pairs, none_fits = _pairs(image, job)
    except (ScanError, OSError, RuntimeError, ValueError, MemoryError) as error:  # whatever a bad file does
        return Outcome(name, problem=" ".join(str(error).split()) or type(error).__name__)
    try:
        _clear(job)
        made = _write(job, pairs)
        shortage = none_fits
        if made < options.pairs and not none_fits:
            shortage = "the other boxes that were tried hold too much tissue, or overlap too little"
        write_text(job.record, json.dumps({"recipe": recipe, "pairs": made, "shortage": shortage}, indent=1))
    except OSError as error:
        raise _cannot_write(job.save, error) from None
    return Outcome(name, made, shortage=shortage)


def _pairs(image: sitk.Image, job: Job) -> tuple[Iterable[np.ndarray], str]:
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


def _recipe(job: Job) -> dict[str, Any]:
    """All that the pairs depend on, as JSON gives it back."""
    size = sum(file.stat().st_size for file in job.scan.files)
    recipe = {"version": RECIPE, **asdict(job.options), "files": len(job.scan.files), "bytes": size}
    return json.loads(json.dumps(recipe))


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and {"recipe", "pairs", "shortage"} <= record.keys() else None


def _all_readable(job: Job, pairs: int) -> bool:
    """Whether all files are there, of the right shape and kind and not cut short. Reads the headers only."""
    try:
        for index in range(pairs):
            pair = np.load(job.pair(index), mmap_mode="r", allow_pickle=False)
            if pair.shape != (2, *job.options.shape) or pair.dtype != job.options.dtype:
                return False
    except (OSError, ValueError, EOFError):
        return False
    return True


def _clear(job: Job) -> None:
    """Remove what an earlier run left of this scan: its record first, its pairs, temporary files of a kill."""
    job.folder.mkdir(parents=True, exist_ok=True)
    job.record.unlink(missing_ok=True)
    uid = re.escape(job.scan.uid)
    ours = re.compile(rf"{uid}_img_\d+\.npy|\.{uid}(_img_\d+\.npy|\.json)\.\d+{re.escape(TEMPORARY_SUFFIX)}")
    for file in job.folder.iterdir():
        if ours.fullmatch(file.name):
            file.unlink()


def _write(job: Job, pairs: Iterable[np.ndarray]) -> int:
    made = 0
    for pair in pairs:
        with atomic_path(job.pair(made)) as temporary, temporary.open("wb") as file:
            np.save(file, pair.astype(job.options.dtype, copy=False), allow_pickle=False)
        made += 1
    return made


def write_training_list(save: Path) -> int:
    """Write ``luna_train.txt``: the uids of subsets 0-6 that have pairs, permuted, one a line; their number.

    It goes by the records in ``save``, so that runs with ``--fold`` and several data folders add up.
    """
    uids = []
    for subset in TRAINING_SUBSETS:
        for path in (save / f"subset{subset}").glob("*.json"):
            record = _read_record(path)
            if record and record["pairs"]:
                uids.append(path.name[: -len(".json")])
    if uids:
        order = generator(LIST_SEED, LIST_NAME).permutation(len(uids))
        uids.sort()
        try:
            write_text(save / LIST_NAME, "".join(f"{uids[i]}\n" for i in order))
        except OSError as error:
            raise _cannot_write(save, error) from None
    return len(uids)


def _cannot_write(save: Path, error: OSError) -> UserError:
    return UserError(f"--save {save}: cannot write there: {error.strerror or error}")
