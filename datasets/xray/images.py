"""Images from files: PNG with 8 or 16 bits, JPEG, DICOM. Free of torch, so that preprocessing can use it.

Whatever the file holds becomes 8 bits: grey as (height, width), colour as (height, width, 3). Alpha channels
are dropped, and colour whose three channels are equal is grey. Values of more than 8 bits are mapped
linearly, the smallest in the image to 0 and the largest to 255. A DICOM file is shown as it asks to be:
rescaled, through its lookup table or first window (whose ends become 0 and 255), MONOCHROME1 inverted.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from datasets.xray.png import decode_grey
from utils.errors import UserError, reason

DICOM_SUFFIXES = (".dcm", ".dicom")
SUFFIXES = (".png", ".jpg", ".jpeg", *DICOM_SUFFIXES)
PICTURES = ("preview.png", "views.png", "curves.png")  # that this project's commands draw beside data: not to train on


def read_image(path: str | Path) -> np.ndarray:
    """Read an image: uint8, (height, width) if it is grey, else (height, width, 3) in RGB.

    Raises UserError, naming the file, if it is missing, damaged or of another kind, or if it is a DICOM
    file and pydicom is not installed.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"the image {path} cannot be read: {reason(error)}") from error
    if not data:
        raise UserError(f"the image {path} is empty: it has 0 bytes")
    dicom = is_dicom(data) or os.fspath(path).lower().endswith(DICOM_SUFFIXES)
    pydicom = _pydicom(path) if dicom else None
    try:
        if pydicom is not None:
            return _decode_dicom(data, pydicom)
        pixels = decode_grey(data)
        return _decode_with_pil(data) if pixels is None else pixels
    except Exception as error:  # on damaged bytes decoders raise nearly everything there is
        why = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            why = "it is no PNG, JPEG or DICOM file"
        raise UserError(f"the image {path} cannot be decoded: {why}") from error


def is_dicom(data: bytes) -> bool:
    """Whether a file that begins with these bytes (132 are enough) says that it is DICOM."""
    return data[128:132] == b"DICM"


def grey_if_equal(pixels: np.ndarray) -> np.ndarray:
    """(height, width) of an RGB image whose three channels are equal; any other as it is."""
    red, green, blue = (pixels[..., channel] for channel in range(3))
    equal = np.array_equal(red, green) and np.array_equal(red, blue)
    return np.ascontiguousarray(red) if equal else pixels


def eight_bits(pixels: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """uint8 of the same shape: linear, ``low`` and below to 0, ``high`` and above to 255.

    They are the smallest and the largest value unless given; where they are equal the image is black.
    """
    low = float(pixels.min()) if low is None else low
    high = float(pixels.max()) if high is None else high
    if high <= low:
        return np.zeros(pixels.shape, np.uint8)
    return np.rint(np.clip((pixels.astype(np.float64) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _decode_with_pil(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
        if image.mode.startswith("I"):  # grey of 16 bits
            return eight_bits(np.asarray(image))
        if image.mode in ("1", "L", "LA"):
            return np.asarray(image.convert("L"))
        image.info.pop("transparency", None)  # a palette's is dropped like any alpha channel
        return grey_if_equal(np.asarray(image.convert("RGB")))


def _pydicom(path: str | Path) -> ModuleType:
    try:
        import pydicom.pixels
    except ImportError as error:
        raise UserError(f"{path} is a DICOM file: to read it, pip install 'pydicom>=3'") from error
    return pydicom


def _decode_dicom(data: bytes, pydicom: ModuleType) -> np.ndarray:
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    pixels = dataset.pixel_array
    if pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8:
        return grey_if_equal(pixels)
    if pixels.ndim != 2:
        raise ValueError(f"it holds pixels of shape {pixels.shape}, not one image")
    image = _show(pixels, dataset, pydicom)
    return 255 - image if dataset.PhotometricInterpretation == "MONOCHROME1" else image


def _show(pixels: np.ndarray, dataset: Any, pydicom: ModuleType) -> np.ndarray:
    """uint8 image of stored values, by the file's rescaling and window (DICOM PS3.3, C.11.1 and C.11.2)."""
    values = pydicom.pixels.apply_modality_lut(pixels, dataset)
    if dataset.get("VOILUTSequence"):
        return eight_bits(pydicom.pixels.apply_voi(values, dataset))
    center, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if center is None or width is None:
        return values if values.dtype == np.uint8 else eight_bits(values)
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if function == "SIGMOID":
        return eight_bits(1 / (1 + np.exp(-4 * (values - center) / width)), 0.0, 1.0)
    if function == "LINEAR":  # its window is half a value to the left, and one narrower: PS3.3, C.11.2.1.2
        center, width = center - 0.5, width - 1
    return eight_bits(values, center - width / 2, center + width / 2)


def _first(value: Any) -> float | None:
    """A window's value: files may hold several windows, of which the first counts, or none."""
    if value is None or value == "":
        return None
    return float(value if isinstance(value, (int, float, str)) else next(iter(value)))
