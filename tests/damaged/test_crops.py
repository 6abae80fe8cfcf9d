"""Damaged pairs of crops: each is named in one line, in time, and nothing that a file holds is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.ct.luna import LunaPairs
from tests.damaged.damage import (
    GOOD,
    GREY,
    NO_FILES,
    NPY,
    SHAPE,
    Hostile,
    Make,
    described,
    headed,
    of,
    refused,
)


def saved(array: np.ndarray) -> Make:
    return lambda path: np.save(path, array)


def with_value(value: float, dtype: type = np.float32) -> Make:
    array = GOOD.astype(dtype)
    array[1, 3, 3, 3] = value
    return saved(array)


def hostile_objects(path: Path) -> None:
    np.save(path, np.array([Hostile(path.parent / "ran")], dtype=object), allow_pickle=True)


def hostile_pickle(path: Path) -> None:
    path.write_bytes(f"cos\nmkdir\n(S'{path.parent / 'ran'}'\ntR.".encode())


def hostile_header(path: Path) -> None:
    path.write_bytes(headed(f"__import__('os').mkdir('{path.parent / 'ran'}')"))


def archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, GOOD)


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
