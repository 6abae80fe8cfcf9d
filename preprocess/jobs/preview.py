"""``--preview N``: a sheet of pairs of crops, in turn from each scan, ``preview.png``, to check them by eye.

It is drawn from what lies in the folder, the pairs and their scans' records, so that it can be had later as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.jobs.pairs import RECORD_KEYS, PairJob
from preprocess.jobs.records import read_record
from preprocess.volumes.crops import iou
from utils.image_grid import Picture, draw_sheet, middle_slices, shortened, upright
from utils.npy import read_array

FILE_NAME = "preview.png"
LOCALS_SHOWN = 3


def draw_preview(jobs: Sequence[PairJob], wanted: int, path: Path) -> int:
    """Draw ``wanted`` pairs, one a row, in turn from each scan; -> how many there were to draw."""
    rows = list(islice(_rows(jobs), wanted))
    if rows:
        title = "pairs of crops: middle slices, front or head on top, the patient's left at the right"
        draw_sheet(rows, (0.0, 1.0), title, path)
    return len(rows)


def _rows(jobs: Sequence[PairJob]) -> Iterator[list[Picture]]:
    records = [read_record(job.record, *RECORD_KEYS) or {"pairs": 0} for job in jobs]
    for index in range(max(record["pairs"] for record in records)):
        for job, record in zip(jobs, records, strict=True):
            if index < record["pairs"]:
                yield _row(job, record, index)


def _row(job: PairJob, record: dict[str, Any], index: int) -> list[Picture]:
    """Three slices through each crop of a pair, in the proportions of its box; one through each of some local ones."""
    pair = read_array(job.pair(index)).astype(np.float32)
    boxes = record.get("boxes")
    direction = np.reshape(record.get("direction", np.eye(3)), (3, 3))
    sizes = np.array(boxes[index]["sizes"]) if boxes else np.array([pair.shape[1:]] * 2)
    pictures = []
    for number, (crop, size) in enumerate(zip(pair, sizes, strict=True), start=1):
        volume, voxel = upright(crop, size / crop.shape, direction)
        box = f": {' x '.join(map(str, size))} mm" if boxes else ""
        for name, picture in middle_slices(volume, voxel).items():
            pictures.append(replace(picture, title=f"crop {number}{box}\n{name}" if name == "axial" else name))
    if job.options.has_locals:
        pictures += _locals(job, boxes[index] if boxes else {}, index, direction)
    label = f"{shortened(job.scan.uid)}\npair {index}"
    if boxes:
        label += f"\noverlap (IoU) {iou(np.array(boxes[index]['starts']), sizes):.2f}"
    return [replace(pictures[0], label=label), *pictures[1:]]


def _locals(job: PairJob, boxes: dict[str, Any], index: int, direction: np.ndarray) -> Iterator[Picture]:
    """The axial slice through each of the first local crops of a pair."""
    crops = read_array(job.locals(index))[:LOCALS_SHOWN].astype(np.float32)
    sizes = np.array(boxes.get("local_sizes", [crop.shape for crop in crops]))
    for number, (crop, size) in enumerate(zip(crops, sizes, strict=False), start=1):
        volume, voxel = upright(crop, size / crop.shape, direction)
        title = f"local crop {number}: {' x '.join(map(str, size))} mm\naxial"
        yield replace(middle_slices(volume, voxel)["axial"], title=title)
