"""The views of a chest X-ray for PCRLv2: rotation and flip are shared by input and target; small local views."""

from __future__ import annotations

import numpy as np

from datasets.transforms.xray import (
    PUBLISHED_SIZE,
    XRayParams,
    crop,
    cut_holes,
    normalise,
    recolour,
    turn,
)

AREA, LOCAL_AREA = (0.3, 1.0), (0.05, 0.3)  # of a view and of a local view, as part of the image
LOCAL_VIEWS = 6
LOCAL_SIZE = 96  # pixels, where a view has 224
SIZE_MULTIPLE = 32  # what the 2D network reads


def local_size(size: int) -> int:
    """The side of a local view beside views of ``size``: 96 of 224, rounded to what the network reads."""
    return max(1, round(LOCAL_SIZE * size / PUBLISHED_SIZE / SIZE_MULTIPLE)) * SIZE_MULTIPLE


def sample_view(height: int, width: int, size: int, rng: np.random.Generator) -> XRayParams:
    """Draw a view of ``size`` x ``size`` pixels of an image of this height and width."""
    return XRayParams.sample(height, width, size, rng, AREA)


def sample_local(height: int, width: int, size: int, rng: np.random.Generator) -> XRayParams:
    """Draw a local view beside views of ``size``: the same blur as a view's, in pixels, as published."""
    return XRayParams.sample(height, width, size, rng, LOCAL_AREA)


def view(image: np.ndarray, params: XRayParams, channels: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Input and target of a view, each float32 (channels, size, size), contiguous.

    ``image``: uint8, (height, width) if grey, (height, width, 3) if RGB. The target is the crop, turned and flipped;
    the input is the target in other colours, blurred and with holes.
    """
    distorted, target = (normalise(plane, channels) for plane in pixels(image, params, channels, size))
    cut_holes(distorted, params.holes)
    return distorted, target


def local_view(image: np.ndarray, params: XRayParams, channels: int, size: int) -> np.ndarray:
    """A local view of ``size`` x ``size`` pixels: float32 (channels, size, size). It has no holes and no target."""
    return normalise(pixels(image, params, channels, size)[0], channels)


def pixels(image: np.ndarray, params: XRayParams, channels: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A view as 8-bit pixels, distorted and as its target: uint8, (size, size) or (size, size, 3)."""
    turned = turn(crop(image, params.box, size, channels), params)
    return np.asarray(recolour(turned, params)), np.asarray(turned)
