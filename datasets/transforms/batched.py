"""The augmentation of 3D crops for a whole batch at once, on the device that trains.

A second implementation of what ``crops.py`` does to one crop after the other on the CPU, from the same
parameters and with the same results to rounding. Workers that leave the augmentation to it only read files
and draw a few numbers a crop. Call it outside of autocast; with TF32 matrix products the blur, and nothing
else, is good to 1e-3 only.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from datasets.transforms.affine import Affine
from datasets.transforms.blur import GaussianBlur, blur
from datasets.transforms.corruption import BLOCKS, GAMMA, MAX_BOXES, MIX_1, MIX_2
from datasets.transforms.crops import CropAugmentation
from datasets.transforms.spatial import SpatialTransform

VOXELS_AT_ONCE = 10_000_000  # of the shuffled blocks: bounds the memory, to about 0.6 GB
NO_SEED = -1


def parameters(augmentation: CropAugmentation, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """An augmentation of a crop of this shape as arrays of fixed sizes, which stack to a batch."""
    shuffling, painting = augmentation.shuffling, augmentation.painting
    boxes = np.zeros((2, 3, MAX_BOXES), np.int64)  # starts and stops; an absent box ends where it starts
    if painting is not None:
        count = painting.sides.shape[1]
        boxes[:, :, :count] = painting.starts, painting.starts + painting.sides
    return {
        **spatial_parameters(augmentation.affine, augmentation.blur, shape),
        "shuffling": np.array(NO_SEED if shuffling is None else shuffling.seed),
        "painting": np.array(NO_SEED if painting is None else painting.seed),
        "inside": np.array(painting is not None and painting.inside),
        "boxes": boxes,
        "aug": augmentation.spatial.code,
    }


def spatial_parameters(affine: Affine, blur: GaussianBlur, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Those of the first two steps, of :func:`resample` and :func:`blurred`."""
    along_x, along_y, along_z = blur.matrices(shape)
    return {"places": affine.places(shape), "blur_x": along_x, "blur_y": along_y, "blur_z": along_z}


