"""Boxes, their overlap, the resizing and the tissue rule, against literal computations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from skimage.transform import resize as skimage_resize

from benchmarks.literal import luna_pre as literal
from preprocess.volumes import crops as crops_module
from preprocess.volumes.crops import (
    PUBLISHED_BOXES,
    PUBLISHED_CROP,
    Boxes,
    Window,
    cut,
    cut_pair,
    draw_pairs,
    feasible_boxes,
    iou,
    overlapping_pairs,
    tissue_sum,
)
from tests.examples import examples

HU = Window(-1000, 1000, -150)
shapes = st.tuples(st.integers(1, 420), st.integers(1, 420), st.integers(1, 400))
crops = st.sampled_from([(64, 64, 32), (32, 32, 16), (48, 64, 24), (96, 96, 48)])


def test_large_scans_have_the_published_starts() -> None:
    boxes = feasible_boxes((360, 340, 333))
    assert boxes.sizes.tolist() == [list(size) for size in PUBLISHED_BOXES]
    assert (boxes.first == (70, 70, 15)).all()
    for size, last in zip(PUBLISHED_BOXES, boxes.last, strict=True):
        assert last.tolist() == [360 - size[0] - 71, 340 - size[1] - 71, 333 - size[2] - 19]


def test_narrow_scans_lose_32_in_x_and_y_first() -> None:
    boxes = feasible_boxes((360, 230, 333))  # room for 64 but not for 96 or 112
    assert boxes.sizes.tolist() == [[64, 64, 32], [64, 64, 48], [64, 64, 96], [32, 32, 16], [80, 80, 64]]
    assert boxes.last[:, 1].tolist() == [230 - size - 71 for size in (64, 64, 64, 32, 80)]


@settings(deadline=None, max_examples=examples(300))
@given(shapes, crops)
def test_boxes_lie_inside_and_keep_the_published_rules(shape: tuple[int, ...], crop: tuple[int, ...]) -> None:
    boxes = feasible_boxes(shape, crop)
    found = iter(zip(*boxes, strict=True))
    for published in PUBLISHED_BOXES:
        size = [published[axis] * crop[axis] / PUBLISHED_CROP[axis] for axis in range(3)]
        less = [crop[0] / 2, crop[1] / 2]
        roomy = all(shape[axis] - size[axis] - 71 >= 70 for axis in (0, 1))
        if not roomy and size[0] > less[0] and size[1] > less[1]:
            size = [size[0] - less[0], size[1] - less[1], size[2]]
        if any(size[axis] + (0, 0, 3)[axis] > shape[axis] for axis in range(3)):
            continue  # such a box must be left out
        got, first, last = next(found)
        assert got.tolist() == size
        assert (first >= 0).all()
        assert (first <= last).all()
        assert (last + got + (0, 0, 3) <= shape).all()
        for axis, (below, above) in enumerate(((70, 71), (70, 71), (15, 19))):
            published_last = shape[axis] - size[axis] - above
            if published_last >= below:
                assert (first[axis], last[axis]) == (below, published_last)
    assert next(found, None) is None


def test_a_thin_scan_gives_boxes_that_differ_in_height() -> None:
    boxes = feasible_boxes((512, 512, 40))
    assert boxes.sizes.tolist() == [[64, 64, 32], [32, 32, 16]]
    assert (boxes.last - boxes.first)[:, 2].tolist() == [3, 11]


def test_a_scan_smaller_than_any_box_has_none() -> None:
    assert feasible_boxes((400, 400, 18)).sizes.shape == (0, 3)
    assert len(feasible_boxes((400, 400, 19)).sizes) == 1


@settings(deadline=None, max_examples=examples(60))
@given(st.lists(st.integers(0, 9), min_size=6, max_size=6), st.lists(st.integers(1, 8), min_size=6, max_size=6))
def test_iou_counts_voxels(starts: list[int], sizes: list[int]) -> None:
    grids = np.zeros((2, 20, 20, 20), bool)
    for box in (0, 1):
        (x, y, z), (a, b, c) = starts[3 * box : 3 * box + 3], sizes[3 * box : 3 * box + 3]
        grids[box, x : x + a, y : y + b, z : z + c] = True
    both, either = (grids[0] & grids[1]).sum(), (grids[0] | grids[1]).sum()
    assert iou(np.reshape(starts, (2, 3)), np.reshape(sizes, (2, 3))) == pytest.approx(both / either)


@settings(deadline=None, max_examples=examples(40))
@given(shapes, crops, st.integers(0, 2**32))
def test_pairs_of_any_scan_overlap_and_lie_inside(shape: tuple[int, ...], crop: tuple[int, ...], seed: int) -> None:
    boxes = feasible_boxes(shape, crop)
    if not len(boxes.sizes):
        return
    low, high = boxes.region()
    allowed = set(map(tuple, boxes.sizes.tolist()))
    for starts, sizes in itertools.islice(overlapping_pairs(boxes, np.random.default_rng(seed)), 20):
        a, b = ((tuple(start), tuple(size)) for start, size in zip(starts.tolist(), sizes.tolist(), strict=True))
        assert literal.iou(a, b) > 0.25
        assert {a[1], b[1]} <= allowed
        assert (low >= 0).all()
        assert (high <= shape).all()
        assert (starts >= low).all()
        assert (starts + sizes + (0, 0, 3) <= high).all()


def test_pairs_are_distributed_as_drawn_one_by_one() -> None:
    shape, count = (280, 280, 200), 700
    rng = np.random.default_rng(5)
    plain = []
    while len(plain) < count:
        a, b = literal.draw_box(shape, rng), literal.draw_box(shape, rng)
        if literal.iou(a, b) > 0.25:
            plain.append((*a[0], *a[1], *b[0], *b[1]))
    ours = [
        np.concatenate([starts[0], sizes[0], starts[1], sizes[1]])
        for starts, sizes in itertools.islice(overlapping_pairs(feasible_boxes(shape), rng), 5 * count)
    ]
    for column in (0, 1, 2, 6, 7, 8):  # the starts
        assert stats.ks_2samp(np.array(plain)[:, column], np.array(ours)[:, column]).pvalue > 1e-3
    depths = [16, 32, 48, 64, 96]  # they tell the sizes apart
    for column in (5, 11):
        table = [[np.sum(np.array(rows)[:, column] == depth) for depth in depths] for rows in (plain, ours)]
        assert stats.chi2_contingency(table).pvalue > 1e-3


def test_the_first_draws_of_a_seed_stay_as_they_are() -> None:
    """If this fails, a rerun no longer makes the same files: raise RECIPE in preprocess.jobs.pairs."""
    pairs = overlapping_pairs(feasible_boxes((360, 360, 333)), np.random.default_rng(0))
    assert [np.concatenate(pair).tolist() for pair in itertools.islice(pairs, 2)] == [
        [[79, 163, 240], [105, 172, 226], [96, 96, 48], [112, 112, 64]],
        [[89, 153, 38], [83, 153, 19], [112, 112, 64], [112, 112, 64]],
    ]


def assert_cut_as_by_scikit_image(size: tuple[int, ...], crop: tuple[int, ...]) -> None:
    """Cut a box out of the middle of a larger volume, and the plain way."""
    rng = np.random.default_rng(sum(size))
    volume = rng.uniform(-0.2, 1.2, (size[2] + 8, size[1] + 3, size[0] + 2)).astype(np.float32).T
    box = np.clip(volume[1 : 1 + size[0], 2 : 2 + size[1], 3 : 6 + size[2]].astype(float), 0, 1)
    if tuple(size) != tuple(crop):
        target = (crop[0], crop[1], crop[2] + 3)
        box = skimage_resize(box, target, order=1, anti_aliasing=True, preserve_range=True)
    got = cut(volume, np.array((1, 2, 3)), np.array(size), crop, Window(0, 1, None))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, box[:, :, : crop[2] + 1], atol=1e-6)


@pytest.mark.parametrize("crop", [(64, 64, 32), (32, 32, 16), (48, 64, 24)])
def test_resizing_equals_scikit_image_for_every_box(crop: tuple[int, ...]) -> None:
    sizes = {tuple(size) for shape in ((400,) * 3, (100, 100, 200)) for size in feasible_boxes(shape, crop).sizes}
    assert len(sizes) > 5
    for size in sizes:
        assert_cut_as_by_scikit_image(size, crop)


@settings(deadline=None, max_examples=examples(25))
@given(st.tuples(*[st.integers(1, 60)] * 3), st.tuples(*[st.integers(1, 40)] * 3))
def test_resizing_equals_scikit_image_for_any_size(size: tuple[int, ...], crop: tuple[int, ...]) -> None:
    assert_cut_as_by_scikit_image(size, crop)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
def test_tissue_is_counted_voxel_by_voxel(share: float) -> None:
    tissue = np.random.default_rng(1).random((64, 64, 33)) < share
    hu = np.where(tissue, -150.0, -150.1).astype(np.float32)  # the threshold itself is tissue
    unit = np.where(tissue, (-150 + 1000) / 2000, 0.42)
    assert tissue_sum(hu, -150) == literal.tissue(unit)


def smooth_scan(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """int16 (x, y, z) with values beyond the window, stored as SimpleITK stores it."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(-550, 700, [n // 8 + 1 for n in reversed(shape)])
    return np.kron(coarse, np.ones((8, 8, 8)))[: shape[2], : shape[1], : shape[0]].astype(np.int16).T


