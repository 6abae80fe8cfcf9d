"""X-rays in DICOM: shown as the file says, whatever way it says it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from datasets.xray.images import read_image
from tests.cases_xray import dicom as write
from utils.errors import UserError

STORED = np.array([[0, 1000], [2000, 4000]], np.uint16)


def test_without_a_window_from_smallest_to_largest(tmp_path: Path) -> None:
    path = write(tmp_path / "x.dcm", STORED)
    np.testing.assert_array_equal(read_image(path), [[0, 64], [128, 255]])


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    path = write(tmp_path / "x.dcm", STORED, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(path), [[255, 191], [127, 0]])
    eight = np.array([[0, 10], [200, 255]], np.uint8)
    path = write(tmp_path / "x.dcm", eight, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(path), 255 - eight)


def test_8_bits_without_a_window_come_as_they_are(tmp_path: Path) -> None:
    pixels = np.array([[20, 30], [40, 50]], np.uint8)
    np.testing.assert_array_equal(read_image(write(tmp_path / "x.dcm", pixels)), pixels)


@pytest.mark.parametrize(
    "window", [{"WindowCenter": 1500, "WindowWidth": 2001}, {"WindowCenter": [1500, 9], "WindowWidth": [2001, 9]}]
)
def test_the_first_window_clips(tmp_path: Path, window: dict[str, object]) -> None:
    # center 1500, width 2001: values up to 499.5 are black, from 2499.5 on white
    path = write(tmp_path / "x.dcm", STORED, **window)
    np.testing.assert_array_equal(read_image(path), [[0, round(500.5 / 2000 * 255)], [round(1500.5 / 2000 * 255), 255]])


def test_a_narrow_window_begins_half_a_value_early(tmp_path: Path) -> None:
    # center 10, width 5: from 7.5 to 11.5
    pixels = np.array([[7, 8], [9, 12]], np.uint8)
    path = write(tmp_path / "x.dcm", pixels, WindowCenter=10, WindowWidth=5)
    np.testing.assert_array_equal(read_image(path), [[0, 32], [96, 255]])


def test_the_window_counts_after_rescaling(tmp_path: Path) -> None:
    signed = np.array([[-1000, 0], [500, 1000]], np.int16)
    path = write(
        tmp_path / "x.dcm",
        signed,
        RescaleSlope=2,
        RescaleIntercept=-100,
        WindowCenter=0,
        WindowWidth=1000,
        VOILUTFunction="LINEAR_EXACT",
    )
    np.testing.assert_array_equal(read_image(path), [[0, 102], [255, 255]])  # -100 HU lies at 0.4 of -500..500


def test_a_sigmoid_window(tmp_path: Path) -> None:
    path = write(tmp_path / "x.dcm", STORED, WindowCenter=2000, WindowWidth=2000, VOILUTFunction="SIGMOID")
    expected = 255 / (1 + np.exp(-4 * (STORED - 2000.0) / 2000))
    np.testing.assert_array_equal(read_image(path), np.rint(expected))


def test_a_lookup_table(tmp_path: Path) -> None:
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "US", [4, 0, 16])
    table.add_new("LUTData", "US", [0, 5000, 5500, 10000])
    path = write(
        tmp_path / "x.dcm", np.array([[0, 1], [2, 3]], np.uint16), VOILUTSequence=[table], WindowCenter=1, WindowWidth=1
    )
    np.testing.assert_array_equal(read_image(path), [[0, 128], [140, 255]])


def test_colour_and_what_is_not_one_image(tmp_path: Path) -> None:
    colour = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    path = write(tmp_path / "x.dcm", colour, PhotometricInterpretation="RGB")
    np.testing.assert_array_equal(read_image(path), colour)
    frames = np.zeros((6, 4), np.uint16)
    path = write(tmp_path / "x.dcm", frames, Rows=2, NumberOfFrames=3)
    with pytest.raises(UserError, match=r"x\.dcm cannot be decoded: it holds 3 frames, not one image"):
        read_image(path)
    path = write(tmp_path / "x.dcm", STORED, Rows=2000)
    with pytest.raises(UserError, match=r"x\.dcm cannot be decoded: "):
        read_image(path)


def test_a_file_is_known_by_its_content_or_its_suffix(tmp_path: Path) -> None:
    expected = read_image(write(tmp_path / "x.dcm", STORED))
    np.testing.assert_array_equal(read_image(write(tmp_path / "IM0001", STORED)), expected)
    np.testing.assert_array_equal(read_image(write(tmp_path / "wrong.png", STORED)), expected)


def test_pydicom_is_asked_for_where_it_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "x.dcm", STORED)
    code = (
        "import sys; sys.modules['pydicom'] = None; from datasets.xray.images import read_image; "
        f"read_image({str(path)!r})"
    )
    root = Path(__file__).resolve().parents[3]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert "UserError" in result.stderr
    assert f"{path} is a DICOM file: to read it, pip install 'pydicom>=3'" in result.stderr
