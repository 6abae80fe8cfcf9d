"""Images from files: PNG with 8 or 16 bits, JPEG, DICOM. Free of torch, so that preprocessing can use it.

Whatever the file holds becomes 8 bits: grey as (height, width), colour as (height, width, 3). Alpha channels
are dropped, and colour whose three channels are equal is grey. Values of more than 8 bits are mapped
linearly, the smallest in the image to 0 and the largest to 255. What EXIF says of how the camera was held is
followed. A DICOM file is shown as it asks to be (datasets/xray/dicom.py).
"""

from __future__ import annotations

import io
import os
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from datasets.xray.dicom_objects import is_dicom
from datasets.xray.grey import eight_bits, grey_if_equal
from datasets.xray.png import SIGNATURE, decode_deep_colour, decode_grey, is_deep_colour
from utils.errors import UserError, reason

DICOM_SUFFIXES = (".dcm", ".dicom")
SUFFIXES = (".png", ".jpg", ".jpeg", *DICOM_SUFFIXES)
OTHERS = (SIGNATURE, b"\xff\xd8\xff")  # how PNG and JPEG files begin, under whatever name
# That this project's commands draw, beside data or in an --output that lies in --data: not to train on.
PICTURES = ("preview.png", "views.png", "curves.png", "roc.png", "cases.png")
RECONSTRUCTIONS = re.compile(r"(?:.*/)?reconstructions/(?:epoch|step)_\d+\.png")


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
    try:
        if is_dicom(data) or (os.fspath(path).lower().endswith(DICOM_SUFFIXES) and not data.startswith(OTHERS)):
            return _decode_dicom(data, path)
        pixels = decode_grey(data)
        return _decode_with_pil(data) if pixels is None else pixels
    except UserError:
        raise
    except Exception as error:  # on damaged bytes decoders raise nearly everything there is
        why = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            why = "it is no PNG, JPEG or DICOM file"
        raise UserError(f"the image {path} cannot be decoded: {why}") from error


def _decode_with_pil(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's, of damaged EXIF
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format == "PNG":  # what a JPEG has beside its picture are previews of it
                raise ValueError(f"it holds {frames} frames, not one image")
            image.load()
            return _upright(_pixels(image, data), _orientation(image))


def _pixels(image: Image.Image, data: bytes) -> np.ndarray:
    if is_deep_colour(data):  # of whose 16 bits PIL would leave the upper 8
        pixels = decode_deep_colour(data)
        return grey_if_equal(eight_bits(pixels[..., :3])) if pixels.shape[2] > 2 else eight_bits(pixels[..., 0])
    if image.mode.startswith("I"):  # grey of 16 bits
        return eight_bits(np.asarray(image))
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    image.info.pop("transparency", None)  # a palette's is dropped like any alpha channel
    return grey_if_equal(np.asarray(image.convert("RGB")))


def _orientation(image: Image.Image) -> int:
    """How the camera or scanner was held, 1 to 8 as EXIF has it; 1 where nothing readable says so."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # on damaged EXIF, which viewers pass over, PIL raises what it meets
        return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The image as viewers show it. EXIF 2 to 4 mirror or turn it over, 5 to 8 also exchange its sides."""
    if 5 <= orientation <= 8:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _decode_dicom(data: bytes, path: str | Path) -> np.ndarray:
    try:
        from datasets.xray import dicom
    except ImportError as error:
        raise UserError(f"{path} is a DICOM file: to read it, pip install 'pydicom>=3'") from error
    return dicom.decode(data)
