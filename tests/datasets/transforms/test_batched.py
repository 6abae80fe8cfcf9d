"""The batched augmentation against the one for single crops, given the same parameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets.transforms import batched
from datasets.transforms.affine import Affine
from datasets.transforms.crops import CropAugmentation, sample_pair
from datasets.transforms.spatial import SpatialTransform
from utils.seeding import generator

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def augmented(
    crops: np.ndarray, augmentations: list[CropAugmentation], device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    packed = [batched.parameters(augmentation, crops.shape[1:]) for augmentation in augmentations]
    stacked = {name: torch.from_numpy(np.stack([one[name] for one in packed])).to(device) for name in packed[0]}
    images, targets = batched.augment(torch.from_numpy(crops).to(device), stacked)
    return images.cpu().numpy(), targets.cpu().numpy()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("shape", "pairs"), [((64, 64, 32), 3), ((32, 32, 16), 8), ((24, 40, 14), 8)])
def test_equals_the_augmentation_of_single_crops(shape: tuple[int, ...], pairs: int, device: str) -> None:
    rng = generator(0, *shape)
    augmentations = [one for _ in range(pairs) for one in sample_pair(shape, rng)]
    crops = (0.25 + 0.5 * rng.random((2 * pairs, *shape))).astype(np.float32)
    assert {one.shuffling is None for one in augmentations} == {True, False}
    images, targets = augmented(crops, augmentations, device)
    for crop, one, image, target in zip(crops, augmentations, images, targets, strict=True):
        expected_image, expected_target = one.apply(crop)
        np.testing.assert_allclose(image, expected_image, rtol=0, atol=1e-6)
        np.testing.assert_allclose(target, expected_target, rtol=0, atol=1e-6)


def test_every_kind_of_painting_occurs_and_agrees() -> None:
    shape = (16, 16, 14)
    rng = generator(1)
    augmentations = [replace(one, shuffling=None) for _ in range(150) for one in sample_pair(shape, rng)]
    kinds = {None if one.painting is None else one.painting.inside for one in augmentations}
    boxes = {one.painting.sides.shape[1] for one in augmentations if one.painting is not None}
    assert kinds == {None, True, False}
    assert {0, 5} <= boxes
    crops = rng.random((len(augmentations), *shape), dtype=np.float32)
    images, targets = augmented(crops, augmentations)
    expected = [one.apply(crop) for crop, one in zip(crops, augmentations, strict=True)]
    np.testing.assert_allclose(images, np.stack([image for image, _ in expected]), rtol=0, atol=1e-6)
    np.testing.assert_allclose(targets, np.stack([target for _, target in expected]), rtol=0, atol=1e-6)


def test_every_spatial_transform() -> None:
    shape = (14, 14, 15)
    codes = [(flips, turns) for flips in np.ndindex(2, 2, 2) for turns in range(4)]
    base = sample_pair(shape, generator(0))[0]
    augmentations = [
        CropAugmentation(
            affine=Affine(False, np.ones(3), np.zeros(3)),
            blur=base.blur,
            shuffling=None,
            painting=None,
            spatial=SpatialTransform(tuple(bool(flip) for flip in flips), turns),
        )
        for flips, turns in codes
    ]
    crops = generator(0).random((len(codes), *shape), dtype=np.float32)
    images, targets = augmented(crops, augmentations)
    for one, image, target in zip(augmentations, images, targets, strict=True):
        np.testing.assert_array_equal(one.spatial.apply(image), target)


def test_large_batches_are_done_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (20, 20, 20)
    rng = generator(0)
    augmentations = [one for _ in range(4) for one in sample_pair(shape, rng)]
    crops = rng.random((8, *shape), dtype=np.float32)
    whole = augmented(crops, augmentations)
    monkeypatch.setattr(batched, "VOXELS_AT_ONCE", 3 * 8 * 10_000)
    in_parts = augmented(crops, augmentations)
    np.testing.assert_array_equal(whole[0], in_parts[0])
    np.testing.assert_array_equal(whole[1], in_parts[1])
