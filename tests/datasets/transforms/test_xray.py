"""The views of an X-ray against torchvision in RGB, given the same parameters, and what is drawn."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from PIL import Image, ImageFilter
from scipy import stats
from torchvision.transforms import ColorJitter, InterpolationMode, RandomResizedCrop

from datasets.transforms.spatial import SpatialTransform
from datasets.transforms.xray import XRayParams, cut_holes, normalise, sample_box, view
from datasets.xray.images import read_image
from utils.seeding import generator

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "Chest14" / "images"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SHAPES = [(1024, 1024), (512, 512), (300, 231), (150, 640), (97, 101)]


def radiograph(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Grey or colour with gradients, edges, noise and all values up to both ends, like an X-ray."""
    y, x = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    grey = 140 + 90 * np.cos(3 * x) * np.cos(2 * y) - 100 * (np.hypot(abs(x) - 0.4, y) < 0.35)
    image = grey.reshape(*grey.shape, *[1] * (len(shape) - 2)) + rng.normal(0, 12, shape)
    image[:10] = 0
    image[-12:, :20] = 255
    return np.clip(image, 0, 255).astype(np.uint8)


def by_torchvision(image: Image.Image, params: XRayParams, size: int = 224) -> tuple[torch.Tensor, ...]:
    """Input, mask and ground truth, step by step in RGB."""
    top, left, height, width = params.box
    crop = F.resized_crop(image.convert("RGB"), top, left, height, width, [size, size], InterpolationMode.BILINEAR)
    ground_truth = F.normalize(F.to_tensor(crop), MEAN, STD)
    result = F.rotate(crop, params.angle, InterpolationMode.NEAREST, fill=0)
    if params.flip:
        result = F.hflip(result)
    if params.gray:
        result = F.rgb_to_grayscale(result, num_output_channels=3)
    if params.blur is not None:
        result = result.filter(ImageFilter.GaussianBlur(params.blur))
    for name, factor in params.jitter:
        result = getattr(F, f"adjust_{name}")(result, factor)
    distorted = F.normalize(F.to_tensor(result), MEAN, STD)
    for row, column in params.holes:
        for y in range(max(0, row - 16), min(size, row + 16)):
            distorted[:, y, max(0, column - 16) : min(size, column + 16)] = 0
    mask = distorted.clone()
    if params.spatial.flips[0]:
        mask = torch.flip(mask, [1])
    if params.spatial.flips[1]:
        mask = torch.flip(mask, [2])
    return distorted, torch.rot90(mask, params.spatial.turns, [1, 2]), ground_truth


def assert_equal_to_torchvision(image: np.ndarray, params: XRayParams) -> None:
    result = view(image, params)
    for ours, theirs in zip(result, by_torchvision(Image.fromarray(image), params), strict=True):
        assert ours.dtype == np.float32
        assert ours.flags.c_contiguous
        np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
def test_bit_for_bit_the_same_as_torchvision_in_rgb(shape: tuple[int, int], colour: bool) -> None:
    rng = generator(0, "xray", *shape)
    image = radiograph((*shape, 3) if colour else shape, rng)
    for _ in range(8):
        assert_equal_to_torchvision(image, XRayParams.sample(*shape, 224, rng))


def test_bit_for_bit_in_every_order_of_the_jitter() -> None:
    rng = generator(0, "jitter")
    image = radiograph((400, 400), rng)
    params = XRayParams.sample(400, 400, 224, rng)
    for jitter in itertools.permutations(params.jitter):
        assert_equal_to_torchvision(image, dataclasses.replace(params, jitter=jitter))


@pytest.mark.skipif(
    not REAL.is_dir(), reason="needs the real X-rays in ../shared/data, which are no part of the project"
)
def test_bit_for_bit_on_real_x_rays() -> None:
    rng = generator(0, "real")
    for path in sorted(REAL.iterdir())[::24]:
        image = read_image(path)
        assert image.ndim == 2
        for _ in range(2):
            assert_equal_to_torchvision(image, XRayParams.sample(*image.shape, 224, rng))


def test_one_channel_is_normalised_by_the_average_of_imagenets_values() -> None:
    rng = generator(0, "one channel")
    colour = radiograph((300, 300, 3), rng)
    grey = np.asarray(Image.fromarray(colour).convert("L"))
    params = XRayParams.sample(300, 300, 224, rng)
    from_grey, from_colour = view(grey, params, channels=1), view(colour, params, channels=1)
    for one, other in zip(from_grey, from_colour, strict=True):
        assert one.shape == (1, 224, 224)
        np.testing.assert_array_equal(one, other)
    three = view(grey, params)
    mean, std = np.reshape(MEAN, (3, 1, 1)), np.reshape(STD, (3, 1, 1))
    in_grey_levels = (three[2] * std + mean).mean(axis=0)
    np.testing.assert_allclose(from_grey[2][0], (in_grey_levels - 0.449) / 0.226, atol=1e-5)
    holes = three[0][0] == 0
    np.testing.assert_array_equal(from_grey[0][0][holes], 0)


def test_holes_are_32_of_224_wide_and_clipped() -> None:
    image = np.ones((2, 224, 224), np.float32)
    cut_holes(image, ((0, 20), (223, 223)))
    expected = np.ones((224, 224))
    expected[0:16, 4:36] = 0
    expected[207:, 207:] = 0
    np.testing.assert_array_equal(image, [expected, expected])


