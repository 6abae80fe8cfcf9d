"""The boxes and the local crops of PCRLv2."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from skimage.transform import resize

from preprocess.volumes.crops import Window, draw_pairs, iou, overlapping_pairs
from preprocess.volumes.crops_v2 import (
    BOXES,
    LOCAL_BOXES,
    LOCALS,
    MIN_IOU,
    CropsV2,
    cut_local,
    draw_locals,
    feasible_boxes_v2,
    region,
    with_locals,
)

HU = Window(-1000, 1000, None)
PAIR = np.array([[80, 90, 20], [100, 80, 30]]), np.array([[96, 96, 64], [64, 64, 32]])


def test_pairs_have_the_published_boxes_and_overlap_enough() -> None:
    boxes = feasible_boxes_v2((360, 340, 333))
    assert [tuple(size) for size in boxes.sizes] == list(BOXES)
    found = list(itertools.islice(overlapping_pairs(boxes, np.random.default_rng(0), MIN_IOU), 300))
    overlaps = iou(*map(np.array, zip(*found, strict=True)))
    assert overlaps.min() > 0.3
    assert overlaps.min() < 0.31


def test_local_boxes_start_in_the_union_and_its_margin() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_locals(*PAIR, (300, 300, 300), rng) for _ in range(3000)]
    starts = np.concatenate([starts for starts, _ in drawn])
    assert starts.min(axis=0).tolist() == [77, 77, 17]
    assert starts.max(axis=0).tolist() == [178, 188, 86]  # ends of the union are 176, 186, 84, then 3, the last not
    assert starts.mean(axis=0) == pytest.approx([127.5, 132.5, 51.5], abs=1)
    sizes, counts = np.unique(np.concatenate([sizes for _, sizes in drawn]), axis=0, return_counts=True)
    assert sizes.tolist() == sorted(LOCAL_BOXES.tolist())
    assert counts / counts.sum() == pytest.approx([0.25] * 4, abs=0.015)
    near_the_end = np.concatenate([draw_locals(*PAIR, (177, 187, 85), rng)[0] for _ in range(500)])
    assert near_the_end.max(axis=0).tolist() == [176, 186, 84], "within the scan"
    at_the_start = np.concatenate([draw_locals(PAIR[0] * 0, PAIR[1], (300, 300, 300), rng)[0] for _ in range(500)])
    assert at_the_start.min(axis=0).tolist() == [0, 0, 0]


@pytest.mark.parametrize("size", LOCAL_BOXES.tolist())
def test_a_local_crop_is_clipped_resized_and_shorter_at_the_end(size: list[int]) -> None:
    rng = np.random.default_rng(0)
    scan = rng.uniform(-1500, 1500, (60, 50, 40)).astype(np.float32)
    for start in ([3, 4, 5], [45, 45, 39]):
        x, y, z = start
        box = scan[x : x + size[0], y : y + size[1], z : z + size[2]]
        expected = (resize(np.clip(box, -1000, 1000), (16, 16, 16), order=1, preserve_range=True) + 1000) / 2000
        crop = cut_local(scan, np.array(start), np.array(size), HU)
        assert crop.dtype == np.float32
        np.testing.assert_allclose(crop, expected, atol=1e-5)


def test_crops_of_a_part_are_those_of_the_whole_scan() -> None:
    shape = (150, 150, 120)
    scan = np.random.default_rng(1).integers(-1000, -200, shape).astype(np.int16)
    boxes = feasible_boxes_v2(shape)
    low, high = region(boxes, shape)
    assert (low >= 0).all()
    assert (high <= shape).all()
    part = scan[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]

    def drawn(volume: np.ndarray, origin: np.ndarray) -> list[CropsV2]:
        rng = np.random.default_rng(0)
        pairs = draw_pairs(volume, origin, boxes, (64, 64, 32), HU, 3, rng, min_iou=MIN_IOU)
        return list(with_locals(pairs, volume, origin, shape, HU, rng))

    of_part, of_scan = drawn(part, low), drawn(scan, low * 0)
    assert len(of_part) == 3
    for ours, theirs in zip(of_part, of_scan, strict=True):
        assert ours.pair.crops.shape == (2, 64, 64, 32)
        assert ours.crops.shape == (LOCALS, 16, 16, 16)
        assert np.array_equal(ours.pair.crops, theirs.pair.crops)
        assert np.array_equal(ours.crops, theirs.crops)
        assert 0 <= ours.crops.min() <= ours.crops.max() <= 1
        assert iou(ours.pair.starts, ours.pair.sizes) > MIN_IOU
