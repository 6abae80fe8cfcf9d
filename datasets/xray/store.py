"""A store of decoded X-rays: 8-bit pixels in a few large files, mapped into memory. Free of torch.

``preprocess/chest_store.py`` makes it, once, so that training need not decode each image in every epoch. In
its folder are

- ``store.json``: the version of this format, the ``size`` that images were reduced to (null: none), and their
  ``names``, which are paths below the folder they came from,
- ``shard_00000.bin`` and so on: the pixels of 128 images each, one after the other,
- ``shard_00000.npy`` and so on: int64 (images, 4), each image's first byte in it, height, width, and channels (1
  or 3; 0 if the image could not be read and is not there),
- ``shard_00000.json`` and so on: of which files they were made, which training does not read.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from utils import json_text
from utils.errors import UserError
from utils.npy import read_array

DESCRIPTION = "store.json"
FORMAT = 1
IMAGES_PER_SHARD = 128
REMEDY = "make it with preprocess/chest_store.py, which goes on where it was interrupted"


def is_store(folder: str | Path) -> bool:
    """Whether a folder is a store, complete or not."""
    return os.path.isfile(os.path.join(folder, DESCRIPTION))


def shard_paths(folder: Path, shard: int) -> tuple[Path, Path]:
    """The files of a shard: pixels and index."""
    return folder / f"shard_{shard:05d}.bin", folder / f"shard_{shard:05d}.npy"


def read_index(folder: Path, shard: int, count: int) -> np.ndarray | None:
    """The index of a shard of ``count`` images, int64 (count, 4); None if the shard is not whole."""
    pixels, index = shard_paths(folder, shard)
    try:
        entries = read_array(index)
        return entries if _describes(entries, count, pixels.stat().st_size) else None
    except (OSError, ValueError):
        return None


def _describes(entries: np.ndarray, count: int, size: int) -> bool:
    """Whether an index is one of ``count`` images that lie one after the other in ``size`` bytes."""
    if entries.dtype != np.int64 or entries.shape != (count, 4) or (entries < 0).any():
        return False
    lengths, there = entries[:, 1:].prod(axis=1), entries[:, 3] > 0
    return (
        bool((lengths[there] > 0).all())
        and bool(np.isin(entries[:, 3], (0, 1, 3)).all())
        and bool((entries[there, 0] == (np.cumsum(lengths) - lengths)[there]).all())
        and lengths.sum() == size
    )


class Store:
    """The images of a complete store, by their names.

    An image is known to the outside by the path that it would have as a file: the folder and its name.
    """

    def __init__(self, folder: str | Path) -> None:
        """Raises UserError if the store is not complete."""
        self.folder = Path(folder)
        names = self._described_names()
        indices = []
        for shard, first in enumerate(range(0, len(names), IMAGES_PER_SHARD)):
            index = read_index(self.folder, shard, len(names[first : first + IMAGES_PER_SHARD]))
            if index is None:
                raise UserError(f"the store {folder} is incomplete, at {shard_paths(Path(), shard)[0]}: {REMEDY}")
            indices.append(index)
        self._entries = np.concatenate(indices) if indices else np.zeros((0, 4), np.int64)
        self._numbers = {name: number for number, name in enumerate(names) if self._entries[number, 3]}
        self._shards: dict[int, np.ndarray] = {}

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        """Another process maps the files itself, instead of being sent their content."""
        return Store, (self.folder,)

    def _described_names(self) -> list[str]:
        path = self.folder / DESCRIPTION
        try:
            description = json_text.parse(path.read_text(encoding="utf-8"))
            if description["format"] != FORMAT:
                raise ValueError(f"it has the format {description['format']}, not {FORMAT}")
            names = description["names"]
            if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
                raise ValueError("its names are no list of texts")
            if len(set(names)) < len(names):
                raise ValueError("a name is in it twice")
            return names
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} does not describe a store: {error}; {REMEDY}") from error

    @property
    def names(self) -> list[str]:
        """The images there are: their paths below the folder they came from."""
        return list(self._numbers)

    def files(self, path: str) -> tuple[Path, Path]:
        """The files that have the image of this path, and others: those of its shard."""
        return shard_paths(self.folder, self._numbers[os.path.relpath(path, self.folder)] // IMAGES_PER_SHARD)

    def read(self, path: str) -> np.ndarray:
        """The image of this path, uint8 (height, width) or (height, width, 3), mapped, read-only.

        Only what is then looked at is read from the disk.
        """
        number = self._numbers[os.path.relpath(path, self.folder)]
        start, height, width, channels = self._entries[number].tolist()
        pixels = self._shard(number // IMAGES_PER_SHARD)[start : start + height * width * channels]
        return pixels.reshape((height, width) if channels == 1 else (height, width, channels))

    def _shard(self, shard: int) -> np.ndarray:
        if shard not in self._shards:
            pixels, _ = shard_paths(self.folder, shard)
            try:
                self._shards[shard] = np.asarray(np.memmap(pixels, np.uint8, "r"))
            except (OSError, ValueError) as error:
                raise UserError(f"{pixels} cannot be read: {error}; {REMEDY}") from error
        return self._shards[shard]


def store_of(path: str) -> Store | None:
    """The store that an image of this path is in; None if it is a file of its own."""
    return next((Store(folder) for folder in Path(path).parents if is_store(folder)), None)
