"""A chest X-ray sample of PCRLv2 as plainly as it can be said: PIL in RGB, torchvision's transforms one by one."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torchvision import transforms

from benchmarks.literal.chest_sample import SIZE, blur, cutout, normalise

LOCAL_SIZE, LOCAL_VIEWS = 96, 6

turn = [transforms.RandomRotation(10), transforms.RandomHorizontalFlip(0.5)]
recolour = [
    transforms.RandomGrayscale(0.2),
    transforms.RandomApply([blur], 0.5),
    transforms.ColorJitter(0.4, 0.4, 0.4, 0.4),
]
spatial = transforms.Compose([transforms.RandomResizedCrop(SIZE, scale=(0.3, 1.0)), *turn])
distort = transforms.Compose(recolour)
local_view = transforms.Compose(
    [transforms.RandomResizedCrop(LOCAL_SIZE, scale=(0.05, 0.3)), *turn, *recolour, normalise]
)


def sample(path: Path) -> dict[str, torch.Tensor]:
    """The views of one image, with the target of the first one, and its local views."""
    image = Image.open(path).convert("RGB")
    result = {}
    for number in ("1", "2"):
        turned = spatial(image)
        result["gt" + number] = normalise(turned)
        result["input" + number] = cutout(normalise(distort(turned)))
    result["locals"] = torch.stack([local_view(image) for _ in range(LOCAL_VIEWS)])
    return result
