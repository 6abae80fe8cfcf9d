"""Predictions of a segmenter: a mask of each scan, on the grid of the scan's file."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from torch import Tensor

from datasets.ct.data_files import data_files
from datasets.ct.errors import ScanError
from datasets.ct.itk import read_header
from datasets.ct.stored_grid import StoredGrid, stored_grid
from datasets.layout import SCANS
from datasets.segmentation.msd import Recipe, prepare_image
from datasets.segmentation.scans import Scan, find_scans, read_scan
from options import Options
from tasks.finetuned import Finetuned
from tasks.prediction_files import MASKS, PROBABILITIES, mask_path, probability_path, write_mask
from tasks.prediction_job import Predicted, PredictionJob
from tasks.prediction_stamps import remember, replaced, say_changed, stamp_of
from tasks.sliding import Windows, label_map, probability_planes, softmax_of
from utils.console import say, warn
from utils.errors import UserError, reason
from utils.progress import progress, waiting
from utils.text import counted

SAME_MM = 1e-3
Planes = Callable[[dict[Recipe, np.ndarray], Sequence[int]], Iterator[Tensor]]


def segment_scans(job: PredictionJob) -> Predicted:
    """Write the masks of all scans in ``--data`` that are not there yet."""
    options, output, ranks, first = job.options, job.output, job.ranks, job.folds[0]
    with ranks.raise_on_all(), waiting(f"looking for scans in {options.data}"):
        scans = find_scans(Path(options.data), first.channels, [output / name for name in (MASKS, PROBABILITIES)])
        if ranks.first:
            job.begin()
            _forget_replaced(scans, output, len(first.classes))
        todo = [scan for scan in scans if not _is_done(scan, first, options, output)] if ranks.first else []
    todo = ranks.broadcast(todo)
    if len(todo) < len(scans):
        say(f"{len(scans) - len(todo)} of {counted(len(scans), 'scan')} have their mask in {output / MASKS} already")
    planes = [_planes(job, fold) for fold in job.folds] if todo else []
    own = todo[ranks.rank :: ranks.size]

    def segment_own() -> list[str]:
        problems = []
        with progress(len(own), "scan", "segmented") as steps:
            for scan in own:
                try:
                    _segment(scan, job.folds, planes, options, output)
                except ScanError as error:
                    problems.append(f"{scan.name}: {error}")
                steps.update()
        return problems

    problems = itertools.chain(*ranks.gather_when_done(segment_own))
    return Predicted(len(scans), "scan", output / MASKS, list(problems))


def _planes(job: PredictionJob, fold: Finetuned) -> Planes:
    """A network's probabilities of a scan, by its images as recipes prepare them, on a grid of some shape."""
    options, devices = job.options, job.devices
    probabilities = softmax_of(devices.wrap(job.ready(fold)), job.precision, fold.mirrored if options.tta else ())
    windows, recipe = Windows(fold.patch, options.b, devices.main, fold.overlap), fold.recipe
    assert recipe is not None  # read_finetuned has made one
    return lambda images, shape: probability_planes(probabilities, images[recipe], windows, shape)


def _segment(scan: Scan, folds: Sequence[Finetuned], planes: Sequence[Planes], options: Options, output: Path) -> None:
    """Write the mask of one scan, the last of its files; ScanError if it cannot be read."""
    first = folds[0]
    voxels, spacing_mm = read_scan(scan, first.channels)
    grid, shape = stored_grid(scan.files), voxels.shape[1:]
    images = {fold.recipe: prepare_image(voxels, spacing_mm, fold.recipe) for fold in folds if fold.recipe}
    del voxels  # of a long CT a gigabyte
    classes = len(first.classes)
    kept = np.empty((classes, *shape), np.float16) if options.save_probabilities else None
    every = zip(*(each(images, shape) for each in planes), strict=True)
    mean = (sum(several[1:], several[0]) / len(several) for several in every)
    mask = label_map(mean, shape, kept)
    if kept is None:  # what is there is of another mask
        _remove(_files(scan.name, output, classes)[1:])
    else:
        for number, values in enumerate(kept, 1):
            write_mask(probability_path(output, scan.name, number), values.astype(np.float32), grid)
    write_mask(mask_path(output, scan.name), mask, grid)


def _files(name: str, output: Path, classes: int) -> list[Path]:
    """What is written of a scan of this name: its mask, and its probabilities of each class if they are saved."""
    return [mask_path(output, name), *(probability_path(output, name, number + 1) for number in range(classes))]


def _remove(files: Sequence[Path]) -> None:
    for file in files:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{file} cannot be replaced: {reason(error)}") from None


def _forget_replaced(scans: Sequence[Scan], output: Path, classes: int) -> None:
    """Remove the masks, and the probabilities, of scans that were replaced since; says so."""
    stamps = {}
    for scan in scans:
        with suppress(OSError):
            stamps[scan.name] = stamp_of([*scan.files, *(named for file in scan.files for named in data_files(file))])
    own = {name: _files(name, output, classes) for name in replaced(output, stamps)}
    say_changed(gone := [name for name, files in own.items() if any(file.exists() for file in files)], "scan")
    for name in gone:
        _remove(own[name])
    remember(output, stamps)


def _is_done(scan: Scan, first: Finetuned, options: Options, output: Path) -> bool:
    """Whether a scan has all its files; a mask on another grid is of another scan, which was there under its name."""
    mask, *probabilities = _files(scan.name, output, len(first.classes))
    if not all(path.exists() for path in (mask, *(probabilities if options.save_probabilities else ()))):
        return False
    if scan.problem or not scan.files[0].name.lower().endswith(SCANS):  # the place of a DICOM series takes reading it
        return True
    try:
        if _same(stored_grid(scan.files), mask):
            return True
    except ScanError:
        return False
    warn(f"{mask} does not have the size and position of {scan.files[0]}: the mask is computed again")
    return False


def _same(grid: StoredGrid, mask: Path) -> bool:
    size, *place = read_header(mask)
    known = zip((grid.spacing, grid.origin, grid.direction), place, strict=True)
    return tuple(size) == tuple(grid.size) and all(np.allclose(a, b.ravel(), atol=SAME_MM, rtol=0) for a, b in known)
