"""A chest X-ray sample as plainly as it can be said: PIL in RGB, torchvision's transforms one by one.

The baseline that ``datasets/xray/chest.py`` is timed against. It draws from the global generators and is made to
be read, not to be fast.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision import transforms

SIZE = 224
HOLES, HOLE_SIDE = 3, 32


def blur(image: Image.Image) -> Image.Image:
    """PIL's Gaussian blur with a radius uniform in 0.1..2 pixels."""
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


crop = transforms.RandomResizedCrop(SIZE, scale=(0.2, 1.0))
distort = transforms.Compose(
    [
        transforms.RandomRotation(10),
        transforms.RandomHorizontalFlip(0.5),
        transforms.RandomGrayscale(0.2),
        transforms.RandomApply([blur], 0.5),
        transforms.ColorJitter(0.4, 0.4, 0.4, 0.4),
    ]
)
normalise = transforms.Compose(
    [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
)


def cutout(image: torch.Tensor) -> torch.Tensor:
    """(3, SIZE, SIZE) times a mask with three square holes around uniform centres."""
    mask = np.ones((SIZE, SIZE), np.float32)
    for _ in range(HOLES):
        y, x = np.random.randint(SIZE), np.random.randint(SIZE)  # noqa: NPY002
        top, bottom = np.clip([y - HOLE_SIDE // 2, y + HOLE_SIDE // 2], 0, SIZE)
        left, right = np.clip([x - HOLE_SIDE // 2, x + HOLE_SIDE // 2], 0, SIZE)
        mask[top:bottom, left:right] = 0
    return image * torch.from_numpy(mask).expand_as(image)


def spatial(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The image after random flips and quarter turns, and the code of what was done, float32 (6,)."""
    code = torch.zeros(6)
    if random.random() < 0.5:
        image, code[0] = torch.flip(image, [1]), 1
    if random.random() < 0.5:
        image, code[1] = torch.flip(image, [2]), 1
    turns = random.randint(0, 3)
    code[2 + turns] = 1
    return torch.rot90(image, turns, [1, 2]), code


def sample(path: Path) -> dict[str, torch.Tensor]:
    """The seven tensors of step one of PCRL from one image: two views, their targets, crops and codes."""
    image = Image.open(path).convert("RGB")
    result = {}
    for number in ("1", "2"):
        cropped = crop(image)
        result["gt" + number] = normalise(cropped)
        result["input" + number] = cutout(normalise(distort(cropped)))
        result["mask" + number], result["aug" + number] = spatial(result["input" + number])
    return result
