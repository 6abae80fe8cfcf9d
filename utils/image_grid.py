"""Sheets of grey pictures, to look at: rows and columns of images or of slices through volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from utils.files import atomic_path

SIDE, GAP, DPI = 209, 10, 110  # the width of a picture, the space between two, in pixels
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
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: it takes a second to import
    from matplotlib.figure import Figure

    # matplotlib draws the texts alone: an axis for each picture would take it ten times as long.
    line = round(1.4 * points * DPI / 72)
    columns = max(map(len, rows))
    beside = [line * max(_lines(row[column].label) for row in rows if column < len(row)) for column in range(columns)]
    above = [line * max(_lines(picture.title) for picture in row) for row in rows]
    heights = [max(1, round(SIDE * max(picture.height for picture in row))) for row in rows]
    head = 2 * line * _lines(title)
    width = sum(beside) + columns * (SIDE + GAP) + GAP
    height = head + sum(above) + sum(heights) + GAP * (len(rows) + 1)
    canvas = np.full((height, width), 255, np.uint8)
    figure = Figure(figsize=((width + 0.5) / DPI, (height + 0.5) / DPI), dpi=DPI)  # matplotlib rounds down

    def write(words: str, x: float, y: float, **how: Any) -> None:
        if words:  # a $ in a file's name is no formula
            figure.text(x / width, 1 - y / height, words, parse_math=False, multialignment="center", **how)

    write(title, width / 2, GAP, fontsize=points + 3, ha="center", va="top")
    top = head + GAP
    for row, title_height, row_height in zip(rows, above, heights, strict=True):
        top, left = top + title_height, GAP
        for picture, label_width in zip(row, beside, strict=False):
            left += label_width
            pixels = _grey(picture, picture.window or window)
            middle = top + (row_height - len(pixels)) // 2
            canvas[middle : middle + len(pixels), left : left + SIDE] = pixels
            write(picture.title, left + SIDE / 2, middle - 4, fontsize=points, ha="center", va="bottom")
            where = {"ha": "right", "va": "center", "rotation": 90}
            write(picture.label, left - 4, middle + len(pixels) / 2, fontsize=points - 1, **where)
            left += SIDE + GAP
        top += row_height + GAP
    texts = FigureCanvasAgg(figure)
    texts.draw()
    canvas = np.minimum(canvas, np.asarray(texts.buffer_rgba())[..., 0])  # black on white
    with atomic_path(path) as temporary:
        Image.fromarray(canvas).save(temporary, format="PNG", dpi=(DPI, DPI))


def _lines(words: str) -> int:
    return len(words.splitlines())


def _grey(picture: Picture, window: Window) -> np.ndarray:
    """The picture's pixels at the size of the sheet, ``SIDE`` wide, as uint8; what is no number is white."""
    rows, columns = picture.pixels.shape
    height = max(1, round(SIDE * picture.height))
    low, high = window
    down, across = np.arange(height) * rows // height, np.arange(SIDE) * columns // SIDE
    pixels = picture.pixels[down[:, None], across].astype(np.float64)
    grey = np.clip((pixels - low) / ((high - low) or 1), 0, 1)
    return np.rint(255 * np.nan_to_num(grey, nan=1.0)).astype(np.uint8)
