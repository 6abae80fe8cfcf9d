"""Pictures of what the networks see and reconstruct."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from utils.image_grid import LARGE_POINTS, Picture, Windows, draw_sheet, middle_slices

SAMPLES = 3
AXIAL = "axial"  # the slice that is shown of a crop


def _grey(image: Tensor) -> np.ndarray:
    """The first channel of an image (C, ...)."""
    return image[0].detach().float().cpu().numpy()


def _rows(images: Mapping[str, Tensor], label: str, windows: Windows) -> list[list[Picture]]:
    """One sample: a row (2D), or one for each middle slice (3D); a column per named image, of its first channel."""
    columns = {name: _pictures(_grey(image)) for name, image in images.items()}
    rows = []
    for number, slice_name in enumerate(next(iter(columns.values()))):
        row = [replace(each[slice_name], title=name, window=windows.of(name)) for name, each in columns.items()]
        words = [label] * (number == 0) + [slice_name] * (slice_name != "")
        rows.append([replace(row[0], label="\n".join(words)), *row[1:]])
    return rows


def _pictures(array: np.ndarray) -> dict[str, Picture]:
    return middle_slices(array) if array.ndim == 3 else {"": Picture(array)}


def draw_samples(samples: Mapping[str, Mapping[str, Tensor]], windows: Windows, title: str, path: str | Path) -> None:
    """Write a PNG: the samples one below the other, by their labels; a column per named image.

    Images: (C, H, W) or (C, X, Y, Z), of which three slices are shown. ``windows``: the values shown black and white.
    """
    first, *others = [row for label, images in samples.items() for row in _rows(images, label, windows)]
    untitled = [[replace(picture, title="") for picture in row] for row in others]
    draw_sheet([first, *untitled], windows.others, title, path)


def _grid(images: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    """Row -> column -> the name of the picture, ``row: column``; what has no row is in one without a name."""
    rows: dict[str, dict[str, str]] = {}
    for name in images:
        row, _, column = name.rpartition(": ")
        rows.setdefault(row, {})[column] = name
    return rows


def draw_reconstructions(images: Mapping[str, Tensor], windows: Windows, title: str, path: str | Path) -> None:
    """Write a PNG of the first samples of a batch, in 3D of their middle axial slices.

    ``images``: by ``row: column`` or by column alone, (B, C, H, W) or (B, C, X, Y, Z). ``windows``: the values shown
    black and white.
    """
    grid = _grid(images)
    batch = next(iter(images.values()))
    sheet: list[list[Picture]] = []
    for sample in range(min(SAMPLES, len(batch))):
        for row, columns in grid.items():
            pictures = []
            for column, name in columns.items():
                array = _grey(images[name][sample])
                picture = middle_slices(array)[AXIAL] if array.ndim == 3 else Picture(array)
                pictures.append(replace(picture, title="" if sheet else column, window=windows.of(name)))
            label = f"{sample + 1}: {row}" if row else f"sample {sample + 1}"
            sheet.append([replace(pictures[0], label=label), *pictures[1:]])
    slices = ", axial slices" if batch.dim() == 5 else ""
    draw_sheet(sheet, windows.others, f"{title}{slices}", path, LARGE_POINTS)


def strip(images: Tensor, window: tuple[float, float]) -> np.ndarray:
    """The first samples of (B, C, ...) side by side, grey as uint8 (height, width, 3); of volumes the axial slice."""
    parts = []
    for image in images[:SAMPLES]:
        array = _grey(image)
        parts.append(middle_slices(array)[AXIAL].pixels if array.ndim == 3 else array)
    low, high = window
    grey = np.clip((np.hstack(parts) - low) / (high - low), 0, 1)
    return np.repeat(np.nan_to_num(255 * grey).astype(np.uint8)[..., None], 3, axis=2)