def test_a_pair_equals_the_literal_one_and_is_refused_with_it() -> None:
    refused = []
    for seed in (*range(5), 8):  # the last is refused
        scan = smooth_scan((270, 262, 140), seed)
        starts, sizes = next(overlapping_pairs(feasible_boxes(scan.shape), np.random.default_rng(seed)))
        boxes = [(tuple(start), tuple(size)) for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)]
        scaled = literal.scale_hu(scan)
        plain = [literal.crop(scaled, box) for box in boxes]
        too_much = [literal.tissue(crop) > 0.15 * np.prod(size) for crop, size in zip(plain, sizes, strict=True)]
        refused.append(cut_pair(scan, starts, sizes, PUBLISHED_CROP, HU) is None)
        assert refused[-1] == any(too_much)
        pair = cut_pair(scan, starts, sizes, PUBLISHED_CROP, HU._replace(tissue=None))
        assert pair is not None
        assert pair.dtype == np.float32
        assert 0 <= pair.min() <= pair.max() <= 1
        np.testing.assert_allclose(pair, np.stack(plain)[..., :32], atol=1e-5)
    assert set(refused) == {True, False}


def test_a_box_of_the_nominal_size_is_not_touched() -> None:
    scan = smooth_scan((90, 90, 60), 3)
    crop = cut(scan, np.array((5, 6, 7)), np.array((64, 64, 32)), PUBLISHED_CROP, HU)
    np.testing.assert_array_equal(crop, np.clip(scan[5:69, 6:70, 7:40], -1000, 1000))


