"""Local pixel shuffling, in-painting and out-painting of a 3D crop (Models Genesis, Zhou et al. 2019).

They need hundreds of thousands of random numbers a crop. These come from SplitMix64 (Steele, Lea and Flood
2014), which makes word i of a stream from the stream's seed and i alone; the seed is drawn from the
generator. So a crop's parameters stay a handful of numbers, and any device can make the same words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.jit import compiled

BLOCKS = 10_000
MAX_BOXES = 5
BOX_PROBABILITY = 0.95
BOX_MARGIN = 3  # voxels between a painted box and the crop's border
SMALLEST_AXIS = 14  # voxels; in a shorter axis an out-painting box and its margins find no room

GAMMA, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # SplitMix64's constants
_GAMMA, _MIX_1, _MIX_2 = np.uint64(GAMMA), np.uint64(MIX_1), np.uint64(MIX_2)


@dataclass(frozen=True)
class LocalShuffling:
    """10,000 small blocks inside of which the voxels are permuted; where they overlap, the last one counts.

    ``seed`` (below 2^63) of the words that everything is made from. Words 0..59,999 give the blocks' sides
    and starts. The words after them, one for each voxel of each block (in the order of the blocks, then C
    order), make the permutations.
    """

    seed: int

    @classmethod
    def sample(cls, rng: np.random.Generator) -> LocalShuffling:
        return cls(random_seed(rng))

    def blocks(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Sides and starts, each (3, 10,000) int32, in voxels of an image of this shape.

        Sides are uniform in 1..size // 10, starts in 0..size - side.
        """
        return _blocks(np.uint64(self.seed), np.array(shape))

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Shuffle ``image``, a contiguous float32 (X, Y, Z); every block takes its voxels from ``image``."""
        sides, starts = self.blocks(image.shape)
        return _shuffle(image, sides, starts, np.uint64(self.seed))


@dataclass(frozen=True)
class Painting:
    """Noise inside a few boxes (in-painting), or everywhere but inside them (out-painting).

    ``sides`` and ``starts`` (3, boxes), in voxels. ``seed`` (below 2^63) of the noise: word i is voxel i's.
    """

    inside: bool
    sides: np.ndarray
    starts: np.ndarray
    seed: int

    @classmethod
    def sample(cls, shape: tuple[int, ...], inside: bool, rng: np.random.Generator) -> Painting:
        """Up to 5 boxes, 3 voxels or more from the border; each comes only if the last came, with p 0.95.

        In-painting: none to 5 boxes, sides size // 6..size // 3. Out-painting: 1 to 5 boxes, sides
        size - (3 size // 7..4 size // 7). ``shape``: each axis has :data:`SMALLEST_AXIS` voxels or more.
        """
        certain = 0 if inside else 1
        goes_on = rng.random(MAX_BOXES - certain) < BOX_PROBABILITY
        boxes = certain + int(np.cumprod(goes_on).sum())
        sizes = np.array(shape)[:, None]
        low, high = (sizes // 6, sizes // 3) if inside else (sizes - 4 * sizes // 7, sizes - 3 * sizes // 7)
        sides = rng.integers(low, high, size=(3, boxes), endpoint=True)
        starts = rng.integers(BOX_MARGIN, sizes - sides - BOX_MARGIN, endpoint=True)
        return cls(inside, sides, starts, random_seed(rng))

    def noise(self, shape: tuple[int, ...]) -> np.ndarray:
        """float32 of this shape, uniform in [0, 1)."""
        return uniform_words(self.seed, int(np.prod(shape))).reshape(shape)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Paint ``image``, float32 (X, Y, Z)."""
        noise = self.noise(image.shape)
        painted, inner = (image.copy(), noise) if self.inside else (noise, image)
        for start, stop in zip(self.starts.T, (self.starts + self.sides).T, strict=True):
            box = tuple(slice(*ends) for ends in zip(start, stop, strict=True))
            painted[box] = inner[box]
        return painted


def random_seed(rng: np.random.Generator) -> int:
    """Of a stream of words, below 2^63."""
    return int(rng.integers(0, 2**63))


def uniform_words(seed: int, count: int) -> np.ndarray:
    """The first ``count`` words of the stream, float32 uniform in [0, 1)."""
    return _noise(np.uint64(seed), count)


@compiled
def _word(seed: np.uint64, index: int) -> np.uint64:
    """Word ``index`` of the stream, uniform over 64 bits."""
    word = seed + _GAMMA * np.uint64(index + 1)
    word = (word ^ (word >> np.uint64(30))) * _MIX_1
    word = (word ^ (word >> np.uint64(27))) * _MIX_2
    return word ^ (word >> np.uint64(31))


@compiled
def _below(word: np.uint64, count: int) -> int:
    """Uniform in 0..count - 1, to 2^-32 count."""
    return np.int64(((word >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32))


@compiled
def _noise(seed: np.uint64, count: int) -> np.ndarray:
    """The upper 24 bits of each word, as float32 in [0, 1)."""
    noise = np.empty(count, np.float32)
    for index in range(count):
        noise[index] = np.float32(_word(seed, index) >> np.uint64(40)) * np.float32(2.0**-24)
    return noise


@compiled
def _blocks(seed: np.uint64, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sides = np.empty((3, BLOCKS), np.int32)
    starts = np.empty((3, BLOCKS), np.int32)
    for axis in range(3):
        for block in range(BLOCKS):
            side = 1 + _below(_word(seed, axis * BLOCKS + block), shape[axis] // 10)
            sides[axis, block] = side
            starts[axis, block] = _below(_word(seed, (3 + axis) * BLOCKS + block), shape[axis] - side + 1)
    return sides, starts


@compiled
def _shuffle(image: np.ndarray, sides: np.ndarray, starts: np.ndarray, seed: np.uint64) -> np.ndarray:
    """One Fisher-Yates shuffle a block: voxel t takes one of the size - t values that are left."""
    voxels = image.ravel()
    output = voxels.copy()
    most_x, most_y, most_z = sides[0].max(), sides[1].max(), sides[2].max()
    places = _block_places(image.shape, most_x, most_y, most_z)
    values = np.empty(most_x * most_y * most_z, np.float32)
    drawn = 6 * BLOCKS
    for block in range(sides.shape[1]):
        side_x, side_y, side_z = sides[0, block], sides[1, block], sides[2, block]
        size = side_x * side_y * side_z
        inside = places[(side_y - 1) * most_z + side_z - 1]
        corner = (starts[0, block] * image.shape[1] + starts[1, block]) * image.shape[2] + starts[2, block]
        for t in range(size):
            values[t] = voxels[corner + inside[t]]
        for t in range(size):
            chosen = t + _below(_word(seed, drawn + t), size - t)
            output[corner + inside[t]] = values[chosen]
            values[chosen] = values[t]
        drawn += size
    return output.reshape(image.shape)


@compiled
def _block_places(shape: tuple[int, ...], most_x: int, most_y: int, most_z: int) -> np.ndarray:
    """Where a block's voxels lie behind its first one in memory, in C order.

    One row for each (side_y, side_z), as long as the largest side_x needs; a smaller block uses the row's
    beginning. It replaces three short nested loops in each block, whose ends the processor mispredicts.
    """
    places = np.zeros((most_y * most_z, most_x * most_y * most_z), np.int32)
    for side_y in range(1, most_y + 1):
        for side_z in range(1, most_z + 1):
            row = places[(side_y - 1) * most_z + side_z - 1]
            t = 0
            for x in range(most_x):
                for y in range(side_y):
                    for z in range(side_z):
                        row[t] = (x * shape[1] + y) * shape[2] + z
                        t += 1
    return places
