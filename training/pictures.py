"""Pictures of what the networks see and reconstruct."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from utils.files import atomic_path

SAMPLES_2D = 3


def _slices(volume: np.ndarray) -> dict[str, np.ndarray]:
    """Volume (X, Y, Z) -> its middle slices as pictures (rows, columns), the first row on top.

    x runs to the patient's left, y to the back, z to the head, so z is turned to put the head on top.
    """
    x, y, z = (size // 2 for size in volume.shape)
    return {
        "axial (x, y)": volume[:, :, z].T,
        "coronal (x, z)": volume[:, y, ::-1].T,
        "sagittal (y, z)": volume[x, :, ::-1].T,
    }


def _rows(image: np.ndarray) -> dict[str, np.ndarray]:
    """Batch (B, C, ...) -> labelled pictures of its first channel."""
    if image.ndim == 5:
        return _slices(image[0, 0])
    return {f"sample {i + 1}": image[i, 0] for i in range(min(SAMPLES_2D, len(image)))}


def draw_reconstructions(
    images: Mapping[str, Tensor], window: tuple[float, float], title: str, path: str | Path
) -> None:
    """Write a PNG: a column per named image, a row per sample (2D) or orthogonal middle slice (3D).

    ``images``: (B, C, H, W) or (B, C, X, Y, Z). ``window``: the values shown black and white, for all alike.
    """
    from matplotlib.figure import Figure  # late: it takes a second to import

    columns = {name: _rows(image.detach().float().cpu().numpy()) for name, image in images.items()}
    labels = list(next(iter(columns.values())))
    figure = Figure(figsize=(1.9 * len(columns), 1.9 * len(labels) + 0.7), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(len(labels), len(columns), squeeze=False)
    for column, (name, pictures) in enumerate(columns.items()):
        axes[0, column].set_title(name, fontsize=8)
        for row, label in enumerate(labels):
            axis = axes[row, column]
            axis.imshow(pictures[label], cmap="gray", vmin=window[0], vmax=window[1], interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if column == 0:
                axis.set_ylabel(label, fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
