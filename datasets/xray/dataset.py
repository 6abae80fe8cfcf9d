"""What all data sets of X-rays have in common: files, and the pixels of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from datasets.xray.images import read_image
from datasets.xray.store import store_of
from utils.errors import UserError


class XRays(Dataset[dict[str, Tensor]]):
    """X-rays by (epoch, index of the image). ``files``: paths of images, or all in one store."""

    def __init__(self, files: Sequence[str | Path], channels: int) -> None:
        """UserError unless ``channels``, of a view, are 1 or 3."""
        if channels not in (1, 3):
            raise UserError(f"X-rays are read with 1 or 3 channels, not {channels}")
        self.files = [str(file) for file in files]
        self.store = store_of(self.files[0]) if self.files else None
        self.channels = channels

    def __len__(self) -> int:
        return len(self.files)

    def pixels(self, index: int) -> np.ndarray:
        """uint8, (height, width) if grey, (height, width, 3) if RGB; UserError, naming the file, if it is no image."""
        path = self.files[index]
        return self.store.read(path) if self.store else read_image(path)
