"""What finishes views otherwise on a GPU, where the host must not wait, gives the same views."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datasets.transforms.batched import gather_transforms, transform
from datasets.transforms.spatial import SpatialTransform


@pytest.mark.parametrize("shape", [(4, 4, 3), (6, 4, 2)])
def test_transforms_by_one_gather(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    codes = torch.from_numpy(np.stack([SpatialTransform.sample(shape, rng).code for _ in range(40)]))
    images = torch.rand(40, *shape)
    assert torch.equal(gather_transforms(images, codes), transform(images, codes))
