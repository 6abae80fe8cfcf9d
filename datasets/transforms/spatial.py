"""The spatial transform between a network's input and its reconstruction target, in 2D and 3D.

Flips first, then numpy's ``rot90`` by ``turns`` quarter turns from the first to the second spatial axis.
Its code is what the gate (transformation-conditioned attention) sees: the flips, then the quarter turns
one-hot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FLIPPED_AXES = {2: (0, 1), 3: (0, 1, 2)}  # 2D: vertical (rows), horizontal (columns); 3D: x, y, z


@dataclass(frozen=True)
class SpatialTransform:
    """``flips``: one truth value a spatial axis; ``turns``: quarter turns, 0..3."""

    flips: tuple[bool, ...]
    turns: int

    @classmethod
    def sample(cls, shape: tuple[int, ...], rng: np.random.Generator) -> SpatialTransform:
        """Draw each flip with p 0.5 and the turns uniformly, for an image of this *spatial* shape.

        Where the first two axes differ in length an odd quarter turn would change the shape: 0 or 2 then.
        """
        flips = tuple(bool(draw < 0.5) for draw in rng.random(len(shape)))
        turns = int(rng.integers(0, 4))
        if shape[0] != shape[1]:
            turns = 2 * (turns // 2)
        return cls(flips, turns)

    @property
    def code(self) -> np.ndarray:
        """float32 of length 6 in 2D, 7 in 3D: flips, then the one-hot of 0, 90, 180, 270 degrees."""
        code = np.zeros(len(self.flips) + 4, np.float32)
        code[: len(self.flips)] = self.flips
        code[len(self.flips) + self.turns] = 1
        return code

    @classmethod
    def from_code(cls, code: np.ndarray) -> SpatialTransform:
        """The transform that has this code."""
        dims = len(code) - 4
        return cls(tuple(bool(flip) for flip in code[:dims]), int(np.argmax(code[dims:])))

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Transform ``(..., *spatial)``; leading axes (channels) stay. Returns a view where it can."""
        dims = len(self.flips)
        axes = tuple(axis - dims for axis in FLIPPED_AXES[dims] if self.flips[axis])
        return np.rot90(np.flip(image, axes), self.turns, axes=(-dims, 1 - dims))

    def invert(self, image: np.ndarray) -> np.ndarray:
        """Undo :meth:`apply`, exactly."""
        dims = len(self.flips)
        axes = tuple(axis - dims for axis in FLIPPED_AXES[dims] if self.flips[axis])
        return np.flip(np.rot90(image, -self.turns, axes=(-dims, 1 - dims)), axes)