def blurred(crops: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
    """Blur (N, X, Y, Z) by the matrices of :func:`spatial_parameters`."""
    return blur(crops, [parameters[f"blur_{axis}"] for axis in "xyz"])


@torch.no_grad()
def augment(crops: Tensor, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """``crops``, float32 (N, X, Y, Z) -> (the network's inputs, their reconstruction targets).

    ``parameters``: those of :func:`parameters`, stacked, on the same device.
    """
    images, targets = [], []
    at_once = max(1, VOXELS_AT_ONCE // (BLOCKS * _largest_block(crops.shape[1:])))
    for start in range(0, len(crops), at_once):
        part = slice(start, start + at_once)
        own = {name: values[part] for name, values in parameters.items()}
        image = resample(crops[part], own["places"])
        image = blurred(image, own)
        image = _shuffle_some(image, own["shuffling"])
        image = _paint(image, own["painting"], own["inside"], own["boxes"])
        images.append(image)
        targets.append(transform(image, own["aug"]))
    return torch.cat(images), torch.cat(targets)


def resample(crops: Tensor, places: Tensor) -> Tensor:
    """Read each crop at its own ``places`` (N, 3, 4) of the output's voxels; outside lies its minimum."""
    voxels = crops.flatten(1)
    axes = [torch.arange(size, dtype=torch.float64, device=crops.device) for size in crops.shape[1:]]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    inside = torch.ones_like(crops, dtype=torch.bool)
    corners = torch.zeros_like(crops, dtype=torch.int64)
    weights = []
    for axis, size in enumerate(crops.shape[1:]):
        of_x, of_y, of_z, origin = places[:, axis, :, None, None, None].unbind(1)
        place = origin + of_x * x + of_y * y + of_z * z
        inside &= (place >= -0.5) & (place < size - 0.5)
        place = place.clamp(0, size - 1)
        low = place.clamp(max=size - 2).long()
        corners = corners * size + low
        weights.append((place - low).to(crops.dtype).flatten(1))
    stride_x, stride_y = crops.shape[2] * crops.shape[3], crops.shape[3]

    def between(corners: Tensor, strides: tuple[int, ...]) -> Tensor:
        """Interpolate along the last ``len(strides)`` axes."""
        if not strides:
            return voxels.gather(1, corners)
        near = between(corners, strides[1:])
        far = between(corners + strides[0], strides[1:])
        return near + weights[-len(strides)] * (far - near)

    values = between(corners.flatten(1), (stride_x, stride_y, 1)).view(crops.shape)
    return torch.where(inside, values, voxels.amin(1)[:, None, None, None])


def _shuffle_some(images: Tensor, seeds: Tensor) -> Tensor:
    """Shuffle those images that have a seed."""
    if images.is_cuda:  # how many are chosen the host does not know: to ask would be to wait
        return torch.where((seeds != NO_SEED)[:, None, None, None], _shuffle(images, seeds), images)
    chosen = (seeds != NO_SEED).nonzero()[:, 0]
    return images.index_copy(0, chosen, _shuffle(images[chosen], seeds[chosen])) if len(chosen) else images


def _shuffle(images: Tensor, seeds: Tensor) -> Tensor:
    """Local shuffling, for all blocks at once.

    The last block that covers a voxel decides where its value comes from, so each block offers each of its
    voxels its own number together with the voxel that the value comes from, and the highest offer counts.
    """
    shape = images.shape[1:]
    sizes = _sizes(shape, images.device)[:, None]
    drawn = words(seeds[:, None], torch.arange(6 * BLOCKS, device=images.device)).view(-1, 6, BLOCKS)
    sides = 1 + _below(drawn[:, :3], sizes // 10)
    starts = _below(drawn[:, 3:], sizes - sides + 1)
    volumes = sides.prod(1)
    first = 6 * BLOCKS + volumes.cumsum(1) - volumes

    # From here on a block is a column, and a row holds voxel t of every block.
    most = _largest_block(shape)
    t = torch.arange(most, device=images.device)[:, None]
    block_seeds = seeds[:, None].expand_as(volumes).flatten()
    side_x_y_z, volumes, first = sides.transpose(0, 1).flatten(1), volumes.flatten(), first.flatten()
    origins = torch.arange(len(images), device=images.device)[:, None] * shape.numel()
    corners = (origins + (starts[:, 0] * shape[1] + starts[:, 1]) * shape[2] + starts[:, 2]).flatten()
    chosen = t + _below(words(block_seeds, first + t), (volumes - t).clamp(min=1))
    taken = _fisher_yates(chosen)
    blocks = torch.arange(len(volumes), device=images.device)
    offers = torch.where(t < volumes, blocks * most + taken, -1)
    targets = corners + torch.where(t < volumes, _offset(t, side_x_y_z, shape), 0)

    voxels = images.flatten()
    best = torch.full(voxels.shape, -1, device=images.device)
    best.scatter_reduce_(0, targets.flatten(), offers.flatten(), "amax")
    block, source = best.clamp(min=0) // most, best.clamp(min=0) % most
    shuffled = voxels[corners[block] + _offset(source, side_x_y_z[:, block], shape)]
    return torch.where(best >= 0, shuffled, voxels).view(images.shape)


def _largest_block(shape: torch.Size) -> int:
    return math.prod(size // 10 for size in shape)


def _fisher_yates(chosen: Tensor) -> Tensor:
    """Where each voxel's value comes from: ``chosen`` (most, blocks) says which of those left it takes."""
    values = torch.arange(len(chosen), dtype=torch.int16, device=chosen.device)[:, None].repeat(1, chosen.shape[1])
    taken = torch.empty_like(values)
    for t, row in enumerate(chosen.split(1)):
        taken[t] = values.gather(0, row)[0]
        values.scatter_(0, row, values[t : t + 1].clone())
    return taken


def _offset(t: Tensor, sides: Tensor, shape: torch.Size) -> Tensor:
    """How far behind a block's first voxel its voxel ``t`` (in C order) lies; ``sides`` (3, ...)."""
    _, side_y, side_z = sides
    x, y, z = t // (side_y * side_z), t // side_z % side_y, t % side_z
    return (x * shape[1] + y) * shape[2] + z


def _paint(images: Tensor, seeds: Tensor, inside: Tensor, boxes: Tensor) -> Tensor:
    """Noise in or around the ``boxes`` (N, 2, 3, boxes) of those images that have a seed."""
    starts, stops = boxes.unbind(1)
    in_a_box = torch.zeros_like(images, dtype=torch.bool)
    for box in range(boxes.shape[-1]):
        in_this = torch.ones_like(in_a_box)
        for axis, size in enumerate(images.shape[1:]):
            place = torch.arange(size, device=images.device)
            along = (place >= starts[:, axis, box, None]) & (place < stops[:, axis, box, None])
            in_this &= along.view(-1, *(size if other == axis else 1 for other in range(3)))
        in_a_box |= in_this
    place = torch.arange(images[0].numel(), device=images.device)
    noise = uniform(seeds[:, None], place)
    noisy = (in_a_box == inside[:, None, None, None]) & (seeds != NO_SEED)[:, None, None, None]
    return torch.where(noisy, noise.view(images.shape), images)


def transform(images: Tensor, codes: Tensor) -> Tensor:
    """Each image by the transform that its code (N, 7) stands for."""
    if images.is_cuda:
        return gather_transforms(images, codes)
    targets = []
    for image, code in zip(images, codes.cpu().numpy(), strict=True):
        transform = SpatialTransform.from_code(code)
        flipped = image.flip([axis for axis, flip in enumerate(transform.flips) if flip])
        targets.append(flipped.rot90(transform.turns, (0, 1)))
    return torch.stack(targets)


def gather_transforms(images: Tensor, codes: Tensor) -> Tensor:
    """The same in one gather, by a table of where each voxel of each transform comes from."""
    table, digits = _sources(images.shape[1:], images.device), _digits(codes.dtype, codes.device)
    return images.flatten(1).gather(1, table[(codes @ digits).long()]).view_as(images)


# Tables are uploaded once: a GPU would be waited for each time.


@functools.cache
def _sizes(shape: torch.Size, device: torch.device) -> Tensor:
    return torch.tensor(shape).to(device)


@functools.cache
def _digits(dtype: torch.dtype, device: torch.device) -> Tensor:
    """What the entries of a code stand for in the number of its transform."""
    return torch.tensor([16, 8, 4, 0, 1, 2, 3], dtype=dtype).to(device)


@functools.cache
def _sources(shape: torch.Size, device: torch.device) -> Tensor:
    """(32, voxels): for each transform, the voxel that each voxel comes from. Not all keep the shape."""
    places = np.arange(shape.numel()).reshape(shape)
    flips = itertools.product((False, True), repeat=3)
    sources = [SpatialTransform(three, turns).apply(places).ravel() for three in flips for turns in range(4)]
    return torch.from_numpy(np.stack(sources)).to(device)


def words(seeds: Tensor, index: Tensor) -> Tensor:
    """SplitMix64's words, as int64 with the same bits: torch has no arithmetic on uint64, and int64 wraps."""
    word = seeds + _signed(GAMMA) * (index + 1)
    word = (word ^ shift(word, 30)) * _signed(MIX_1)
    word = (word ^ shift(word, 27)) * _signed(MIX_2)
    return word ^ shift(word, 31)


def uniform(seeds: Tensor, index: Tensor) -> Tensor:
    """The upper 24 bits of each word, as float32 in [0, 1)."""
    return shift(words(seeds, index), 40).float() * 2.0**-24


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


def shift(word: Tensor, bits: int) -> Tensor:
    """To the right, as if the words were unsigned: zeros come in from the left."""
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def _below(drawn: Tensor, counts: Tensor) -> Tensor:
    return (shift(drawn, 32) * counts) >> 32
