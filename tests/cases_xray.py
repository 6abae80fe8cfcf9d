"""Small X-rays as cameras, scanners and exports write them: PNG and DICOM of kinds that libraries seldom write."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
from pydicom import uid

PNG_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # of grey, grey with alpha, colour, colour with alpha; by channels
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_16_bits(pixels: np.ndarray, interlaced: bool = False, filters: tuple[int, ...] = (0, 1, 2, 3, 4)) -> bytes:
    """A PNG of uint16 (height, width, channels), its rows filtered by ``filters`` in turn (PNG specification, 9)."""
    height, width, channels = pixels.shape
    parts = [pixels[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [pixels]
    rows = b"".join(_filtered(part, filters) for part in parts if part.size)
    header = struct.pack(">IIBBBBB", width, height, 16, PNG_TYPES[channels], 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _filtered(pixels: np.ndarray, filters: tuple[int, ...]) -> bytes:
    step, out = 2 * pixels.shape[2], b""
    above = [0] * (step * pixels.shape[1])
    for number, row in enumerate(pixels):
        line = list(row.astype(">u2").tobytes())
        kind = filters[number % len(filters)]
        guesses = []
        for i, up in enumerate(above):
            left, corner = (line[i - step], above[i - step]) if i >= step else (0, 0)
            nearest = min((left, up, corner), key=lambda value: abs(left + up - corner - value))
            guesses.append((0, left, up, (left + up) // 2, nearest)[kind])
        out += bytes([kind, *((value - guess) % 256 for value, guess in zip(line, guesses, strict=True))])
        above = line
    return out


def dicom(path: Path, pixels: np.ndarray, preamble: bool = True, **elements: object) -> Path:
    """An X-ray with these pixels and elements. Not ``preamble``: the data set alone, in explicit VR little endian."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape[-2:] if pixels.ndim == 2 else pixels.shape[:2]
    dataset.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    if dataset.SamplesPerPixel > 1:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        if isinstance(value, pydicom.DataElement):
            dataset.add(value)
        else:
            setattr(dataset, name, value)
    if preamble:
        dataset.save_as(path, enforce_file_format=True)
    else:
        del dataset.file_meta
        dataset.save_as(path, enforce_file_format=False, implicit_vr=False, little_endian=True)
    return path


def bare(path: Path, pixels: np.ndarray, meta: bool = False, **elements: object) -> Path:
    """The same without preamble: in implicit VR and nothing before it, or (``meta``) behind its meta header."""
    dataset = pydicom.dcmread(dicom(path, pixels, **elements))
    if meta:
        path.write_bytes(path.read_bytes()[132:])
        return path
    del dataset.file_meta
    dataset.save_as(path, enforce_file_format=False, implicit_vr=True, little_endian=True)
    return path


def lookup_table(entries: list[int], first: int = 0, bits: int = 16, signed: bool = False) -> pydicom.Dataset:
    """An item of a Modality or VOI LUT Sequence."""
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "SS" if signed else "US", [len(entries), first, bits])
    table.add_new("LUTData", "US", entries)
    return table


def palette(entries: np.ndarray, bits: int) -> dict[str, object]:
    """The elements of a colour palette, of integers (entries, 3)."""
    depth = np.uint8 if bits == 8 else np.uint16
    elements: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for channel, colour in enumerate(("Red", "Green", "Blue")):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [len(entries), 0, bits]
        elements[f"{colour}PaletteColorLookupTableData"] = entries[:, channel].astype(depth).tobytes()
    return elements


def without_image(path: Path, sop_class: str, pixels: np.ndarray | None = None) -> Path:
    """A DICOM object of another kind: a report, a mask, ..."""
    dataset = pydicom.dcmread(dicom(path, np.zeros((8, 8), np.uint8) if pixels is None else pixels))
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    if pixels is None:
        del dataset.PixelData
    dataset.save_as(path, enforce_file_format=True)
    return path
