"""Sheets of grey pictures, to look at: rows and columns of images or of slices through volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

import numpy as np

from utils.files import atomic_path

INCHES, DPI = 1.9, 110  # of a picture
POINTS, LARGE_POINTS = 9, 12  # of its title; large: where a sheet is shown at half its size
Window = tuple[float, float]  # the values shown black and white


@dataclass(frozen=True)
class Windows:
    """``others``: the window of each picture whose name begins with no word of ``own``, which have one each."""

    others: Window
    own: Mapping[str, Window] = field(default_factory=dict)

    def of(self, name: str) -> Window:
        """The window of the picture of this name."""
        return next((window for word, window in self.own.items() if name.startswith(word)), self.others)


@dataclass(frozen=True)
class Picture:
    """``pixels``: (rows, columns), the first row on top. ``aspect``: a pixel's height over its width.

    ``title`` stands above the picture, ``label`` to its left. ``window``: None for that of the sheet.
    """

    pixels: np.ndarray
    aspect: float = 1.0
    title: str = ""
    label: str = ""
    window: Window | None = None

    @property
    def height(self) -> float:
        """Of the picture, where its width is 1."""
        rows, columns = self.pixels.shape
        return rows * self.aspect / columns


def shortened(name: str, longest: int = 24) -> str:
    """A name that fits beside a picture: of a long one the beginning and, longer, the end, where names differ."""
    return name if len(name) <= longest else f"{name[: longest // 3]}...{name[-(longest - longest // 3 - 3) :]}"


def middle_slices(volume: np.ndarray, voxel_mm: Sequence[float] = (1.0, 1.0, 1.0)) -> dict[str, Picture]:
    """Volume (X, Y, Z) -> its three middle slices, by name, as radiologists look at them.

    x runs to the patient's left, y to the back, z to the head: so the picture's right is the patient's left, the
    front is on top of the axial slice, and the head on top of the others.
    """
    x, y, z = (size // 2 for size in volume.shape)
    width, depth, height = voxel_mm
    return {
        "axial": Picture(volume[:, :, z].T, depth / width),
        "coronal": Picture(volume[:, y, ::-1].T, height / width),
        "sagittal": Picture(volume[x, :, ::-1].T, height / depth),
    }


def upright(
    volume: np.ndarray, voxel_mm: np.ndarray, direction: np.ndarray
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Turn a volume and its voxel size so that x runs to the patient's left, y to the back and z to the head.

    ``direction``: column a is the way that axis a runs in the world (ITK: left, back, head). Axes that run at an
    angle are taken for the nearest ones.
    """
    order = max(permutations(range(3)), key=lambda axes: sum(abs(direction[world, a]) for world, a in enumerate(axes)))
    steps = (slice(None, None, -1 if direction[world, axis] < 0 else 1) for world, axis in enumerate(order))
    x, y, z = (float(voxel_mm[axis]) for axis in order)
    return volume.transpose(order)[tuple(steps)], (x, y, z)


def draw_sheet(
    rows: Sequence[Sequence[Picture]], window: Window, title: str, path: str | Path, points: int = POINTS
) -> None:
    """Write the pictures as a PNG. ``window``: of those that have none of their own. ``points``: size of the titles."""
    from matplotlib.figure import Figure  # late: it takes a second to import

    columns = max(map(len, rows))
    heights = [max(picture.height for picture in row) for row in rows]
    size = (INCHES * columns + 0.3, INCHES * sum(heights) + 0.2 * len(rows) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=points + 3, parse_math=False)  # a $ in a file's name is no formula
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for axis in grid.flat:
        axis.set_axis_off()
    for line, row in zip(grid, rows, strict=True):
        for axis, picture in zip(line, row, strict=False):
            axis.set_axis_on()
            axis.imshow(picture.pixels, "gray", aspect=picture.aspect, interpolation="nearest")
            axis.images[0].set_clim(*(picture.window or window))
            axis.set(xticks=[], yticks=[])
            axis.set_title(picture.title, fontsize=points, parse_math=False)
            axis.set_ylabel(picture.label, fontsize=points - 1, parse_math=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)
