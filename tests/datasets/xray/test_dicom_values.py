"""What DICOM files of all depths look like, against pydicom's own functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing

from datasets.xray.images import read_image
from tests.cases_xray import bare, dicom, lookup_table, palette
from utils.errors import UserError

RNG = np.random.default_rng(0)


def table(bits: int, signed: bool, depth: int) -> pydicom.Dataset:
    """Of 200 entries that begin within the stored values, and rise without reaching the ends of their depth."""
    entries = np.linspace(0.1, 0.9, 200) ** 1.5 * (2**depth - 1)
    return lookup_table(entries.astype(int).tolist(), -50 if signed else 20, depth, signed)


def ways(bits: int, signed: bool) -> dict[str, dict[str, Any]]:
    middle, width = (0 if signed else 2 ** (bits - 1)), 2 ** (bits - 2)
    window = {"WindowCenter": middle, "WindowWidth": width}
    slope = {"RescaleSlope": 1.3, "RescaleIntercept": -10}
    rescaled = {"WindowCenter": 1.3 * middle - 10, "WindowWidth": width}
    fractions = {"RescaleSlope": 2.0**-bits, "RescaleIntercept": 0.25, "WindowCenter": 0.75, "WindowWidth": 0.3}
    return {
        "as stored": {},
        "identity": {"RescaleSlope": 1, "RescaleIntercept": 0},
        "falling": {"RescaleSlope": -2, "RescaleIntercept": 7},
        "window": window,
        "threshold": {"WindowCenter": middle, "WindowWidth": 1},
        "one and a half": {"WindowCenter": middle, "WindowWidth": 1.5},
        "two": {"WindowCenter": middle, "WindowWidth": 2},
        "exact": window | {"VOILUTFunction": "LINEAR_EXACT"},
        "sigmoid": window | {"VOILUTFunction": "SIGMOID"},
        "rescaled window": slope | rescaled,
        "fractions, exact": fractions | {"VOILUTFunction": "LINEAR_EXACT"},
        "fractions": fractions,
        "VOI table": {"VOILUTSequence": [table(bits, signed, 12)]} | window,
        "VOI table of 8 bits": {"VOILUTSequence": [table(bits, signed, 8)]},
        "modality table": {"ModalityLUTSequence": [table(bits, signed, 16)]},
        "modality table and window": {
            "ModalityLUTSequence": [table(bits, signed, 16)],
            "WindowCenter": 30_000,
            "WindowWidth": 20_000,
        },
    }


def within(values: np.ndarray, item: pydicom.Dataset) -> np.ndarray:
    """Values clipped to what the table has entries for: beyond, pydicom's arithmetic overflows."""
    count, first, _ = item.LUTDescriptor
    return values.astype(np.int64).clip(first, first + count - 1)


