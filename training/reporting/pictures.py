"""Pictures of what the networks see and reconstruct."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from utils.image_grid import Picture, Windows, draw_sheet, middle_slices

SAMPLES_2D = 3


def _rows(images: Mapping[str, Tensor], label: str, windows: Windows) -> list[list[Picture]]:
    """One sample: a row (2D), or one for each middle slice (3D); a column per named image, of its first channel."""
    arrays = {name: image[0].detach().float().cpu().numpy() for name, image in images.items()}
    columns = {name: _pictures(array) for name, array in arrays.items()}
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


def draw_reconstructions(
    images: Mapping[str, Tensor],
    windows: Windows,
    title: str,
    path: str | Path,
    headings: Mapping[str, str],
) -> None:
    """Write a PNG of the first samples of a batch, of the first one alone in 3D.

    ``images``: named, (B, C, H, W) or (B, C, X, Y, Z). ``windows``: the values shown black and white.
    ``headings``: of the images whose names do not say enough.
    """
    batch = next(iter(images.values()))
    shown = min(SAMPLES_2D, len(batch)) if batch.dim() == 4 else 1
    headed = {headings.get(name, name): image for name, image in images.items()}
    samples = {f"sample {i + 1}": {name: image[i] for name, image in headed.items()} for i in range(shown)}
    draw_samples(samples, windows, title, path)
