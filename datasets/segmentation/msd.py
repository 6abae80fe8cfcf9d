"""3D segmentation: volumes prepared once, and patches of them by (epoch, index)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from datasets.ct.data_files import data_files
from datasets.segmentation.files import Case, read_case
from datasets.transforms.affine import Affine
from utils.errors import UserError, reason
from utils.files import atomic_path
from utils.hashes import hash_of_ends
from utils.npy import read_array
from utils.seeding import generator
from utils.text import counted

PERCENTILES = (0.5, 99.5)  # of a volume that is not CT: they become 0 and 1
FOREGROUND_SHARE = 1 / 3  # of the patches, centred on a voxel of a class drawn uniformly (as in nnU-Net)
PLACES = 10_000  # voxels of each class that are remembered to centre patches on
GAMMA = (0.7, 1.5)
RECIPE = 1  # to be raised when the same recipe no longer gives the same volumes


@dataclass(frozen=True)
class Recipe:
    """``spacing_mm``: of the voxels that the network sees, x, y, z. ``windows``: for each channel the values that
    become 0 and 1 (Hounsfield units of a CT), or None: the volume's percentiles 0.5 and 99.5.
    """

    spacing_mm: tuple[float, ...]
    windows: tuple[tuple[float, float] | None, ...]


@dataclass(frozen=True)
class Volume:
    """A case as the network sees it: ``image`` float16 (C, X, Y, Z) in 0..1, ``label`` uint8 (X, Y, Z).

    ``truth``: the label on the grid of the file, which results are computed on. ``places``: for each class that there
    is but background, up to 10,000 of its voxels, (n, 3). ``files``: of the image.
    """

    name: str
    image: np.ndarray
    label: np.ndarray
    truth: np.ndarray
    places: list[np.ndarray]
    files: tuple[Path, ...] = ()


def load_volume(case: Case, recipe: Recipe, cache: Path | None) -> Volume:
    """Prepare a case; with a ``cache`` folder, only once, and its arrays are then mapped from files there."""
    arrays = None
    if cache is not None:
        key = _key(case, recipe)
        paths = {name: cache / f"{case.name}_{key}_{name}.npy" for name in ("image", "label", "truth")}
        if not all(path.is_file() for path in paths.values()):
            for name, array in _prepare(case, recipe).items():
                try:
                    with atomic_path(paths[name]) as temporary, temporary.open("wb") as file:
                        np.save(file, array, allow_pickle=False)
                except OSError as error:
                    raise UserError(f"--cache {cache}: {paths[name].name} cannot be written: {reason(error)}") from None
        try:
            arrays = {name: read_array(path, mapped=True) for name, path in paths.items()}
        except (OSError, ValueError) as error:
            raise UserError(f"--cache {cache}: the files of {case.name} are damaged ({error}); delete them") from None
    arrays = arrays or _prepare(case, recipe)
    return Volume(case.name, **arrays, places=_places(case.name, arrays["label"]), files=case.images)


def _key(case: Case, recipe: Recipe) -> str:
    """What a prepared volume depends on, as a name; of files more than size and time, which copies may share."""
    headers = (*case.images, case.label)
    files = [path for header in headers for path in (header, *data_files(header)) if path.is_file()]
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns, hash_of_ends(path)) for path in files]
    text = json.dumps([RECIPE, dataclasses.asdict(recipe), stats])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _prepare(case: Case, recipe: Recipe) -> dict[str, np.ndarray]:
    raw = read_case(case)
    if len(raw.image) != len(recipe.windows):
        raise UserError(
            f"{case.label.parent.parent}: the case {case.name} has {counted(len(raw.image), 'channel')}, others have "
            f"{len(recipe.windows)}; leave it out, or give all cases the same channels"
        )
    image = prepare_image(raw.image, raw.spacing_mm, recipe)
    label = torch.from_numpy(raw.label)[None, None].float()
    label = F.interpolate(label, size=image.shape[1:], mode="nearest-exact")[0, 0]
    return {"image": image, "label": label.numpy().astype(np.uint8), "truth": raw.label}


def prepare_image(voxels: np.ndarray, spacing_mm: Sequence[float], recipe: Recipe) -> np.ndarray:
    """Channels float32 (C, X, Y, Z) of this spacing -> what the network sees: float16 (C, ...) in 0..1.

    Beside both it needs room for one more channel in float32.
    """
    image = np.empty((len(voxels), *new_shape(voxels.shape[1:], spacing_mm, recipe.spacing_mm)), np.float16)
    for number, window in enumerate(recipe.windows):
        channel = resize(torch.from_numpy(voxels[number : number + 1]), image.shape[1:])[0].numpy()
        low, high = window or np.percentile(channel, PERCENTILES)
        for plane, seen in zip(channel, image[number], strict=True):
            seen[:] = np.clip((plane - low) / (high - low), 0, 1).astype(np.float32) if high > low else 0
    return image


def new_shape(shape: Sequence[int], old_mm: Sequence[float], new_mm: Sequence[float]) -> tuple[int, ...]:
    """Voxels (x, y, z) of a volume at another spacing: n * old / new, rounded, one at least."""
    axes = zip(shape, old_mm, new_mm, strict=True)
    return tuple(max(1, round(n * old / new)) for n, old, new in axes)


def resize(image: Tensor, shape: Sequence[int]) -> Tensor:
    """(C, X, Y, Z) -> (C, *shape), linearly; the volume's outer faces stay where they are."""
    if tuple(image.shape[1:]) == tuple(shape):
        return image
    return F.interpolate(image[None], size=tuple(shape), mode="trilinear", align_corners=False)[0]


