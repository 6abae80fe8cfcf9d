"""Places of phantoms that a detector of blobs takes for nodules: random places are too easily told from these."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from skimage.feature import peak_local_max
from skimage.filters import gaussian

from preprocess.jobs.nodules import LUNG_HU
from utils.files import write_text

BLOB_MM, AROUND_MM, LUNG_MM = 2.0, 8.0, 6.0  # standard deviations of Gaussians
WINDOW = (-1000, 400)  # HU
FAINTEST = 50.0  # HU: a blob less its surroundings
PEAKS = 200  # of a scan, at most
APART_MM = 10.0  # from each other
AWAY_MM = 8.0  # from a nodule's surface, as phantoms' own places
FOR_EACH = 2  # places for a nodule

FORMER = "candidates_random.csv"  # the phantoms' own table

Nodule = tuple[np.ndarray, float]  # centre (3,) in the scan's frame and diameter, mm


def write_candidates(phantoms: Path) -> None:
    """Write ``candidates_V2.csv``: the nodules of ``annotations.csv``, and for each two places that look alike.

    ``phantoms``: a folder laid out as LUNA16 is. A scan without nodules gets no line.
    """
    nodules: dict[str, list[Nodule]] = defaultdict(list)
    with open(phantoms / "annotations.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            center = np.array([float(row[f"coord{axis}"]) for axis in "XYZ"])
            nodules[row["seriesuid"]].append((center, float(row["diameter_mm"])))
    lines = ["seriesuid,coordX,coordY,coordZ,class"]
    for path in sorted(phantoms.glob("subset*/*.mhd")):
        own = nodules[path.stem]
        places = lookalikes(sitk.ReadImage(str(path)), own) if own else []
        for place, kind in [*((center, 1) for center, _ in own), *((place, 0) for place in places)]:
            lines.append(f"{path.stem},{','.join(f'{value:.2f}' for value in place)},{kind}")
    if not (phantoms / FORMER).exists():
        (phantoms / "candidates_V2.csv").rename(phantoms / FORMER)
    write_text(phantoms / "candidates_V2.csv", "\n".join(lines) + "\n")


def lookalikes(image: sitk.Image, nodules: Sequence[Nodule]) -> list[np.ndarray]:
    """For each nodule the two places, not taken yet, whose response to the detector is nearest to its own; (3,), mm.

    A nodule with less than half lung around it has the response 0, so that it gets the faintest places.
    """
    blobs = blobs_in_lung(image)

    def response(place: np.ndarray) -> float:
        return float(blobs[image.TransformPhysicalPointToIndex(place.tolist())[::-1]])

    free = list(_apart(image, blobs, nodules))
    chosen = []
    for center, _ in nodules:
        for _ in range(min(FOR_EACH, len(free))):
            nearest = min(range(len(free)), key=lambda index: abs(response(free[index]) - response(center)))
            chosen.append(free.pop(nearest))
    return chosen


def blobs_in_lung(image: sitk.Image) -> np.ndarray:
    """Difference of Gaussians of the HU (z, y, x), 0 where less than half of the surroundings is lung."""
    spacing = np.array(image.GetSpacing())[::-1]
    hu = sitk.GetArrayFromImage(image).astype(np.float32)

    def smooth(values: np.ndarray, width_mm: float) -> np.ndarray:
        smoothed: np.ndarray = gaussian(values, width_mm / spacing, mode="nearest", preserve_range=True)
        return smoothed

    lung = smooth(((hu > LUNG_HU[0]) & (hu < LUNG_HU[1])).astype(np.float32), LUNG_MM)
    hu = hu.clip(*WINDOW)
    return (smooth(hu, BLOB_MM) - smooth(hu, AROUND_MM)) * (lung > 0.5)


def _apart(image: sitk.Image, blobs: np.ndarray, nodules: Sequence[Nodule]) -> Iterator[np.ndarray]:
    """Peaks of the detector, the highest first, away from nodules and from each other."""
    kept: list[np.ndarray] = []
    peaks = peak_local_max(blobs, min_distance=3, threshold_abs=FAINTEST, num_peaks=PEAKS, exclude_border=False)
    for peak in peaks.tolist():
        place = np.array(image.TransformIndexToPhysicalPoint(peak[::-1]))
        away = all(np.linalg.norm(place - center) > diameter / 2 + AWAY_MM for center, diameter in nodules)
        if away and all(np.linalg.norm(place - other) > APART_MM for other in kept):
            kept.append(place)
            yield place
