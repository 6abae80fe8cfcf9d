"""PNG and JPEG as few programs write them: 16 bits with several channels, turned, animated, in all sizes."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from datasets.xray.chest import ChestPairs
from datasets.xray.images import read_image
from datasets.xray.labelled import SingleXRays
from tests.cases_xray import chunk, png_16_bits
from utils.errors import UserError

RNG = np.random.default_rng(0)
DEEP = RNG.integers(800, 3200, (37, 29)).astype(np.uint16)
DEEP[0, :2] = 800, 3199
STRETCHED = np.rint((DEEP.astype(float) - 800) / 2399 * 255)
ORIENTATION = 0x0112


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("filters", [(0,), (1,), (2,), (3,), (4,), (4, 3, 2, 1, 0)], ids=str)
@pytest.mark.parametrize("kind", ["grey", "grey and alpha", "RGB", "RGBA"])
def test_16_bits_whatever_the_channels(tmp_path: Path, kind: str, filters: tuple[int, ...], interlaced: bool) -> None:
    channels = {"grey": 1, "grey and alpha": 1, "RGB": 3, "RGBA": 3}[kind]
    pixels = DEEP[..., None].repeat(channels, axis=-1)
    if "A" in kind or "alpha" in kind:
        pixels = np.append(pixels, RNG.integers(0, 65536, (*DEEP.shape, 1), dtype=np.uint16), axis=-1)
    (tmp_path / "x.png").write_bytes(png_16_bits(pixels, interlaced, filters))
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), STRETCHED)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (3, 2), (64, 50)])
@pytest.mark.parametrize("interlaced", [False, True])
def test_16_bits_in_colour_of_any_shape(tmp_path: Path, shape: tuple[int, int], interlaced: bool) -> None:
    pixels = RNG.integers(0, 65536, (*shape, 3), dtype=np.uint16)
    low, high = int(pixels.min()), int(pixels.max())
    (tmp_path / "x.png").write_bytes(png_16_bits(pixels, interlaced))
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), np.rint((pixels - float(low)) / (high - low) * 255))
    upper = np.asarray(Image.open(tmp_path / "x.png"))  # the 8 that PIL keeps
    np.testing.assert_array_equal(pixels >> 8, upper)  # of the file that was written here


def test_damaged_16_bits_are_one_line(tmp_path: Path) -> None:
    whole = png_16_bits(DEEP[..., None].repeat(3, axis=-1))
    for length in range(8, len(whole) - 20, 97):
        (tmp_path / "x.png").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"x\.png cannot be decoded: "):
            read_image(tmp_path / "x.png")


def turned(orientation: int, name: str, pixels: np.ndarray) -> tuple[bytes, np.ndarray]:
    """A file that says it lies in this way, and its image as PIL turns it."""
    image, exif, out = Image.fromarray(pixels), Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = orientation
    image.save(out, "PNG" if name.endswith("png") else "JPEG", exif=exif)
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(out.getvalue())))
    assert shown is not None
    return out.getvalue(), np.asarray(shown)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["x.jpg", "x.png"])
@pytest.mark.parametrize("colour", [False, True])
def test_images_stand_as_viewers_show_them(tmp_path: Path, name: str, orientation: int, colour: bool) -> None:
    pixels = np.add.outer(np.arange(24) * 5, np.arange(16) * 3).astype(np.uint8)
    if colour:
        pixels = np.stack([pixels, pixels[::-1], 255 - pixels], axis=-1)
    data, shown = turned(orientation, name, pixels)
    (tmp_path / name).write_bytes(data)
    image = read_image(tmp_path / name)
    assert image.shape[:2] == ((16, 24) if orientation > 4 else (24, 16))
    np.testing.assert_array_equal(image, shown)


def test_a_png_that_older_programs_turned(tmp_path: Path) -> None:
    """ImageMagick writes EXIF as a text, others XMP."""
    pixels, text = RNG.integers(0, 256, (24, 16), dtype=np.uint8), PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>')
    Image.fromarray(pixels).save(tmp_path / "x.png", pnginfo=text)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), np.rot90(pixels, -1))
    other = PngInfo()
    other.add_text("Comment", "Orientation 6")
    Image.fromarray(pixels).save(tmp_path / "y.png", pnginfo=other)
    np.testing.assert_array_equal(read_image(tmp_path / "y.png"), pixels)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(9), b"Exif\0\0garbage" * 9]
)
def test_damaged_exif_is_passed_over(tmp_path: Path, exif: bytes) -> None:
    pixels = RNG.integers(0, 256, (24, 16), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif or None)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), pixels)
    Image.fromarray(pixels).save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").shape == (24, 16)


def test_an_animation_is_no_image(tmp_path: Path) -> None:
    frames = [Image.fromarray(RNG.integers(0, 256, (24, 16), dtype=np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / "x.png", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match=r"x\.png cannot be decoded: it holds 3 frames, not one image"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "GIF", "WEBP"])
def test_other_kinds_are_refused_under_any_name(tmp_path: Path, kind: str) -> None:
    pages = [Image.fromarray(RNG.integers(0, 256, (24, 16), dtype=np.uint8)) for _ in range(2)]
    pages[0].save(
        tmp_path / "x.png", kind, **({"save_all": True, "append_images": pages[1:]} if kind == "TIFF" else {})
    )
    with pytest.raises(UserError, match=r"x\.png cannot be decoded: it is no PNG, JPEG or DICOM file"):
        read_image(tmp_path / "x.png")


def test_pixels_count_and_not_the_suffix(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (24, 16), dtype=np.uint8)
    for name in ("x.PNG", "x.jpg", "x.dcm", "x"):
        Image.fromarray(pixels).save(tmp_path / name, "PNG")
        np.testing.assert_array_equal(read_image(tmp_path / name), pixels)


def test_cmyk_shows_its_colours(tmp_path: Path) -> None:
    smooth = np.linspace(40, 220, 32 * 32).reshape(32, 32)
    colour = np.stack([smooth, smooth.T, 255 - smooth], axis=-1).astype(np.uint8)
    Image.fromarray(colour).convert("CMYK").save(tmp_path / "x.jpg", quality=98)
    np.testing.assert_allclose(read_image(tmp_path / "x.jpg").astype(int), colour, atol=12)


def test_few_bits(tmp_path: Path) -> None:
    levels = RNG.integers(0, 4, (8, 8), dtype=np.uint8)
    rows = b"".join(
        b"\0" + bytes([a << 6 | b << 4 | c << 2 | d for a, b, c, d in row.reshape(-1, 4)]) for row in levels
    )
    header = struct.pack(">IIBBBBB", 8, 8, 2, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(data)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), levels * 85)


def test_an_image_of_one_pixel_makes_samples(tmp_path: Path) -> None:
    Image.fromarray(np.full((1, 1), 90, np.uint8)).save(tmp_path / "x.png")
    Image.fromarray(np.full((1, 300), 90, np.uint8)).save(tmp_path / "y.png")
    for name in ("x.png", "y.png"):
        sample = ChestPairs([str(tmp_path / name)], 0, 3, 32)[0, 0]
        assert sample["gt1"].shape == (3, 32, 32)
        assert all(bool(values.isfinite().all()) for values in sample.values())
        assert SingleXRays([tmp_path / name], size=32)[0, 0]["image"].isfinite().all()