def _places(name: str, label: np.ndarray) -> list[np.ndarray]:
    places = []
    for number in np.unique(label[label > 0]):
        voxels = np.flatnonzero(label == number)
        if len(voxels) > PLACES:
            voxels = np.sort(generator(0, "places", name, int(number)).choice(voxels, PLACES, replace=False))
        places.append(np.stack(np.unravel_index(voxels, label.shape), axis=1).astype(np.int32))
    return places


class Patches(Dataset[dict[str, Tensor]]):
    """Patches of volumes, ``per_case`` of each in an epoch, by (epoch, index).

    A sample holds ``image`` float32 (C, *shape) and ``label`` uint8 (1, *shape). A third of the patches is centred on
    foreground. Augmented by a rotation of up to 10 degrees about each axis, a scaling by 0.9 to 1.1, a flip of left
    and right if ``mirror``, and a gamma of 0.7 to 1.5. A sample depends on the seed and on its key alone.
    """

    def __init__(
        self, volumes: Sequence[Volume], shape: tuple[int, int, int], per_case: int, seed: int, mirror: bool
    ) -> None:
        self.volumes, self.shape, self.per_case = list(volumes), shape, per_case
        self.seed, self.mirror = seed, mirror
        Affine.sample(generator(0)).apply(np.zeros((2, 2, 2), np.float32))  # compiled before workers are forked

    def __len__(self) -> int:
        return len(self.volumes) * self.per_case

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        """The sample of this (epoch, index)."""
        epoch, index = key
        rng = generator(self.seed, "msd", epoch, index)
        volume = self.volumes[index // self.per_case]
        start = sample_start(volume, self.shape, rng)
        image, label = augment(
            take(volume.image, start, self.shape).astype(np.float32),
            take(volume.label[None], start, self.shape)[0],
            dataclasses.replace(affine := Affine.sample(rng), flip=affine.flip and self.mirror),
            rng.uniform(*GAMMA),
        )
        return {"image": torch.from_numpy(image), "label": torch.from_numpy(label[None])}


def sample_start(volume: Volume, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """The first voxel of a patch. An axis on which the volume is smaller than the patch has it in its middle."""
    room = np.array(volume.label.shape) - shape
    if volume.places and rng.random() < FOREGROUND_SHARE:
        voxels = volume.places[rng.integers(len(volume.places))]
        start = np.clip(voxels[rng.integers(len(voxels))] - np.array(shape) // 2, 0, np.maximum(room, 0))
    else:
        start = rng.integers(np.maximum(room, 0) + 1)
    return np.where(room < 0, room // 2, start)


def take(array: np.ndarray, start: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The part (C, *shape) of ``array`` (C, X, Y, Z) from voxel ``start`` on, which may lie outside: 0 there."""
    end = start + shape
    low, high = np.maximum(start, 0), np.minimum(end, array.shape[1:])
    inside = (slice(None), *map(slice, low, high))
    return np.pad(array[inside], [(0, 0), *zip(low - start, end - high, strict=True)])


def augment(image: np.ndarray, label: np.ndarray, affine: Affine, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """``image`` float32 (C, X, Y, Z) in 0..1 and ``label`` uint8 (X, Y, Z), transformed alike.

    A voxel gets the class that has the largest part of it; outside of the patch lies background.
    """
    image = np.stack([affine.apply(channel) for channel in image]) ** np.float32(gamma)
    classes = [number for number in np.unique(label) if number]
    shares = np.stack([affine.apply((label == number).astype(np.float32)) for number in classes]) if classes else None
    if shares is None:
        return image, np.zeros_like(label)
    best = np.concatenate([1 - shares.sum(axis=0, keepdims=True), shares]).argmax(axis=0)
    return image, np.array([0, *classes], np.uint8)[best]
