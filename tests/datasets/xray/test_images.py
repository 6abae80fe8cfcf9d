"""Reading images: every kind that people have, and every kind of damage."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.xray import png
from datasets.xray.images import read_image
from tests.examples import examples
from utils.errors import UserError

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "Chest14" / "images"
RNG = np.random.default_rng(0)
GREY = np.linspace(0, 255, 24 * 20).reshape(24, 20).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_file(width: int, height: int, rows: bytes, pieces: int = 1) -> bytes:
    """A grey 8-bit PNG of rows that are filtered already, each with its filter's number in front."""
    data = zlib.compress(rows)
    step = -(-len(data) // pieces)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    parts = [chunk(b"IDAT", data[i : i + step]) for i in range(0, len(data), step)]
    return png.SIGNATURE + header + chunk(b"tIME", bytes(7)) + b"".join(parts) + chunk(b"IEND", b"")


def by_pil(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


INFLATERS = [
    pytest.param("zlib", id="zlib"),
    pytest.param(
        "isal.isal_zlib",
        marks=pytest.mark.skipif(not importlib.util.find_spec("isal"), reason="isal is not made for this processor"),
        id="isal",
    ),
]


@pytest.fixture(params=INFLATERS)
def inflater(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "inflater", importlib.import_module(request.param))


@pytest.mark.usefixtures("inflater")
class TestFastPng:
    """Rows of random bytes under random filters: every filter, on every kind of neighbour."""

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (5, 3), (64, 50), (300, 7)])
    @pytest.mark.parametrize("pieces", [1, 3])
    def test_equals_pil_for_every_filter(self, height: int, width: int, pieces: int) -> None:
        for kinds in [[0], [1], [2], [3], [4], [0, 1, 2, 3, 4]]:
            rows = RNG.integers(0, 256, (height, width + 1), dtype=np.uint8)
            rows[:, 0] = RNG.choice(kinds, height)
            data = png_file(width, height, rows.tobytes(), pieces)
            pixels = png.decode_grey(data)
            assert pixels is not None
            np.testing.assert_array_equal(pixels, by_pil(data))

    def test_what_is_unusual_is_left_to_pil(self) -> None:
        rows = bytes(4 * 5)
        good = png_file(4, 4, rows)
        assert png.decode_grey(good) is not None
        assert png.decode_grey(good[:-12]) is not None  # without IEND all pixels are there
        assert png.decode_grey(png_file(4, 4, rows[:-1])) is None
        assert png.decode_grey(png_file(4, 4, rows + b"0")) is None
        assert png.decode_grey(png_file(4, 4, b"\x05" + rows[1:])) is None  # there is no filter 5
        assert png.decode_grey(png_file(4, 0, b"")) is None
        assert png.decode_grey(good[:29] + b"bad!" + good[33:]) is None  # the header's checksum
        checksum = good.index(b"IEND") - 4 - 4 - 4  # the last byte of the pixels' own checksum is before it
        assert png.decode_grey(good[: checksum - 1] + b"\x99" + good[checksum:]) is None
        assert all(png.decode_grey(good[:length]) is None for length in range(len(good) - 17))

    def test_a_bomb_is_not_inflated(self) -> None:
        assert png.decode_grey(png_file(4, 4, bytes(50_000_000))) is None
        huge = chunk(b"IHDR", struct.pack(">IIBBBBB", 1 << 30, 1 << 30, 8, 0, 0, 0, 0))
        assert png.decode_grey(png.SIGNATURE + huge + chunk(b"IDAT", zlib.compress(b""))) is None

    @pytest.mark.skipif(
        not REAL.is_dir(), reason="needs the real X-rays in ../shared/data, which are no part of the project"
    )
    def test_equals_pil_on_real_x_rays(self) -> None:
        for path in sorted(REAL.iterdir())[::20]:
            pixels = png.decode_grey(path.read_bytes())
            assert pixels is not None
            np.testing.assert_array_equal(pixels, by_pil(path.read_bytes()))


def save(folder: Path, image: Image.Image, name: str = "x.png", **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


def test_grey_of_8_bits_comes_as_it_is(tmp_path: Path) -> None:
    pixels = read_image(save(tmp_path, Image.fromarray(GREY)))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, GREY)


def test_alpha_is_dropped_and_equal_channels_are_grey(tmp_path: Path) -> None:
    alpha = (255 - GREY)[..., None]
    grey = GREY[..., None].repeat(3, axis=-1)
    np.testing.assert_array_equal(read_image(save(tmp_path, Image.fromarray(np.append(grey, alpha, -1)))), GREY)
    np.testing.assert_array_equal(read_image(save(tmp_path, Image.fromarray(grey))), GREY)
    np.testing.assert_array_equal(read_image(save(tmp_path, Image.fromarray(np.append(COLOUR, alpha, -1)))), COLOUR)
    np.testing.assert_array_equal(read_image(save(tmp_path, Image.fromarray(COLOUR))), COLOUR)
    with_alpha = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(255 - GREY)])
    np.testing.assert_array_equal(read_image(save(tmp_path, with_alpha)), GREY)


