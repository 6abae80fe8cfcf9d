"""A folder of damaged scans: each is named in one line, and the whole one is done."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tests.conftest import run_preprocess
from tests.damaged.damage import (
    GREY,
    NO_FILES,
    Make,
    of,
)
from tests.preprocess.small_scans import chest, write

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

    sizes = ["--input_rows", "32", "--input_cols", "32", "--input_deps", "16", "--scale", "2", "--workers", "2"]
    run = run_preprocess("luna_pre", "--data", data, "--save", tmp_path / "save", *sizes)
    assert run.returncode == 1, run.stdout + run.stderr
    assert run.stderr == ""
    broken = [line.split(": ")[1].removeprefix("subset0/") for line in run.stdout.splitlines() if "broken: " in line]
    assert sorted(broken) == sorted(cases), run.stdout
    assert ": 2 pairs of 32 x 32 x 16 voxels in" in run.stdout
    written = [path.name for path in (tmp_path / "save" / "subset0").iterdir()]
    assert sorted(written) == ["whole.json", "whole_img_0.npy", "whole_img_1.npy"]
    assert (tmp_path / "save" / "luna_train.txt").read_text() == "whole\n"
