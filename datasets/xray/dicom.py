"""X-rays in DICOM, shown as the file asks (DICOM PS3.3, C.7.6.3, C.11.1 and C.11.2). Needs pydicom; free of torch."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.uid import JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless

from datasets.xray.dicom_objects import has_no_image
from datasets.xray.grey import eight_bits, grey_if_equal

GDCM_KNOWS = (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless)  # pydicom: only with more packages


def decode(data: bytes) -> np.ndarray:
    """The image of a DICOM file, uint8: (height, width), or (height, width, 3) in colour.

    Grey: rescaled, through the lookup table or first window if there is one (whose ends become 0 and 255), else 8 bits
    as they are and more from the smallest value to the largest. MONOCHROME1 is inverted, padding is black.
    ValueError, or what pydicom raises, if it holds no image, or more than one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of what it mends itself
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        _check(dataset)
        dataset.pixel_array_options(correct_unused_bits=dataset.file_meta.TransferSyntaxUID.is_encapsulated)
        pixels = _pixels(dataset)
        if dataset.SamplesPerPixel > 1:
            return _colour(pixels, dataset)
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            return _through_palette(_stored_values(pixels, dataset), dataset)
        return _grey(pixels, dataset)


def _pixels(dataset: Any) -> np.ndarray:
    """As pydicom gives them; grey ones that it has no decoder for, as of JPEG Lossless and JPEG-LS, from GDCM."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if dataset.SamplesPerPixel == 1 and syntax in GDCM_KNOWS and not get_decoder(syntax).is_available:
        from datasets import gdcm  # SimpleITK takes time to import

        return gdcm.stored_values(dataset)[0]
    return dataset.pixel_array


def _check(dataset: Any) -> None:
    """ValueError if there is not one image in it. Where nothing says how it is encoded, it says so from now on."""
    uid = dataset.get("SOPClassUID")
    if has_no_image(uid):
        raise ValueError(f"it holds no image of the body (DICOM: {uid.name})")
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ValueError("it holds no pixels")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ValueError(f"it holds {frames} frames, not one image")
    if "TransferSyntaxUID" not in getattr(dataset, "file_meta", {}):
        if "PixelData" in dataset and dataset["PixelData"].is_undefined_length:
            raise ValueError("it has no header that says how its pixels are compressed")
        implicit, little = dataset.original_encoding
        names = {(True, True): "ImplicitVRLittleEndian", (False, True): "ExplicitVRLittleEndian"}
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, names.get((implicit, little), "ExplicitVRBigEndian"))


def _colour(pixels: np.ndarray, dataset: Any) -> np.ndarray:
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"it holds pixels of shape {pixels.shape}, not one image")
    pixels = _stored_values(pixels, dataset)
    return grey_if_equal(pixels if _has_8_bits(dataset) else eight_bits(pixels))


def _through_palette(stored: np.ndarray, dataset: Any) -> np.ndarray:
    colours = apply_color_lut(stored, dataset)[..., :3]  # without alpha
    full = 255 if colours.dtype == np.uint8 or dataset.RedPaletteColorLookupTableDescriptor[2] == 8 else 65535
    return grey_if_equal(eight_bits(colours, 0, full))


def _grey(pixels: np.ndarray, dataset: Any) -> np.ndarray:
    if pixels.ndim != 2:
        raise ValueError(f"it holds pixels of shape {pixels.shape}, not one image")
    stored = _stored_values(pixels, dataset)
    padding = _padding(pixels, stored, dataset)
    values = _rescaled(stored, dataset)
    if dataset.get("VOILUTSequence"):
        table, first = _table(dataset.VOILUTSequence[0], dataset)
        image = eight_bits(_looked_up(values, table, first), float(table.min()), float(table.max()))
    else:
        image = _windowed(values, padding, dataset)
    body = image[~padding]
    if body.size and body.min() == body.max():  # all black or white: the window is of other values than the image has
        image = _without_window(values, padding, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        image = 255 - image
    image[padding] = 0
    return image


def _has_8_bits(dataset: Any) -> bool:
    return dataset.BitsStored == 8 and not dataset.PixelRepresentation


def _stored_values(pixels: np.ndarray, dataset: Any) -> np.ndarray:
    """Pixels without what lies in the bits that are allocated but not stored: overlays, or garbage.

    Of compressed pixels, pydicom has seen to that.
    """
    allocated, stored = 8 * pixels.itemsize, int(dataset.BitsStored)
    compressed = dataset.file_meta.TransferSyntaxUID.is_encapsulated
    if compressed or pixels.dtype.kind not in "ui" or stored >= allocated or dataset.BitsAllocated < 8:
        return pixels
    above = max(allocated - 1 - int(dataset.get("HighBit", stored - 1)), 0)
    return (pixels << above) >> (allocated - stored)  # the second keeps the sign, where there is one


def _padding(pixels: np.ndarray, stored: np.ndarray, dataset: Any) -> np.ndarray:
    """Where there is no image but padding, bool of the same shape (PS3.3, C.7.5.1.1.2)."""
    first = _first(dataset.get("PixelPaddingValue"))
    if first is None or pixels.dtype.kind not in "ui":
        return np.zeros(pixels.shape, bool)
    last = _first(dataset.get("PixelPaddingRangeLimit"))
    ends = np.array([int(first), int(first if last is None else last)]).astype(pixels.dtype)  # of the pixels' sign
    low, high = ends.min(), ends.max()
    whole = (pixels >= low) & (pixels <= high)  # it may be written with bits that are not stored
    return whole | ((stored >= low) & (stored <= high))


def _rescaled(stored: np.ndarray, dataset: Any) -> np.ndarray:
    """The values that windows are of: through the modality's lookup table, or its slope and intercept."""
    if dataset.get("ModalityLUTSequence"):
        return _looked_up(stored, *_table(dataset.ModalityLUTSequence[0], dataset))
    slope, intercept = (_first(dataset.get(name)) for name in ("RescaleSlope", "RescaleIntercept"))
    slope, intercept = slope or 1.0, intercept or 0.0  # a slope of 0 would leave nothing of the image
    return stored if (slope, intercept) == (1, 0) else stored * slope + intercept


