"""Decoders for PNG: a fast one for what X-rays mostly are, and one for what PIL cuts down to 8 bits.

X-rays mostly have one grey channel of 8 bits, not interlaced. PIL needs 9 to 13 ms for a 1024 x 1024 X-ray of
ChestX-ray14, half of all that a training sample costs; this decoder gives the same pixels in 4.5 ms with ISA-L's
inflate, where the package ``isal`` is installed, and in 8 with Python's own zlib. Every file in which anything is
unusual or damaged is left to PIL, which is also who words the errors.

Of colour, and of grey with alpha, PIL keeps the upper 8 of 16 bits: the second decoder keeps all.
"""

from __future__ import annotations

import struct
import zlib
from importlib import import_module

import numpy as np

from utils.jit import compiled

try:
    inflater = import_module("isal.isal_zlib")  # optional; the same interface as zlib
except ImportError:
    inflater = zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY_8_BIT = (8, 0, 0, 0, 0)  # bit depth, colour type grey, compression, filter method, not interlaced
DEEP_CHANNELS = {2: 3, 4: 2, 6: 4}  # of colour, grey with alpha, colour with alpha; by colour type
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # x, y, steps
TURNED_OR_MOVING = (b"eXIf", b"acTL")  # chunks of how the camera was held, and of animations
TEXTS_ABOUT_IT = (b"Raw profile type", b"XML:com.adobe.xmp")  # which older programs write instead
LARGEST = 1 << 26  # pixels; above that PIL's own guard against decompression bombs decides


def decode_grey(data: bytes) -> np.ndarray | None:
    """uint8 (height, width) of the whole PNG file in ``data``; None if it is not a plain grey one."""
    header = _header(data)
    if header is None:
        return None
    height, width = header
    compressed = _compressed_pixels(data)
    if compressed is None:
        return None
    size = height * (width + 1)  # each row starts with one byte, the number of its filter
    try:
        stream = inflater.decompressobj()
        raw = stream.decompress(compressed, size + 1)  # one more than there may be, so that more is noticed
    except (zlib.error, inflater.error):
        return None
    if len(raw) != size or not stream.eof:  # eof: the checksum at the end was there, and right
        return None
    pixels = np.empty((height, width), np.uint8)
    return pixels if _undo_filters(np.frombuffer(raw, np.uint8), pixels) else None


def _header(data: bytes) -> tuple[int, int] | None:
    """Height and width if the file begins as a grey 8-bit PNG whose header is undamaged."""
    if data[:8] != SIGNATURE or data[8:16] != b"\x00\x00\x00\x0dIHDR" or len(data) < 33:
        return None
    width, height, *kind = struct.unpack_from(">IIBBBBB", data, 16)
    (checksum,) = struct.unpack_from(">I", data, 29)
    if tuple(kind) != GREY_8_BIT or checksum != zlib.crc32(data[12:29]):
        return None
    return (height, width) if 0 < height * width <= LARGEST else None


def _compressed_pixels(data: bytes, alone: bool = True) -> bytes | None:
    """The contents of all IDAT chunks, joined; what there is of them, if the file was cut short.

    ``alone``: None if other chunks say that the pixels alone are not what is to be seen.
    """
    parts = []
    position = len(SIGNATURE)
    while position + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, start = data[position + 4 : position + 8], position + 8
        if kind == b"IDAT":
            parts.append(data[start : start + length])
        elif alone and _says_more(kind, data, start):
            return None
        position += length + 12  # length, name and checksum have four bytes each
    return b"".join(parts)


def _says_more(kind: bytes, data: bytes, start: int) -> bool:
    """Whether a chunk of this kind, whose content begins at ``start``, turns the image or lets it move."""
    text = kind in (b"tEXt", b"zTXt", b"iTXt")
    return kind in TURNED_OR_MOVING or (text and data.startswith(TEXTS_ABOUT_IT, start))


def is_deep_colour(data: bytes) -> bool:
    """Whether it begins as a PNG of 16 bits with several channels."""
    return data.startswith(SIGNATURE) and data[24:25] == b"\x10" and data[25] in DEEP_CHANNELS


def decode_deep_colour(data: bytes) -> np.ndarray:
    """uint16 (height, width, channels) of a PNG file that :func:`is_deep_colour` and PIL have found to be whole."""
    width, height, _, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    channels = DEEP_CHANNELS[colour]
    raw = np.frombuffer(zlib.decompress(_compressed_pixels(data, alone=False) or b""), np.uint8).copy()
    image = np.empty((height, width, channels), np.uint16)
    position = 0
    for x, y, step_x, step_y in ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = image[y::step_y, x::step_x]
        if not part.size:
            continue
        shape = (part.shape[0], 1 + 2 * part[0].size)
        rows = raw[position : position + shape[0] * shape[1]].reshape(shape)
        position += rows.size
        if not _undo_wide_filters(rows, 2 * channels):
            raise ValueError("there is no such PNG filter")
        part[...] = np.ascontiguousarray(rows[:, 1:]).view(">u2").reshape(part.shape)
    return image


@compiled
def _undo_filters(raw: np.ndarray, pixels: np.ndarray) -> bool:
    """Fill ``pixels`` from the filtered rows in ``raw`` (PNG specification, 9.2); False for no such filter.

    A pixel's value is the sum, modulo 256, of what is stored and of a prediction from its neighbours to the
    left, above, and above left, which are 0 outside the image.
    """
    height, width = pixels.shape
    above = np.zeros(width, np.uint8)
    for y in range(height):
        kind = raw[y * (width + 1)]
        stored = raw[y * (width + 1) + 1 : (y + 1) * (width + 1)]
        row = pixels[y]
        left = np.int32(0)
        if kind == 0:
            row[:] = stored
        elif kind == 1:
            for x in range(width):
                left = (left + stored[x]) & 255
                row[x] = left
        elif kind == 2:
            for x in range(width):
                row[x] = stored[x] + above[x]
        elif kind == 3:
            for x in range(width):
                left = (stored[x] + ((left + above[x]) >> 1)) & 255
                row[x] = left
        elif kind == 4:
            corner = np.int32(0)
            for x in range(width):  # Paeth: of left, up and corner the nearest to left + up - corner, but
                up = np.int32(above[x])  # worked out without a branch, and with little waiting for `left`
                smaller, larger = min(left, up), max(left, up)
                threshold = np.int32(3 * corner - up - left)
                nearest = smaller if larger <= threshold else corner
                nearest = larger if threshold <= smaller else nearest
                left = np.int32((nearest + stored[x]) & 255)
                row[x] = left
                corner = up
        else:
            return False
        above = row
    return True


@compiled
def _undo_wide_filters(rows: np.ndarray, step: int) -> bool:
    """The same in place, for rows of several bytes a pixel, each with its filter's number in front."""
    for y in range(rows.shape[0]):
        kind = rows[y, 0]
        if kind > 4:
            return False
        for x in range(1, rows.shape[1]):
            left = np.int32(rows[y, x - step]) if x > step else np.int32(0)
            up = np.int32(rows[y - 1, x]) if y > 0 else np.int32(0)
            corner = np.int32(rows[y - 1, x - step]) if y > 0 and x > step else np.int32(0)
            guess = np.int32(0)
            if kind == 1:
                guess = left
            elif kind == 2:
                guess = up
            elif kind == 3:
                guess = (left + up) >> 1
            elif kind == 4:
                to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
                guess = corner
                if to_up <= to_corner:
                    guess = up
                if to_left <= to_up and to_left <= to_corner:
                    guess = left
            rows[y, x] = (rows[y, x] + guess) & 255
    return True
