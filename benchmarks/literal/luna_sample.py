"""A LUNA16 sample as plainly as it can be stated: TorchIO's transforms and Python loops.

The yardstick for the speed of ``datasets.ct.luna``, and a second statement of what it computes. Single numbers
are drawn by Python's ``random``, whole arrays by a numpy generator.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
import torchio

FLIP_AFFINE_BLUR = torchio.Compose([torchio.RandomFlip(axes=0), torchio.RandomAffine(), torchio.RandomBlur()])


def sample(path: Path, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """The two views of one file, with their reconstruction targets, clean crops and spatial codes."""
    pair = np.load(path)
    painted = random.random() < 0.9
    inside = random.random() < 0.2
    tensors: dict[str, torch.Tensor] = {}
    for view, crop in enumerate(pair, start=1):
        image = FLIP_AFFINE_BLUR(torch.from_numpy(crop[None]))[0].numpy()
        if random.random() < 0.5:
            image = shuffle_locally(image, rng)
        if painted:
            image = paint_inside(image, rng) if inside else paint_outside(image, rng)
        target, code = transform_spatially(image)
        tensors[f"input{view}"] = torch.from_numpy(image[None].astype(np.float32))
        tensors[f"mask{view}"] = torch.from_numpy(target[None].astype(np.float32))
        tensors[f"gt{view}"] = torch.from_numpy(crop[None].astype(np.float32))
        tensors[f"aug{view}"] = torch.from_numpy(code)
    return tensors


def shuffle_locally(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Permute the voxels of 10,000 small blocks of the original; later blocks overwrite earlier ones."""
    shuffled = image.copy()
    for _ in range(10_000):
        side_x, side_y, side_z = (random.randint(1, size // 10) for size in image.shape)
        x = random.randint(0, image.shape[0] - side_x)
        y = random.randint(0, image.shape[1] - side_y)
        z = random.randint(0, image.shape[2] - side_z)
        voxels = image[x : x + side_x, y : y + side_y, z : z + side_z].flatten()
        rng.shuffle(voxels)
        shuffled[x : x + side_x, y : y + side_y, z : z + side_z] = voxels.reshape(side_x, side_y, side_z)
    return shuffled


def paint_inside(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise in up to five boxes."""
    painted = image.copy()
    boxes = 0
    while boxes < 5 and random.random() < 0.95:
        sides = [random.randint(size // 6, size // 3) for size in image.shape]
        painted[box_in(image.shape, sides)] = rng.random(sides)
        boxes += 1
    return painted


def paint_outside(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise everywhere but in one to five boxes."""
    painted = rng.random(image.shape)
    boxes = 0
    while boxes == 0 or (boxes < 5 and random.random() < 0.95):
        sides = [size - random.randint(3 * size // 7, 4 * size // 7) for size in image.shape]
        box = box_in(image.shape, sides)
        painted[box] = image[box]
        boxes += 1
    return painted


def box_in(shape: tuple[int, ...], sides: list[int]) -> tuple[slice, ...]:
    """A box with these sides, at least 3 voxels from the border."""
    starts = [random.randint(3, size - side - 3) for size, side in zip(shape, sides, strict=True)]
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def transform_spatially(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Random flips and a quarter turn: the transformed image and its code."""
    code = np.zeros(7, np.float32)
    for axis in range(3):
        if random.random() < 0.5:
            image = np.flip(image, axis)
            code[axis] = 1
    turns = random.randint(0, 3)
    code[3 + turns] = 1
    return np.rot90(image, turns).copy(), code