@pytest.mark.parametrize(("size", "side"), [(224, 32), (448, 64), (64, 9), (128, 18)])
def test_views_of_any_size_are_damaged_alike(size: int, side: int) -> None:
    """Holes and blur cover the same part of the image, else small views would be nearly all hole."""
    image = np.ones((1, size, size), np.float32)
    cut_holes(image, ((size // 2, size // 2),))
    assert [(image[0] == 0).any(axis=axis).sum() for axis in (0, 1)] == [side, side]
    for seed in range(8):
        published, ours = (XRayParams.sample(500, 500, of, generator(seed, "blur")) for of in (224, size))
        assert (ours.blur or 0) == pytest.approx((published.blur or 0) * size / 224)


def test_normalise_is_torchvisions_for_every_value() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = F.normalize(F.to_tensor(ramp[..., None].repeat(3, -1)), MEAN, STD)
    np.testing.assert_array_equal(normalise(ramp), expected.numpy())


def test_the_parameters_alone_decide() -> None:
    rng = generator(0)
    image = radiograph((200, 200), rng)
    before = image.copy()
    params = XRayParams.sample(200, 200, 224, rng)
    for one, other in zip(view(image, params), view(image, params), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(image, before)
    assert XRayParams.sample(200, 200, 224, generator(5)) == XRayParams.sample(200, 200, 224, generator(5))
    assert XRayParams.sample(200, 200, 224, generator(5)) != XRayParams.sample(200, 200, 224, generator(6))


@pytest.mark.parametrize("shape", [(1024, 1024), (300, 500), (120, 90), (40, 1000), (700, 30), (1, 1)], ids=str)
def test_boxes_are_distributed_as_torchvisions(shape: tuple[int, int]) -> None:
    rng = generator(0, "boxes")
    torch.manual_seed(0)
    ours = np.array([sample_box(*shape, rng) for _ in range(3000)])
    empty = torch.empty(1, *shape)
    theirs = np.array([RandomResizedCrop.get_params(empty, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)])
    for one, other in ((ours, theirs), (ours[:, 2:3] * ours[:, 3:], theirs[:, 2:3] * theirs[:, 3:])):
        for column in range(one.shape[1]):
            assert stats.ks_2samp(one[:, column], other[:, column]).pvalue > 1e-3
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= shape).all()


def test_boxes_reach_every_edge() -> None:
    rng = generator(0, "edges")
    small = [box for box in (sample_box(9, 9, rng) for _ in range(2000)) if box[2:] == (6, 6)]
    assert {(top, left) for top, left, _, _ in small} == set(itertools.product(range(4), range(4)))


def test_parameters_have_their_distributions() -> None:
    rng = generator(0, "parameters")
    drawn = [XRayParams.sample(1024, 1024, 224, rng) for _ in range(4000)]
    assert stats.kstest([p.angle for p in drawn], stats.uniform(-10, 20).cdf).pvalue > 1e-3
    blurs = [p.blur for p in drawn if p.blur is not None]
    assert stats.kstest(blurs, stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3
    for count, probability in (
        (len(blurs), 0.5),
        (sum(p.flip for p in drawn), 0.5),
        (sum(p.gray for p in drawn), 0.2),
        (sum(p.spatial.flips[0] for p in drawn), 0.5),
        (sum(p.spatial.flips[1] for p in drawn), 0.5),
    ):
        assert stats.binomtest(count, len(drawn), probability).pvalue > 1e-3
    torch.manual_seed(0)
    jitter = ColorJitter(0.4, 0.4, 0.4, 0.4)
    limits = {name: getattr(jitter, name) for name in ("brightness", "contrast", "saturation", "hue")}
    for name, (low, high) in limits.items():
        factors = [dict(p.jitter)[name] for p in drawn]
        assert stats.kstest(factors, stats.uniform(low, high - low).cdf).pvalue > 1e-3
    orders = [tuple(name for name, _ in p.jitter) for p in drawn]
    assert stats.chisquare([orders.count(order) for order in itertools.permutations(limits)]).pvalue > 1e-3
    centres = np.array([p.holes for p in drawn])
    assert centres.shape == (4000, 3, 2)
    assert stats.chisquare(np.bincount(centres.ravel(), minlength=224)).pvalue > 1e-3


def test_draws_are_independent_of_each_other() -> None:
    rng = generator(0, "independent")
    drawn = [XRayParams.sample(500, 500, 224, rng) for _ in range(3000)]
    columns = np.array(
        [
            [
                p.box[0] - (500 - p.box[2]) / 2,
                p.angle,
                p.flip,
                p.gray,
                p.blur is None,
                p.spatial.turns,
                p.spatial.flips[0],
            ]
            + [dict(p.jitter)[name] for name in ("brightness", "contrast")]
            + [p.holes[0][0], p.holes[0][1], p.holes[1][0]]
            for p in drawn
        ]
    )
    correlations = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert abs(correlations).max() < 4.5 / np.sqrt(len(drawn))


def test_the_mask_is_the_input_with_its_holes() -> None:
    rng = generator(0, "mask")
    image = radiograph((300, 300), rng)
    params = XRayParams.sample(300, 300, 224, rng)
    params = dataclasses.replace(params, spatial=SpatialTransform((True, False), 3))
    distorted, mask, _ = view(image, params)
    np.testing.assert_array_equal(params.spatial.invert(mask), distorted)
    assert (distorted == 0).all(axis=0).sum() >= 32 * 32 / 4
