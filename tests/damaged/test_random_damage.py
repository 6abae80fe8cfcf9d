"""Files with random damage: each reader refuses them in one line, or reads what they hold; none hangs.

A changed voxel of raw data shows in no format without a checksum. So what is read after damage must be well-formed, and
equal to the undamaged values where the file was only cut short, or its format has a checksum.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image

from datasets.ct.errors import ScanError
from datasets.ct.luna import read_lines, read_pair
from datasets.segmentation.splits import read_split
from datasets.xray.images import read_image as read_xray
from datasets.xray.lists import read_list
from preprocess.volumes.files import Scan
from preprocess.volumes.volume import read_image as read_scan
from tests.cases_ct import write_nifti
from tests.cases_xray import dicom
from tests.damaged.damage import in_time
from utils import torch_file
from utils.errors import UserError

EACH = 25  # damaged files of each format
NAMES = [f"{number:08d}_000.png" for number in range(40)]
RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (48, 56), dtype=np.uint8)
VOXELS = RNG.integers(-1000, 1000, (12, 14, 16)).astype(np.int16)
CHECKED = ("x.png", "scan.nii.gz")  # their formats have checksums


def write_jpeg(path: Path) -> None:
    Image.fromarray(PIXELS).save(path, quality=90)


def write_scan(path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(path))


def write_pair(path: Path) -> None:
    np.save(path, np.random.default_rng(4).random((2, 16, 16, 16)).astype(np.float32))


def write_split(path: Path) -> None:
    path.write_text(json.dumps([{"train": NAMES[:20], "val": NAMES[20:30]}]))


def scan_of(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(read_scan(Scan(0, "scan", (path,))))


WRITE_READ: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "x.png": (lambda path: Image.fromarray(PIXELS).save(path), read_xray),
    "x.jpg": (write_jpeg, read_xray),
    "x.dcm": (lambda path: dicom(path, PIXELS), read_xray),
    "scan.mhd": (write_scan, scan_of),
    "scan.mha": (write_scan, scan_of),
    "scan.nrrd": (write_scan, scan_of),
    "scan.nii": (lambda path: write_nifti(path, VOXELS, np.eye(4)), scan_of),
    "scan.nii.gz": (lambda path: write_nifti(path, VOXELS, np.eye(4)), scan_of),
    "1.2.3_img_0.npy": (write_pair, read_pair),
    "weights.pt": (lambda path: torch.save({"a": torch.arange(50.0), "epoch": 3}, path), torch_file.load),
    "list.txt": (lambda path: path.write_text("".join(f"{name} 0 1\n" for name in NAMES)), read_list),
    "table.csv": (lambda path: path.write_text("Path,Label\n" + "".join(f"{n},1\n" for n in NAMES)), read_list),
    "luna_train.txt": (lambda path: path.write_text("".join(f"1.2.{n}\n" for n in range(40))), read_lines),
    "split.json": (write_split, lambda path: read_split(path, NAMES, 0, 0)),
}
REFUSALS = (UserError, ScanError, OSError, RuntimeError, ValueError, MemoryError)  # of scans: preprocess/jobs/pairs.py


def damage(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """One kind of damage, drawn, and what it makes of the file."""
    kind = str(rng.choice(["cut", "flip", "zeros", "insert", "remove", "twice"]))
    start = int(rng.integers(0, len(content)))
    if rng.random() < 0.5:  # half of the damage is in the header
        start = int(rng.integers(0, min(len(content), 200)))
    end = min(len(content), start + int(rng.integers(1, 20)))
    made = {
        "cut": content[:start],
        "flip": content[:start] + bytes([content[start] ^ (1 << int(rng.integers(0, 8)))]) + content[start + 1 :],
        "zeros": content[:start] + bytes(end - start) + content[end:],
        "insert": content[:start] + rng.bytes(7) + content[start:],
        "remove": content[:start] + content[end:],
        "twice": content + content,
    }
    return kind, made[kind]


def read_or_refuse(read: Callable[[Path], Any], path: Path) -> tuple[Any, Exception | None]:
    try:
        return read(path), None
    except REFUSALS as error:
        return None, error


def test_there_are_300_at_least() -> None:
    assert EACH * len(WRITE_READ) >= 300


@pytest.mark.parametrize("name", WRITE_READ)
def test_damaged_files_are_refused_or_read_rightly(name: str, tmp_path: Path) -> None:
    write, read = WRITE_READ[name]
    path = tmp_path / name
    write(path)
    whole, content = read(path), path.read_bytes()
    rng = np.random.default_rng(len(name))
    for number in range(EACH):
        kind, made = damage(content, rng)
        path.write_bytes(made)
        with in_time(f"{name} {number}"), warnings.catch_warnings():
            warnings.simplefilter("error")
            found, refusal = read_or_refuse(read, path)
        if refusal is not None:
            assert not isinstance(refusal, UserError) or "\n" not in str(refusal)
            continue
        if isinstance(whole, np.ndarray):
            assert 0 not in found.shape
            assert np.isfinite(found).all()
            if kind == "cut" or name in CHECKED:
                np.testing.assert_array_equal(found, whole, err_msg=f"{number}: {kind}")
