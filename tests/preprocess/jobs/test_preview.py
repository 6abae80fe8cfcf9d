"""``--preview``: what the sheet says of the boxes is true, and the patient stands upright on it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from preprocess.jobs.pairs import RECORD_KEYS, PairJob, PairOptions
from preprocess.jobs.preview import FILE_NAME, _rows
from preprocess.jobs.records import read_record, write_record
from preprocess.luna_pre import parse
from preprocess.volumes.files import Scan
from tests.conftest import run_preprocess
from tests.preprocess.small_scans import chest, write
from utils.errors import UserError
from utils.image_grid import upright

FLAGS = ["--scale", "2", "--workers", "1", "--input_rows", "32", "--input_cols", "32", "--input_deps", "16"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_upright_is_what_itk_calls_lps(order: tuple[int, ...]) -> None:
    """ITK's own reorientation is the oracle, for all axis orders and flips, and an oblique scan."""
    rng = np.random.default_rng(0)
    for flips in itertools.product((1, -1), repeat=3):
        direction = np.zeros((3, 3))
        direction[list(order), range(3)] = flips
        image = sitk.GetImageFromArray(rng.random((4, 5, 6)))
        image.SetSpacing((1.0, 2.0, 3.0))
        image.SetDirection(direction.flatten().tolist())
        expected = sitk.DICOMOrient(image, "LPS")
        tilt = np.array([[1, 0.1, 0], [-0.1, 1, 0.1], [0, -0.1, 1]])
        for matrix in (direction, tilt @ direction):
            volume, voxel = upright(sitk.GetArrayFromImage(image).T, np.array([1.0, 2.0, 3.0]), matrix)
            np.testing.assert_array_equal(volume, sitk.GetArrayFromImage(expected).T)
            assert voxel == expected.GetSpacing()


def luna_pre(*argv: str) -> str:
    """What the command prints, which ends well."""
    done = run_preprocess("luna_pre", *argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_sheet_and_the_boxes_that_it_names(tmp_path: Path) -> None:
    scan = write(tmp_path / "scans" / "scan.nii.gz", chest(shape=(64, 64, 48)))
    save = tmp_path / "pairs"
    argv = ["--data", str(scan.parent), "--save", str(save), *FLAGS]
    luna_pre(*argv, "--dtype", "float16")
    assert not (save / FILE_NAME).exists()

    record = read_record(save / "subset0" / "scan.json", *RECORD_KEYS)
    assert record is not None
    volume = _at_1mm(scan)
    for index, boxes in enumerate(record["boxes"]):
        pair = np.load(save / "subset0" / f"scan_img_{index}.npy")
        for crop, start, size in zip(pair, boxes["starts"], boxes["sizes"], strict=True):
            box = volume[tuple(slice(first, first + side) for first, side in zip(start, size, strict=True))]
            assert box.shape == tuple(size)
            assert crop.mean() == pytest.approx(((box.clip(-1000, 1000) + 1000) / 2000).mean(), abs=0.02)

    text = luna_pre(*argv, "--dtype", "float16", "--preview", "9")
    assert "1 scan: 2 pairs of " in text
    assert ", all of them there already (" in text
    assert f"{FILE_NAME} shows 2 pairs" in text
    sheet = Image.open(save / FILE_NAME)
    assert np.asarray(sheet.convert("L")).std() > 20
    one = tmp_path / "one"
    luna_pre("--data", str(scan.parent), "--save", str(one), *FLAGS, "--preview", "1")
    assert Image.open(one / FILE_NAME).height < sheet.height, "a row a pair"

    del record["boxes"], record["direction"]  # as an earlier version wrote it
    (save / "subset0" / "scan.json").write_text(json.dumps(record))
    (save / FILE_NAME).unlink()
    luna_pre(*argv, "--dtype", "float16", "--preview", "2")
    assert (save / FILE_NAME).exists()
    with pytest.raises(UserError, match="--preview 0: it must be at least 1"):
        parse([*argv, "--preview", "0"])


def test_scans_take_turns(tmp_path: Path) -> None:
    options = PairOptions((8, 8, 8), (8, 8, 8), 3, 0, -1000, 1000, None, "float32")
    jobs = [PairJob(Scan(0, name, (tmp_path / name,)), options, tmp_path) for name in ("a", "b", "none")]
    for job, pairs in zip(jobs, (1, 3), strict=False):
        job.folder.mkdir(exist_ok=True)
        write_record(job.record, {"recipe": "", "pairs": pairs, "shortage": ""})
        for index in range(pairs):
            np.save(job.pair(index), np.zeros((2, 8, 8, 8), np.float32))
    assert [row[0].label for row in _rows(jobs)] == ["a\npair 0", "b\npair 0", "b\npair 1", "b\npair 2"]


def _at_1mm(path: Path) -> np.ndarray:
    """The scan resampled by SimpleITK itself, (x, y, z)."""
    image = sitk.ReadImage(str(path))
    size = [int(n * spacing + 0.5) for n, spacing in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    resampled = sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), (1.0, 1.0, 1.0), image.GetDirection(), -1000
    )
    return sitk.GetArrayFromImage(resampled).T.astype(float)