def _windowed(values: np.ndarray, padding: np.ndarray, dataset: Any) -> np.ndarray:
    """uint8 by the first window; one without a width is none."""
    center, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if center is None or width is None or width <= 0:
        return _without_window(values, padding, dataset)
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if function == "SIGMOID":
        with np.errstate(over="ignore"):  # exp() of what is far below the window is infinite, and its share 0
            return eight_bits(1 / (1 + np.exp(-4 * (values - center) / width)), 0.0, 1.0)
    if function not in ("LINEAR", "LINEAR_EXACT"):
        raise ValueError(f"its VOI LUT function {function!r} is not known")
    if function == "LINEAR" and width >= 1:  # half a value to the left, and one narrower: PS3.3, C.11.2.1.2.1
        center, width = center - 0.5, width - 1  # which is not defined below 1: those are of fractions, and exact
    return eight_bits(values, center - width / 2, center + width / 2)


def _without_window(values: np.ndarray, padding: np.ndarray, dataset: Any) -> np.ndarray:
    if _has_8_bits(dataset) and not dataset.get("ModalityLUTSequence"):
        low, high = sorted(_rescaled(np.array([0, 255], np.uint8), dataset).tolist())
        return eight_bits(values, low, high)
    body = values[~padding]
    return eight_bits(values, body.min(), body.max()) if body.size else np.zeros(values.shape, np.uint8)


def _table(item: Any, dataset: Any) -> tuple[np.ndarray, int]:
    """A lookup table's entries, and the value that the first one is for."""
    count, first, depth = (int(value) for value in item.LUTDescriptor)
    count = count or 1 << 16
    data = item.LUTData
    if isinstance(data, bytes):
        words = np.frombuffer(data, "<u2" if dataset.original_encoding[1] else ">u2")
    else:
        words = np.atleast_1d(np.array(data, np.int64)).astype(np.uint16)
    if len(words) < count and depth == 8:  # two entries a word
        words = words.astype("<u2").view(np.uint8)
    if len(words) < count:
        raise ValueError(f"its lookup table has {len(words)} of {count} entries")
    return words[:count], first - (1 << 16) if dataset.PixelRepresentation and first >= 1 << 15 else first


def _looked_up(values: np.ndarray, table: np.ndarray, first: int) -> np.ndarray:
    """The table's entries; its first and last for what lies before and after it."""
    places = np.rint(values - float(first)).astype(np.int64)
    return table[np.clip(places, 0, len(table) - 1)]


def _first(value: Any) -> float | None:
    """An element's value: files may hold several windows, of which the first counts, or none."""
    if value is None or value == "":
        return None
    several = [value] if isinstance(value, (int, float, str)) else list(value)
    return float(several[0]) if several and np.isfinite(float(several[0])) else None