def expected(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """0 to 255, not rounded, by pydicom's functions, each scaled from the ends of what it can give."""
    if "ModalityLUTSequence" in dataset:
        stored = within(stored, dataset.ModalityLUTSequence[0])
    values = apply_modality_lut(stored, dataset)
    if "VOILUTSequence" in dataset:
        entries = dataset.VOILUTSequence[0].LUTData
        shown, low, high = apply_voi(within(values, dataset.VOILUTSequence[0]), dataset), min(entries), max(entries)
    elif "WindowWidth" in dataset:
        if dataset.WindowWidth < 1:  # which it refuses, and the standard does not define
            dataset.VOILUTFunction = "LINEAR_EXACT"
        shown = apply_windowing(values, dataset)
        low, high = apply_windowing(np.array([-1e9, 1e9]), dataset)
    elif dataset.BitsStored == 8 and not dataset.PixelRepresentation and "ModalityLUTSequence" not in dataset:
        ends = apply_modality_lut(np.array([0, 255], np.uint8), dataset)
        shown, low, high = values, ends.min(), ends.max()
    else:
        shown, low, high = values, values.min(), values.max()
    image = (shown.astype(float) - low) / (float(high) - low) * 255
    return 255 - image if dataset.PhotometricInterpretation == "MONOCHROME1" else image


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("way", ways(8, False))
def test_as_pydicom_shows_it(tmp_path: Path, way: str, bits: int, signed: bool) -> None:
    """In all depths: the bits that are not stored hold garbage, and the image is MONOCHROME1 and 2."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    stored = RNG.integers(low, high, (24, 20)).astype(np.int16 if signed else np.uint16)
    stored[0] = np.linspace(-50 if signed else 20, 180 if bits > 8 else 120, 20)  # where the tables have entries
    garbage = RNG.integers(0, 2 ** (16 - bits), stored.shape) << bits if bits < 16 else 0
    pixels = ((stored.astype(np.int64) & (2**bits - 1)) | garbage).astype(np.uint16).view(stored.dtype)
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        kind = {"BitsStored": bits, "HighBit": bits - 1, "PhotometricInterpretation": photometric}
        path = dicom(tmp_path / "x.dcm", pixels, **kind, **ways(bits, signed)[way])
        image = read_image(path)
        assert image.dtype == np.uint8
        np.testing.assert_allclose(
            image.astype(float), expected(stored, pydicom.dcmread(path)), rtol=0, atol=0.5 + 1e-6
        )
        assert len(np.unique(image)) > 1


def test_stored_bits_that_are_not_the_lowest(tmp_path: Path) -> None:
    stored = RNG.integers(0, 4096, (9, 7)).astype(np.uint16)
    plain = read_image(dicom(tmp_path / "plain.dcm", stored, BitsStored=12, HighBit=11))
    shifted = (stored << 4) | RNG.integers(0, 16, stored.shape).astype(np.uint16)
    np.testing.assert_array_equal(read_image(dicom(tmp_path / "x.dcm", shifted, BitsStored=12)), plain)


def test_ends_of_a_window_of_fractions(tmp_path: Path) -> None:
    """Width 0.6 about 0.5: black up to 0.2, white from 0.8 on."""
    stored = np.array([[0, 800], [1700, 3200]], np.uint16)
    window = {"WindowCenter": 0.5, "WindowWidth": 0.6}
    path = dicom(tmp_path / "x.dcm", stored, RescaleSlope=0.00025, RescaleIntercept=0, **window)
    np.testing.assert_array_equal(read_image(path), [[0, 0], [96, 255]])


@pytest.mark.parametrize("window", [(0, 0), (2000, 0), (5, -3), ([], []), (None, 100), (100, None)])
def test_a_window_without_a_width_is_none(tmp_path: Path, window: tuple[object, object]) -> None:
    stored = np.array([[0, 1000], [2000, 4000]], np.uint16)
    path = dicom(tmp_path / "x.dcm", stored, WindowCenter=window[0], WindowWidth=window[1])
    np.testing.assert_array_equal(read_image(path), [[0, 64], [128, 255]])


def test_a_slope_that_is_empty_or_0_or_without_an_intercept(tmp_path: Path) -> None:
    stored = np.array([[0, 1000], [2000, 4000]], np.uint16)
    for slope, intercept in ((None, None), (0, 0), ("", 5)):
        path = dicom(tmp_path / "x.dcm", stored, RescaleSlope=slope, RescaleIntercept=intercept)
        np.testing.assert_array_equal(read_image(path), [[0, 64], [128, 255]])
    path = dicom(tmp_path / "x.dcm", stored, RescaleSlope=2, WindowCenter=4000.5, WindowWidth=4001)
    np.testing.assert_array_equal(read_image(path), [[0, 0], [128, 255]])


PADDINGS: dict[str, tuple[type, int, dict[str, object]]] = {
    "below": (np.int16, -2000, {"PixelPaddingValue": -2000}),
    "above": (np.uint16, 65535, {"PixelPaddingValue": 65535}),
    "of the other sign": (np.uint16, 63536, {"PixelPaddingValue": pydicom.DataElement(0x00280120, "SS", -2000)}),
    "in a range": (np.uint16, 65533, {"PixelPaddingValue": 65535, "PixelPaddingRangeLimit": 65530}),
}


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 500.5, "WindowWidth": 1001}], ids=["no window", "window"])
@pytest.mark.parametrize("way", ["explicit", "implicit"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("padding", PADDINGS)
def test_padding_is_black_and_stretches_nothing(
    tmp_path: Path, padding: str, photometric: str, way: str, window: dict[str, object]
) -> None:
    kind, value, elements = PADDINGS[padding]
    body = RNG.integers(0, 1001, (16, 16))
    body[0, :2] = 0, 1000
    pixels = np.pad(body, 4, constant_values=value).astype(kind)
    write = dicom if way == "explicit" else bare
    image = read_image(write(tmp_path / "x.dcm", pixels, PhotometricInterpretation=photometric, **elements, **window))
    shown = np.rint(body / 1000 * 255)
    shown = 255 - shown if photometric == "MONOCHROME1" else shown
    np.testing.assert_array_equal(image, np.pad(shown, 4))


def test_padding_that_lies_in_bits_that_are_not_stored(tmp_path: Path) -> None:
    body = RNG.integers(0, 1001, (16, 16))
    body[0, :2] = 0, 1000
    pixels = np.pad(body, 4, constant_values=63536).astype(np.uint16)
    image = read_image(dicom(tmp_path / "x.dcm", pixels, BitsStored=12, HighBit=11, PixelPaddingValue=63536))
    np.testing.assert_array_equal(image, np.pad(np.rint(body / 1000 * 255), 4))
    nothing = np.full((5, 5), 63536, np.uint16)
    assert not read_image(dicom(tmp_path / "x.dcm", nothing, PixelPaddingValue=63536)).any()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("grey", [False, True])
def test_palettes_as_pydicom_applies_them(tmp_path: Path, bits: int, grey: bool) -> None:
    entries = RNG.integers(0, 2**bits, (256, 3))
    entries = entries[:, :1].repeat(3, 1) if grey else entries
    indices = RNG.integers(0, 256, (12, 9), dtype=np.uint8)
    path = dicom(tmp_path / "x.dcm", indices, **palette(entries, bits))
    colours = apply_color_lut(indices, pydicom.dcmread(path))
    shown = np.rint(colours / (2**bits - 1) * 255)
    np.testing.assert_array_equal(read_image(path), shown[..., 0] if grey else shown)


def test_an_inverting_palette_inverts(tmp_path: Path) -> None:
    entries = (65535 - 257 * np.arange(256))[:, None].repeat(3, 1)
    indices = RNG.integers(0, 256, (12, 9), dtype=np.uint8)
    np.testing.assert_array_equal(read_image(dicom(tmp_path / "x.dcm", indices, **palette(entries, 16))), 255 - indices)


def test_colour_of_16_bits_and_of_other_spaces(tmp_path: Path) -> None:
    deep = RNG.integers(100, 4000, (12, 10, 3)).astype(np.uint16)
    image = read_image(dicom(tmp_path / "x.dcm", deep, PhotometricInterpretation="RGB"))
    np.testing.assert_array_equal(image, np.rint((deep - deep.min()) / (deep.max() - deep.min()) * 255))
    ybr = RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8)
    path = dicom(tmp_path / "x.dcm", ybr, PhotometricInterpretation="YBR_FULL")
    rgb = pydicom.pixels.convert_color_space(ybr, "YBR_FULL", "RGB")
    np.testing.assert_array_equal(read_image(path), rgb)


def test_single_bits(tmp_path: Path) -> None:
    path = dicom(tmp_path / "x.dcm", np.zeros((4, 8), np.uint8), BitsAllocated=1, BitsStored=1, HighBit=0)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = bytes([0b10101010, 0b11110000, 0, 255])
    dataset.save_as(path)
    shown = np.unpackbits(np.array([[0b10101010], [0b11110000], [0], [255]], np.uint8), axis=1, bitorder="little")
    np.testing.assert_array_equal(read_image(path), 255 * shown)


@pytest.mark.parametrize("meta", [False, True], ids=["nothing before it", "meta header alone"])
@pytest.mark.parametrize("name", ["x.dcm", "IM0001", "wrong.png"])
def test_without_a_preamble(tmp_path: Path, name: str, meta: bool) -> None:
    signed = RNG.integers(-1000, 1000, (12, 10)).astype(np.int16)
    whole = read_image(dicom(tmp_path / "whole.dcm", signed, PixelPaddingValue=-2000))
    path = bare(tmp_path / name, signed, meta, PixelPaddingValue=-2000)
    np.testing.assert_array_equal(read_image(path), whole)
    explicit = dicom(tmp_path / name, signed, preamble=False)
    np.testing.assert_array_equal(read_image(explicit), whole)


def test_what_cannot_be_shown_is_one_line(tmp_path: Path) -> None:
    stored = np.array([[0, 1000], [2000, 4000]], np.uint16)
    window = {"WindowCenter": 1, "WindowWidth": 9}
    cases: dict[str, tuple[Path, str]] = {
        "frames": (dicom(tmp_path / "a.dcm", np.zeros((6, 4), np.uint16), Rows=2, NumberOfFrames=3), "3 frames"),
        "function": (dicom(tmp_path / "b.dcm", stored, **window, VOILUTFunction="GAMMA"), "'GAMMA' is not known"),
        "short table": (
            dicom(tmp_path / "c.dcm", stored, VOILUTSequence=[short_table()]),
            "its lookup table has 4 of 9 entries",
        ),
        "cut": (dicom(tmp_path / "d.dcm", stored, Rows=2000), ""),
        "four channels": (dicom(tmp_path / "e.dcm", np.zeros((4, 4, 4), np.uint8)), ""),
    }
    (tmp_path / "f.dcm").write_text("no DICOM at all")
    cases["text"] = (tmp_path / "f.dcm", "")
    for path, message in cases.values():
        with pytest.raises(UserError) as caught:
            read_image(path)
        assert message in str(caught.value)
        assert f"the image {path} cannot be decoded: " in str(caught.value)
        assert "\n" not in str(caught.value)


def short_table() -> pydicom.Dataset:
    item = lookup_table([1, 2, 3, 4])
    item.LUTDescriptor = [9, 0, 16]
    return item
