"""A hundred damaged inputs: each is named in one line, in time, and nothing that a file holds is run."""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import subprocess
import sys
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

from datasets.ct.luna import LunaPairs, find_luna
from datasets.xray.chest import ChestPairs, find_chest
from datasets.xray.store import Store
from tests.conftest import ROOT
from tests.preprocess.small_scans import chest, write
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
def refused(name: str) -> Iterator[None]:
    """The block must raise a UserError of one line that has ``name`` in it, in time, and warn of nothing."""

    def hang(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"{name}: {SECONDS} s")

    former = signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserError) as caught:
                yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def of(content: bytes) -> Make:
    return lambda path: path.write_bytes(content)


def unreadable(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read any file: run the tests as another user")
    path.write_bytes(b"something")
    path.chmod(0)


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


# -- X-rays


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


# -- pairs of crops

SHAPE = (2, 16, 16, 16)
GOOD = np.full(SHAPE, 0.5, np.float32)


def saved(array: np.ndarray) -> Make:
    return lambda path: np.save(path, array)


def with_value(value: float, dtype: type = np.float32) -> Make:
    array = GOOD.astype(dtype)
    array[1, 3, 3, 3] = value
    return saved(array)


def headed(header: str, version: int = 1) -> bytes:
    """A .npy file with this header and the voxels of a good one."""
    text = header.encode("latin1")
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + GOOD.tobytes()


def described(shape: str = str(SHAPE), kind: str = "'<f4'") -> bytes:
    return headed(f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n")


def hostile_objects(path: Path) -> None:
    np.save(path, np.array([Hostile(path.parent / "ran")], dtype=object), allow_pickle=True)


def hostile_pickle(path: Path) -> None:
    path.write_bytes(f"cos\nmkdir\n(S'{path.parent / 'ran'}'\ntR.".encode())


def hostile_header(path: Path) -> None:
    path.write_bytes(headed(f"__import__('os').mkdir('{path.parent / 'ran'}')"))


def archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, GOOD)


NPY = described()
PAIRS: dict[str, Make] = {
    **{f"cut to {n} bytes": of(NPY[:n]) for n in (5, 8, 30, len(NPY) // 2, len(NPY) - 1)},
    "a PNG file": of(GREY),
    "an archive": archive,
    "one crop": saved(GOOD[:1]),
    "three axes": saved(GOOD[0]),
    "another size": saved(GOOD[..., :14]),
    "no voxels": saved(GOOD[:, :0]),
    "integers": saved(GOOD.astype(np.int16)),
    "records": saved(np.zeros(SHAPE, [("a", "<f4")])),
    "NaN": with_value(np.nan),
    "infinite": with_value(-np.inf),
    "Hounsfield units": with_value(-1000),
    "overflow": with_value(1e300, np.float64),
    "objects that run code": hostile_objects,
    "a pickle that runs code": hostile_pickle,
    "a header that runs code": hostile_header,
    "petabytes": of(described(str((2, 10**6, 10**6, 10**3)))),
    "more than 64 bits": of(described(f"(2, {2**70}, 4, 16)")),
    "64 bits wrapped": of(described(f"(2, {2**62}, 4, 16)")),
    "negative axes": of(described("(2, -16, -16, 16)")),
    "no numbers for axes": of(described("(2, True, 16, 16)")),
    "fractions for axes": of(described("(2, 16.0, 16, 16)")),
    "no such type": of(described(kind="'<f9999999999'")),
    "a huge type": of(described(kind=f"('<f4', ({10**12},))")),
    "no dict": of(headed("[1, 2, 3]")),
    "half a dict": of(headed("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 16")),
    "deep brackets": of(headed("[" * 9000)),
    "closed deep brackets": of(headed("(" * 4000 + ")" * 4000)),
    "a long header": of(headed("{'descr': '<f4', 'shape': (2,)}" + " " * 20_000, version=2)),
    "no such version": of(b"\x93NUMPY\x09\x00" + NPY[8:]),
}


@pytest.mark.parametrize("case", [*NO_FILES, *PAIRS])
def test_pair_of_crops(case: str, tmp_path: Path) -> None:
    good, bad = tmp_path / "1.2_img_0.npy", tmp_path / "1.2_img_1.npy"
    np.save(good, GOOD)
    (NO_FILES | PAIRS)[case](bad)
    pairs = LunaPairs([good, bad], 0)
    with refused(bad.name):
        pairs[(0, 1)]
    assert not (tmp_path / "ran").exists()
    pairs[(0, 0)]  # the others go on


# -- lists

LISTS = {name: make for name, make in NO_FILES.items() if name not in ("nothing there", "text", "page")} | {
    "white space": of(b" \n\t\n\n"),
    "UTF-16": of("00000001_000.png 0 1\n".encode("utf-16")),
    "Latin-1": of("Lungen\xf6del.png\n".encode("latin-1")),
}
LABELLED = {
    "labels of words": of(b"a.png 0 one\n"),
    "labels run dry": of(b"a.png 0 1\nb.png 0\n"),
    "others' images": of(b"x.png\ny.png\n"),
}


@pytest.mark.parametrize("case", [*LISTS, *LABELLED])
@pytest.mark.parametrize("given", [True, False])
def test_list_of_x_rays(case: str, given: bool, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(GREY)
    path = tmp_path / "chest_train.txt"
    (LISTS | LABELLED)[case](path)
    with refused(path.name):
        find_chest(tmp_path, str(path) if given else None)


@pytest.mark.parametrize("case", [*LISTS, "others' scans"])
def test_list_of_scans(case: str, tmp_path: Path) -> None:
    (tmp_path / "subset0").mkdir()
    np.save(tmp_path / "subset0" / "1.2_img_0.npy", GOOD)
    path = tmp_path / "luna_train.txt"
    (LISTS | {"others' scans": of(b"9.8\n9.9\n")})[case](path)
    with refused(path.name):
        find_luna(tmp_path, None, 1.0)


# -- stores of decoded X-rays

NAMES = ["a.png", "b.png"]
INDEX = np.array([[0, 4, 5, 1], [20, 4, 5, 1]])


def description(**changes: object) -> str:
    return json.dumps({"format": 1, "size": None, "names": NAMES} | changes)


def index_with(row: list[int]) -> np.ndarray:
    return np.array([row, INDEX[1]])


STORES: dict[str, tuple[str, np.ndarray | bytes]] = {
    "no JSON": ("half a {", INDEX),
    "a JSON list": ("[]", INDEX),
    "deep JSON": ("[" * 100_000, INDEX),
    "another format": (description(format=2), INDEX),
    "no names": (description(names=None), INDEX),
    "names of numbers": (description(names=[1, 2]), INDEX),
    "names in one word": (description(names="ab"), INDEX),
    "names twice": (description(names=["a.png", "a.png"]), INDEX),
    "one name too many": (description(names=[*NAMES, "c.png"]), INDEX),
    "index of fractions": (description(), INDEX / 1),
    "index of objects": (description(), INDEX.astype(object)),
    "index in one row": (description(), INDEX.ravel()),
    "negative sizes": (description(), index_with([0, -4, -5, 1])),
    "a start beyond the end": (description(), np.array([[0, 4, 5, 1], [400, 4, 5, 1]])),
    "a start before the first": (description(), index_with([-9, 4, 5, 1])),
    "two channels": (description(), index_with([0, 5, 2, 2])),
    "no height": (description(), np.array([[0, 40, 1, 1], [40, 0, 5, 1]])),
    "index of text": (description(), b"no index"),
    "index of petabytes": (description(), described(f"({10**15}, 4)", "'<i8'")),
    "index cut": (description(), described("(2, 4", "'<i8'")),
}


def make_store(folder: Path, described_as: str, index: np.ndarray | bytes) -> None:
    folder.mkdir()
    (folder / "store.json").write_text(described_as)
    (folder / "shard_00000.bin").write_bytes(bytes(40))
    path = folder / "shard_00000.npy"
    if isinstance(index, bytes):
        path.write_bytes(index)
    else:
        np.save(path, index, allow_pickle=True)


@pytest.mark.parametrize("case", STORES)
def test_store(case: str, tmp_path: Path) -> None:
    make_store(tmp_path / "whole", description(), INDEX)
    assert Store(tmp_path / "whole").read(str(tmp_path / "whole" / "b.png")).shape == (4, 5)
    make_store(tmp_path / "store", *STORES[case])
    with refused("store"):
        find_chest(tmp_path / "store", "none")


# -- scans

HEADER = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
ElementSpacing = 5 5 5
DimSize = 52 52 40
ElementType = MET_SHORT
ElementDataFile = whole.raw
"""


def header(line: str) -> Make:
    """The good header with one line changed; nothing after the equals sign: without it."""
    key, _, value = line.partition(" = ")
    lines = [line if one.startswith(key) else one for one in HEADER.splitlines()]
    return of("\n".join(one for one in lines if value or one != line).encode() + b"\n")


SCANS: dict[str, Make] = {
    name.replace(" ", "_"): make for name, make in NO_FILES.items() if name != "nothing there" and "folder" not in name
} | {
    "no_data": header("ElementDataFile = absent.raw"),
    "short_data": header("ElementDataFile = short.raw"),
    "empty_data": header("ElementDataFile = empty.raw"),
    "folder_data": header("ElementDataFile = folder.raw"),
    "link_data": header("ElementDataFile = loop.raw"),
    "foreign_data": header("ElementDataFile = g\xf6\u2620.raw"),
    "own_data": header("ElementDataFile = own_data.mhd"),
    "no_data_line": header("ElementDataFile = "),
    "negative_spacing": header("ElementSpacing = -5 5 5"),
    "zero_spacing": header("ElementSpacing = 0 5 5"),
    "nan_spacing": header("ElementSpacing = nan 5 5"),
    "endless_spacing": header("ElementSpacing = inf 5 5"),
    "tiny_spacing": header("ElementSpacing = 1e-300 5 5"),
    "huge_spacing": header("ElementSpacing = 1e300 5 5"),
    "spacing_of_words": header("ElementSpacing = a b c"),
    "huge_size": header("DimSize = 100000 100000 100000"),
    "negative_size": header("DimSize = -52 52 40"),
    "wrapped_size": header(f"DimSize = {2**32 + 1} {2**32 + 1} {2**32 + 1}"),
    "no_size": header("DimSize = 0 52 40"),
    "crashing_reader": header("NDims = -1"),
    "no_such_type": header("ElementType = MET_FOO"),
    "no_rotation": header("TransformMatrix = 0 0 0 0 0 0 0 0 0"),
    "no_zlib": header("CompressedData = True"),
    "half_a_header": of(HEADER[:120].encode()),
    "key_of_bytes": of(HEADER.encode().replace(b"DimSize", b"Dim\xff\xfe\x00")),
    "png": of(GREY),
}


def test_scans_all_in_one_folder(tmp_path: Path) -> None:
    """Each is named, the good one is done, the exit status is 1."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "whole.raw").write_bytes(chest().tobytes())
    (data / "whole.mhd").write_text(HEADER)
    (data / "short.raw").write_bytes(bytes(5000))
    (data / "empty.raw").touch()
    (data / "folder.raw").mkdir()
    (data / "loop.raw").symlink_to(data / "loop.raw")
    cases = dict(SCANS)
    if os.geteuid() == 0:
        del cases["no_permission"]
    for name, make in cases.items():
        make(data / f"{name}.mhd")
    for name, value in {"nan": np.nan, "infinite": np.inf, "overflow": 1e300}.items():
        voxels = chest().astype(np.float64)
        voxels[0, 0, 0] = value
        write(data / f"{name}.nrrd", voxels)
        cases[name] = of(b"")

    command = [sys.executable, str(ROOT / "preprocess" / "luna_pre.py"), "--data", str(data)]
    sizes = ["--input_rows", "32", "--input_cols", "32", "--input_deps", "16", "--scale", "2", "--workers", "2"]
    run = subprocess.run(
        [*command, "--save", str(tmp_path / "save"), *sizes], capture_output=True, text=True, timeout=600, check=False
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert run.stderr == ""
    broken = [line.split(": ")[1].removeprefix("subset0/") for line in run.stdout.splitlines() if "broken: " in line]
    assert sorted(broken) == sorted(cases), run.stdout
    assert ": 2 pairs of 32 x 32 x 16 voxels in" in run.stdout
    written = [path.name for path in (tmp_path / "save" / "subset0").iterdir()]
    assert sorted(written) == ["whole.json", "whole_img_0.npy", "whole_img_1.npy"]
    assert (tmp_path / "save" / "luna_train.txt").read_text() == "whole\n"
