"""Damage that was once read without a word: flipped bytes under a checksum, lost keys, numbers that were rounded."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from datasets.ct.errors import ScanError
from datasets.ct.nodules import read_crops
from datasets.segmentation.files import read_description
from preprocess.volumes.files import Scan
from preprocess.volumes.volume import read_image
from utils import json_text, torch_file
from utils.errors import UserError

VOXELS = np.random.default_rng(0).integers(-1000, 1000, (12, 14, 16)).astype(np.int16)


def test_flipped_bytes_of_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.arange(5000.0)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(np.arange(1000, 1010, dtype=np.float32).tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.pt"):
        torch_file.load(path)


def test_compressed_nrrd(tmp_path: Path) -> None:
    path = tmp_path / "scan.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(path), useCompression=True)
    header, _, data = path.read_bytes().partition(b"\n\n")
    voxels = gzip.decompress(data)
    for damaged in (data[:-8] + bytes(8), gzip.compress(voxels[:-100])):  # its checksum; too few voxels
        path.write_bytes(header + b"\n\n" + damaged)
        with pytest.raises((ScanError, RuntimeError)):
            read_image(Scan(0, "scan", (path,)))


@pytest.mark.parametrize("name", ["scan.mhd", "scan.mha"])
def test_a_header_without_a_spacing(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(path))
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(line for line in lines if not line.startswith(b"ElementSpacing")))
    with pytest.raises(ScanError, match=r"(?i)spacing"):
        read_image(Scan(0, "scan", (path,)))


def test_brackets_in_brackets() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        json_text.parse("[" * 100_000)


def test_a_label_that_is_no_whole_number(tmp_path: Path) -> None:
    content = {"labels": {"background": 0, "liver": 1.7}, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"1\.7"):
        read_description(tmp_path)


def test_a_crop_of_an_eleventh_subset(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        "file,seriesuid,subset,label,coordX,coordY,coordZ\nsubset0/a_crop_0.npy,a,11,1,0,0,0\n"
    )
    with pytest.raises(UserError, match=r"labels\.csv"):
        read_crops(tmp_path)
