"""Damaged lists of X-rays and scans, and stores of X-rays: each is named in one line, in time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from datasets.ct.luna import find_luna
from datasets.xray.chest import find_chest
from datasets.xray.store import Store
from tests.damaged.damage import (
    GOOD,
    GREY,
    NO_FILES,
    described,
    of,
    refused,
)

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