@settings(deadline=None, max_examples=examples(12), derandomize=True)
@given(st.tuples(st.integers(40, 260), st.integers(40, 260), st.integers(22, 150)), st.integers(0, 99))
def test_pairs_of_any_scan_keep_shape_range_and_number(shape: tuple[int, int, int], seed: int) -> None:
    scan, boxes = smooth_scan(shape, seed), feasible_boxes(shape, (32, 32, 16))
    low, high = boxes.region()
    part = scan[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    drawn = list(draw_pairs(part, low, boxes, (32, 32, 16), HU, 3, np.random.default_rng(seed)))
    pairs = [pair.crops for pair in drawn]
    assert len(pairs) <= 3
    for pair in pairs:
        assert pair.shape == (2, 32, 32, 16)
        assert 0 <= pair.min() <= pair.max() <= 1


def test_where_all_is_tissue_the_draws_end() -> None:
    scan = np.full((205, 205, 66), 40, np.int16)  # too low for 96 x 96 x 96, which holds any tissue
    boxes = feasible_boxes(scan.shape)
    rng = np.random.default_rng(0)
    assert list(draw_pairs(scan, np.zeros(3, int), boxes, PUBLISHED_CROP, HU, 2, rng)) == []


def test_where_no_boxes_overlap_the_draws_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crops_module, "MAX_DRAWS", crops_module.MAX_DRAWS // 16)
    one_box = np.array([[8, 8, 8]])
    far_apart = Boxes(one_box, np.zeros((1, 3), int), np.full((1, 3), 10**6))
    assert next(overlapping_pairs(far_apart, np.random.default_rng(0)), None) is None
