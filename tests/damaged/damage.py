"""What is wrong with files: damage of every kind, and what must come of it."""

from __future__ import annotations

import io
import os
import signal
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from utils.errors import UserError

SECONDS = 60  # more than any of them takes on a slow machine; a hang is found, not waited for
Make = Callable[[Path], Any]  # puts the damaged thing at a path


class Hostile:
    """Unpickling this makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@contextmanager
def in_time(name: str) -> Iterator[None]:
    """The block must end within SECONDS."""

    def hang(signum: int, frame: FrameType | None) -> None:
        pytest.fail(f"{name}: it hangs for {SECONDS} s")

    former = signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


@contextmanager
def refused(name: str) -> Iterator[None]:
    """The block must raise a UserError of one line that has ``name`` in it, in time, and warn of nothing."""
    with in_time(name), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError) as caught:
            yield
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def of(content: bytes) -> Make:
    return lambda path: path.write_bytes(content)


def unreadable(path: Path) -> None:
    path.write_bytes(b"something")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read any file: run the tests as another user, or without CAP_DAC_OVERRIDE")


NO_FILES: dict[str, Make] = {
    "nothing there": lambda path: None,
    "zero bytes": of(b""),
    "zeros": of(bytes(1000)),
    "text": of(b"no such thing\n"),
    "page": of(b"<!DOCTYPE html><title>404 Not Found</title>"),
    "garbage": of(np.random.default_rng(0).bytes(3000)),
    "folder": lambda path: path.mkdir(),
    "link to itself": lambda path: path.symlink_to(path),
    "link to nothing": lambda path: path.symlink_to(path.parent / "nothing"),
    "link to a folder": lambda path: path.symlink_to(path.parent),
    "no permission": unreadable,
}


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


NOISE = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
GREY, COLOUR = encoded(Image.fromarray(NOISE[..., 0])), encoded(Image.fromarray(NOISE))
DEEP, JPEG = encoded(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 200)), encoded(Image.fromarray(NOISE), "JPEG")


def png(width: int, height: int, depth: int = 8, colour: int = 0, rows: bytes = b"", interlaced: int = 0) -> bytes:
    """A PNG file whose header says this, and whose pixels are ``rows``."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


SHAPE = (2, 16, 16, 16)
GOOD = np.full(SHAPE, 0.5, np.float32)


def headed(header: str, version: int = 1) -> bytes:
    """A .npy file with this header and the voxels of a good one."""
    text = header.encode("latin1")
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + GOOD.tobytes()


def described(shape: str = str(SHAPE), kind: str = "'<f4'") -> bytes:
    return headed(f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n")


NPY = described()
