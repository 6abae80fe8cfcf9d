"""Damaged X-rays: each is named in one line, in time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.xray.chest import ChestPairs
from tests.damaged.damage import (
    COLOUR,
    DEEP,
    GREY,
    JPEG,
    NO_FILES,
    NOISE,
    encoded,
    of,
    png,
    refused,
)

XRAYS = {
    **{f"grey cut at {n}/8": of(GREY[: len(GREY) * n // 8]) for n in range(1, 8)},
    **{f"colour cut at {n}/4": of(COLOUR[: len(COLOUR) * n // 4]) for n in range(1, 4)},
    **{f"16 bits cut at {n}/4": of(DEEP[: len(DEEP) * n // 4]) for n in range(1, 4)},
    **{f"JPEG cut at {n}/4": of(JPEG[: len(JPEG) * n // 4]) for n in range(1, 4)},
    "a .npy file": lambda path: np.save(path.open("wb"), NOISE),
    "a BMP file": of(encoded(Image.fromarray(NOISE), "BMP")),
    "a TIFF file": of(encoded(Image.fromarray(NOISE), "TIFF")),
    "a bomb, grey": of(png(100_000, 100_000)),
    "a bomb, colour": of(png(20_000, 20_000, colour=2)),
    "a bomb, the largest": of(png(2**31 - 1, 2**31 - 1)),
    "no width": of(png(0, 5)),
    "no such depth": of(png(4, 4, depth=7)),
    "no such colour": of(png(4, 4, colour=5)),
    "no such filter": of(png(4, 4, rows=b"\x09" + bytes(19))),
    "too few pixels": of(png(40, 40, rows=bytes(20))),
    "too few interlaced": of(png(40, 40, rows=bytes(20), interlaced=1)),
    "wrong checksum": of(GREY[:29] + b"none" + GREY[33:]),
    "broken stream": of(GREY[:60] + b"\xff\x00" * 20 + GREY[100:]),
    "a DICOM mark alone": of(bytes(128) + b"DICM" + bytes(range(200))),
}


@pytest.mark.parametrize("case", [*NO_FILES, *XRAYS])
def test_x_ray(case: str, tmp_path: Path) -> None:
    path = tmp_path / "00000001_000.png"
    (NO_FILES | XRAYS)[case](path)
    pairs = ChestPairs([str(path)], 0, size=32)
    with refused(path.name):
        pairs[(0, 0)]


def test_a_jpeg_file_called_png_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(JPEG)
    assert ChestPairs([str(tmp_path / "x.png")], 0, size=32)[(0, 0)]["gt1"].shape == (3, 32, 32)
