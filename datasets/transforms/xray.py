"""The views of a chest X-ray: torchvision's augmentations on 8-bit PIL images, parameters sampled first.

Without torchvision, which takes a second and more to import.

X-rays are grey, and on grey pixels hue, saturation and grayscale change nothing. So one channel is carried
through and expanded only at the normalisation: bit for bit what torchvision gives in RGB, for a third of the
work. Colour images go through the same functions in RGB.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from datasets.transforms.gaussian import gaussian_blur
from datasets.transforms.resize import resize_box
from datasets.transforms.spatial import SpatialTransform
from utils.jit import compiled

AREA = (0.2, 1.0)  # of the crop, as part of the image
ASPECT = (3 / 4, 4 / 3)  # width over height of the crop
CROP_ATTEMPTS = 10
DEGREES = 10.0
FLIP_P, GRAY_P, BLUR_P = 0.5, 0.2, 0.5
BLUR_RADIUS = (0.1, 2.0)
JITTER = {"brightness": (0.6, 1.4), "contrast": (0.6, 1.4), "saturation": (0.6, 1.4), "hue": (-0.4, 0.4)}
ENHANCE = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}
COLOUR_ONLY = ("saturation", "hue")
HOLES, HOLE_SIDE = 3, 32
PUBLISHED_SIZE = 224  # of a view, in pixels: BLUR_RADIUS and HOLE_SIDE are for this size, and in proportion for others
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class XRayParams:
    """All that is random in one view, in the order in which it is applied.

    ``box``: top, left, height, width of the crop in pixels of the image; ``angle`` in degrees,
    counter-clockwise; ``flip``: horizontal; ``blur``: radius in pixels of the crop, None for no blur;
    ``jitter``: (name, factor) in the order of application; ``holes``: centres (row, column) of the cutout;
    ``spatial``: from the input to the reconstruction target.
    """

    box: tuple[int, int, int, int]
    angle: float
    flip: bool
    gray: bool
    blur: float | None
    jitter: tuple[tuple[str, float], ...]
    holes: tuple[tuple[int, int], ...]
    spatial: SpatialTransform

    @classmethod
    def sample(
        cls, height: int, width: int, size: int, rng: np.random.Generator, area: tuple[float, float] = AREA
    ) -> XRayParams:
        """Draw a view of ``size`` x ``size`` pixels of an image of this height and width; ``area``: part of it."""
        return cls(
            box=sample_box(height, width, rng, area),
            angle=rng.uniform(-DEGREES, DEGREES),
            flip=bool(rng.random() < FLIP_P),
            gray=bool(rng.random() < GRAY_P),
            blur=rng.uniform(*BLUR_RADIUS) * (size / PUBLISHED_SIZE) if rng.random() < BLUR_P else None,
            jitter=_sample_jitter(rng),
            holes=tuple((int(row), int(column)) for row, column in rng.integers(0, size, (HOLES, 2))),
            spatial=SpatialTransform.sample((size, size), rng),
        )


def sample_box(
    height: int, width: int, rng: np.random.Generator, part: tuple[float, float] = AREA
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop, distributed as torchvision's RandomResizedCrop draws it.

    The area is uniform, in ``part`` of the image, the logarithm of the aspect ratio too; after ten boxes that do not
    fit it is the largest central one whose aspect ratio is allowed.
    """
    for _ in range(CROP_ATTEMPTS):
        area = height * width * rng.uniform(*part)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
    w = min(width, round(height * ASPECT[1]))
    h = min(height, round(width / ASPECT[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def _sample_jitter(rng: np.random.Generator) -> tuple[tuple[str, float], ...]:
    factors = [(name, rng.uniform(*limits)) for name, limits in JITTER.items()]
    return tuple(factors[i] for i in rng.permutation(len(factors)))


def view(
    image: np.ndarray, params: XRayParams, channels: int = 3, size: int = 224
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input, mask and ground truth of one view, each float32 (channels, size, size), contiguous.

    ``image``: uint8, (height, width) if grey, (height, width, 3) if RGB. The ground truth is the crop alone;
    the input is distorted and has holes; the mask is the input, holes included, spatially transformed.
    """
    distorted, ground_truth = (normalise(plane, channels) for plane in pixels(image, params, channels, size))
    cut_holes(distorted, params.holes)
    return distorted, np.ascontiguousarray(params.spatial.apply(distorted)), ground_truth


def pixels(image: np.ndarray, params: XRayParams, channels: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The view as 8-bit pixels, distorted and as cropped: uint8, (size, size) or (size, size, 3)."""
    cropped = crop(image, params.box, size, channels)
    return np.asarray(distort(cropped, params)), np.asarray(cropped)


def crop(image: np.ndarray, box: tuple[int, int, int, int], size: int, channels: int = 3) -> Image.Image:
    """The box, resized to ``size`` x ``size`` bilinearly with anti-aliasing; grey where ``channels`` is 1."""
    if image.ndim == 2:
        return Image.fromarray(resize_box(image, box, size))
    top, left, height, width = box
    part = Image.fromarray(image[top : top + height, left : left + width])
    if channels == 1:
        part = part.convert("L")
    return part.resize((size, size), Image.Resampling.BILINEAR)


def distort(image: Image.Image, params: XRayParams) -> Image.Image:
    """Rotation, flip, grayscale, blur and colour jitter of an image of mode L or RGB; the mode stays."""
    return recolour(turn(image, params), params)


def turn(image: Image.Image, params: XRayParams) -> Image.Image:
    """Rotation and flip of an image of mode L or RGB."""
    image = image.rotate(params.angle)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if params.flip else image


def recolour(image: Image.Image, params: XRayParams) -> Image.Image:
    """Grayscale, blur and colour jitter of an image of mode L or RGB; the mode stays."""
    grey = image.mode == "L"
    if params.gray and not grey:
        image = image.convert("L").convert("RGB")
    if params.blur is not None:
        image = blur(image, params.blur)
    for name, factor in params.jitter:
        if not (grey and name in COLOUR_ONLY):
            image = _turn_hue(image, factor) if name == "hue" else ENHANCE[name](image).enhance(factor)
    return image


def _turn_hue(image: Image.Image, part: float) -> Image.Image:
    """The hue of each pixel, turned by this part of the colour circle, cut to whole steps of 1/256."""
    hue, saturation, value = image.convert("HSV").split()
    turned = np.asarray(hue) + np.int32(part * 255).astype(np.uint8)  # bytes, which wrap around
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")


def blur(image: Image.Image, radius: float) -> Image.Image:
    """PIL's Gaussian blur; ``radius``: its standard deviation in pixels."""
    if image.mode == "L":
        return Image.fromarray(gaussian_blur(np.asarray(image), radius))
    return image.filter(ImageFilter.GaussianBlur(radius))


def normalise(pixels: np.ndarray, channels: int = 3) -> np.ndarray:
    """float32 (channels, height, width) of uint8 (height, width) or (height, width, 3): /255, - mean, / std.

    Three channels have ImageNet's means and standard deviations; a single one has the average of these.
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    return _look_up(pixels, normalised_values(channels))


@functools.cache
def normalised_values(channels: int) -> np.ndarray:
    """What torchvision's to_tensor and normalize make of each of the 256 values: float32 (channels, 256)."""
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    if channels == 1:
        mean, std = mean.mean(keepdims=True), std.mean(keepdims=True)
    ramp = np.arange(256, dtype=np.float32) / np.float32(255)
    return (ramp - mean.astype(np.float32)[:, None]) / std.astype(np.float32)[:, None]


@compiled
def _look_up(pixels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """float32 (channels, height, width): values[c, pixels[..., c]], or pixels[..., 0] if there is no more."""
    height, width, planes = pixels.shape
    result = np.empty((len(values), height, width), np.float32)
    for c in range(len(values)):
        for y in range(height):
            for x in range(width):
                result[c, y, x] = values[c, pixels[y, x, c if planes > 1 else 0]]
    return result


def hole_side(size: int) -> int:
    """The side of a hole in a view of ``size`` x ``size`` pixels: 32 of 224."""
    return round(HOLE_SIDE * size / PUBLISHED_SIZE)


def cut_holes(image: np.ndarray, centres: tuple[tuple[int, int], ...]) -> None:
    """Set squares to 0 in all channels of ``(channels, size, size)``, in place.

    A hole of side 32 around (r, c) has the rows r - 16 .. r + 15 and columns c - 16 .. c + 15 that are in the image.
    """
    side = hole_side(image.shape[-1])
    for row, column in centres:
        top, left = row - side // 2, column - side // 2
        image[:, max(0, top) : top + side, max(0, left) : left + side] = 0