@pytest.mark.filterwarnings("error")
def test_palettes_and_single_bits(tmp_path: Path) -> None:
    colours = Image.fromarray((GREY // 64).astype(np.uint8)).convert("P")
    colours.putpalette([10, 10, 10, 90, 90, 90, 130, 130, 130, 250, 250, 250])
    expected = np.array([10, 90, 130, 250], np.uint8)[GREY // 64]
    np.testing.assert_array_equal(read_image(save(tmp_path, colours)), expected)
    np.testing.assert_array_equal(read_image(save(tmp_path, colours, transparency=bytes([0, 9, 9, 255]))), expected)
    bits = Image.fromarray(GREY > 100)
    np.testing.assert_array_equal(read_image(save(tmp_path, bits)), np.where(GREY > 100, 255, 0))


def test_jpeg_in_grey_colour_and_cmyk(tmp_path: Path) -> None:
    assert read_image(save(tmp_path, Image.fromarray(GREY), "x.jpg")).shape == (24, 20)
    assert read_image(save(tmp_path, Image.fromarray(COLOUR), "x.jpeg")).shape == (24, 20, 3)
    assert read_image(save(tmp_path, Image.fromarray(COLOUR).convert("CMYK"), "x.jpg")).shape == (24, 20, 3)
    grey_as_colour = read_image(save(tmp_path, Image.fromarray(GREY).convert("RGB"), "x.jpg", quality=95))
    np.testing.assert_allclose(grey_as_colour.astype(int), GREY, atol=6)
    assert grey_as_colour.shape == (24, 20)


def test_16_bits_are_stretched_from_the_smallest_to_the_largest_value(tmp_path: Path) -> None:
    twelve_bits = np.array([[100, 1100], [2100, 4100]], np.uint16)
    expected = [[0, 64], [128, 255]]  # (v - 100) / 4000 * 255, rounded to even where half
    np.testing.assert_array_equal(read_image(save(tmp_path, Image.fromarray(twelve_bits))), expected)
    sixteen_bits = Image.fromarray((twelve_bits - 100) * 16 + 1535)
    np.testing.assert_array_equal(read_image(save(tmp_path, sixteen_bits)), expected)
    flat = Image.fromarray(np.full((3, 4), 777, np.uint16))
    np.testing.assert_array_equal(read_image(save(tmp_path, flat)), np.zeros((3, 4)))


DAMAGE = {
    "empty": b"",
    "text": b"this is no image\n",
    "html": b"<html>404 Not Found</html>",
    "only a signature": png.SIGNATURE,
    "gif": b"GIF89a" + bytes(60),
    "huge": png.SIGNATURE
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(b"")),
    "garbage with a DICOM mark": bytes(128) + b"DICM" + bytes(range(200)),
}


def test_damaged_files_are_named_one_after_the_other(tmp_path: Path) -> None:
    """Many in one process: one damaged file must not spoil the reading of the next."""
    good = save(tmp_path, Image.fromarray(GREY), "good.png")
    colour = save(tmp_path, Image.fromarray(COLOUR), "colour.png").read_bytes()
    jpeg = save(tmp_path, Image.fromarray(COLOUR), "colour.jpg").read_bytes()
    cut = {
        f"cut {len(data)} {n}": data[: len(data) * n // 8]
        for data in (good.read_bytes(), colour, jpeg)
        for n in range(7)
    }
    for name, data in (DAMAGE | cut).items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(data)
        with pytest.raises(UserError) as caught:
            read_image(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        np.testing.assert_array_equal(read_image(good), GREY)


def test_what_is_no_file_is_named_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.png cannot be read: No such file"):
        read_image(tmp_path / "absent.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"folder\.png cannot be read: Is a directory"):
        read_image(tmp_path / "folder.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(UserError, match=r"empty\.png is empty: it has 0 bytes"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(UserError, match=r"text\.png cannot be decoded: it is no PNG, JPEG or DICOM file"):
        read_image(tmp_path / "text.png")


@settings(deadline=None, max_examples=examples(150), derandomize=True)
@given(data=st.data(), kind=st.sampled_from(["grey.png", "colour.png", "deep.png", "colour.jpg"]))
def test_any_change_gives_an_image_or_a_user_error(
    data: st.DataObject, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    arrays = {"grey": GREY, "colour": COLOUR, "deep": GREY.astype(np.uint16) * 200}
    content = bytearray(save(folder, Image.fromarray(arrays[kind.split(".")[0]]), kind).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / kind).write_bytes(content)
    with contextlib.suppress(UserError):
        pixels = read_image(folder / kind)
        assert pixels.dtype == np.uint8
        assert pixels.ndim in (2, 3)
