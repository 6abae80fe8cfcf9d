"""LUNA16 pre-processing as plainly as it is stated: the yardstick for speed and the oracle for the numbers.

One step after the other and one voxel after the other: SimpleITK resamples the whole scan, both crops of a pair
are resized by scikit-image in float64, and the tissue rule is a loop over voxels. Arrays are (x, y, z).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from skimage.transform import resize

HU_MIN, HU_MAX = -1000, 1000
TISSUE_HU = -150
SIZES = [(64, 64, 32), (96, 96, 48), (96, 96, 96), (32, 32, 16), (112, 112, 64)]

Box = tuple[tuple[int, int, int], tuple[int, int, int]]  # start and size


def read_and_resample(path: str | Path) -> np.ndarray:
    """Read a scan and resample it to 1 mm, linearly, -1000 HU outside; (x, y, z) in HU."""
    image = sitk.ReadImage(str(path))
    size = [int(n * spacing + 0.5) for n, spacing in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    resampler = sitk.ResampleImageFilter()
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetOutputDirection(image.GetDirection())
    resampler.SetOutputOrigin(image.GetOrigin())
    resampler.SetOutputSpacing((1.0, 1.0, 1.0))
    resampler.SetSize(size)
    resampler.SetDefaultPixelValue(-1000)
    return sitk.GetArrayFromImage(resampler.Execute(image)).transpose(2, 1, 0)


def scale_hu(volume: np.ndarray) -> np.ndarray:
    """Clip to [-1000, 1000] HU and scale to [0, 1], float64."""
    return (np.clip(volume, HU_MIN, HU_MAX) - float(HU_MIN)) / (HU_MAX - HU_MIN)


def draw_box(shape: tuple[int, ...], rng: np.random.Generator) -> Box:
    """A box of a drawn size at a drawn start; 32 less in x and y where they leave no room."""
    width, height, depth = SIZES[rng.integers(len(SIZES))]
    if shape[0] - width - 71 < 70 or shape[1] - height - 71 < 70:
        width, height = width - 32, height - 32
    x = int(rng.integers(70, shape[0] - width - 71, endpoint=True))
    y = int(rng.integers(70, shape[1] - height - 71, endpoint=True))
    z = int(rng.integers(15, shape[2] - depth - 19, endpoint=True))
    return (x, y, z), (width, height, depth)


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    overlap = 1
    for start_a, size_a, start_b, size_b in zip(*a, *b, strict=True):
        overlap *= max(0, min(start_a + size_a, start_b + size_b) - max(start_a, start_b))
    return overlap / (np.prod(a[1]) + np.prod(b[1]) - overlap)


def crop(volume: np.ndarray, box: Box) -> np.ndarray:
    """Cut a box with 3 more slices and resize it to (64, 64, 35) where it is not (64, 64, 32)."""
    (x, y, z), (width, height, depth) = box
    cut = volume[x : x + width, y : y + height, z : z + depth + 3]
    if (width, height, depth) != (64, 64, 32):
        cut = resize(cut, (64, 64, 35), order=1, anti_aliasing=True, preserve_range=True)
    return cut


def tissue(cut: np.ndarray) -> float:
    """Per voxel of the first 32 slices: 1 if it is at least -150 HU, else 0.5 if the next in z is, else 0."""
    threshold = (TISSUE_HU - HU_MIN) / (HU_MAX - HU_MIN)
    total = 0.0
    for x in range(64):
        for y in range(64):
            for z in range(32):
                if cut[x, y, z] >= threshold:
                    total += 1
                elif cut[x, y, z + 1] >= threshold:
                    total += 0.5
    return total


def draw_pair(volume: np.ndarray, rng: np.random.Generator) -> tuple[Box, Box, np.ndarray]:
    """Draw until the boxes overlap enough and neither crop holds too much tissue: boxes, (2, 64, 64, 32)."""
    while True:
        a, b = draw_box(volume.shape, rng), draw_box(volume.shape, rng)
        if iou(a, b) <= 0.25:
            continue
        cuts = [crop(volume, a), crop(volume, b)]
        if tissue(cuts[0]) > 0.15 * np.prod(a[1]) or tissue(cuts[1]) > 0.15 * np.prod(b[1]):
            continue
        return a, b, np.stack(cuts)[..., :32]
