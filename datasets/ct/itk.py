"""Volumes from files: by SimpleITK, whose readers let some damaged ones pass, or by our own. Free of torch."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path
from textwrap import shorten

import numpy as np
import SimpleITK as sitk

from datasets.ct.errors import ScanError
from datasets.ct.grid import upright, upright_spacing
from datasets.ct.nifti import read_nifti, read_nifti_header
from utils.native import native_output

LONGEST = 200  # characters of what a reader says
PLACES = ("ElementSpacing", "ElementSize", "Offset", "Position", "Origin", "TransformMatrix", "Rotation", "Orientation")
SCALING = {"ElementToIntensityFunctionSlope": 1.0, "ElementToIntensityFunctionOffset": 0.0}  # that ITK leaves aside
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?(nan|inf|infinity)", re.IGNORECASE)  # as C reads them
MILLIMETRES = re.compile(r"mm|millimet(er|re)s?|\?*", re.IGNORECASE)  # or not said
VECTOR, QUOTED = re.compile(r"\([^()]+\)"), re.compile(r'"([^"]*)"')  # of NRRD's headers


def read_file(file: Path, nearest: bool = False) -> sitk.Image:
    """Read the image in one file; ScanError if it cannot be read, or is cut short or corrupt.

    A 3D image has axes at right angles: a sheared one is resampled (``nearest``: to the nearest voxel, for labels).
    """
    image = read_nifti(file) if is_nifti(file) else _by_itk(file)
    return upright(image, nearest) if image.GetDimension() == 3 else image


def read_spacing(file: Path) -> tuple[tuple[float, ...], np.ndarray]:
    """Spacing (mm) of x, y, z and direction (3, 3) as :func:`read_file` gives them, from the header; ScanError."""
    _, spacing, _, direction = read_header(file)
    return tuple(upright_spacing(direction, spacing).tolist()), direction


def read_header(file: Path) -> tuple[tuple[int, ...], np.ndarray, np.ndarray, np.ndarray]:
    """Size, spacing (3,; mm), origin (3,; mm) and direction (3, 3) of x, y, z as the file has them, in LPS; ScanError.

    Of a 4D file those of each of its volumes.
    """
    if is_nifti(file):
        header = read_nifti_header(file)
        return header.shape[:3], header.spacing, header.origin, header.direction
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    with native_output() as printed:
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise ScanError(reason(file, printed(), str(error))) from None
    dims = reader.GetDimension()
    direction = np.reshape(reader.GetDirection(), (dims, dims))[:3, :3]
    return reader.GetSize()[:3], np.array(reader.GetSpacing()[:3]), np.array(reader.GetOrigin()[:3]), direction


def is_nifti(file: Path) -> bool:
    """Whether a file is NIfTI, by its name."""
    return file.name.lower().endswith((".nii", ".nii.gz"))


def _by_itk(file: Path) -> sitk.Image:
    with native_output() as printed:
        try:
            image = sitk.ReadImage(str(file))
        except RuntimeError as error:
            raise ScanError(reason(file, printed(), str(error))) from None
        if "fail" in printed().lower():  # e.g. MetaIO's "Uncompress failed", after which it reads zeros
            raise ScanError(reason(file, printed(), ""))
    if file.suffix.lower() in (".mhd", ".mha"):
        _check_meta_header(file)
        _check_zlib(file, image)
        _check_raw_length(file, image)
    elif file.suffix.lower() == ".nrrd":
        _check_nrrd(file, image)
    return image


def _meta_header(file: Path) -> tuple[dict[str, str], int]:
    """The fields of a MetaImage's header, and where its last line ends; ScanError if there is no such line.

    ITK goes by what a file holds, not by its name: it may have read something else without a word.
    """
    fields: dict[str, str] = {}
    with file.open("rb") as stream:
        for line in iter(stream.readline, b""):
            key, _, value = line.decode(errors="replace").partition("=")
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":  # the header's last line
                return fields, stream.tell()
    raise ScanError(f"{file.name} is no MetaImage: it names no ElementDataFile")


def _check_meta_header(file: Path) -> None:
    """Raise a ScanError where a MetaImage does not say where its voxels lie: ITK would take 1 mm, or 0, for it.

    And at a negative spacing, whose sign ITK drops: the scan may be a mirror image of itself.
    """
    fields, _ = _meta_header(file)
    dims = int(fields["NDims"]) if fields.get("NDims", "").isdecimal() else 0
    for name in set(PLACES) & fields.keys():
        numbers = [part for part in fields[name].split() if NUMBER.fullmatch(part)]
        if len(numbers) != len(fields[name].split()) or len(numbers) not in (dims, dims**2):
            raise ScanError(f"{file.name} cannot be read: its {name} is {fields[name]!r}")
    spacing = fields.get("ElementSpacing", fields.get("ElementSize"))
    if spacing is None:
        raise ScanError(f"{file.name} does not say how large its voxels are (ElementSpacing)")
    if "-" in re.sub("e-", "", spacing.lower()):
        raise ScanError(f"its spacing is negative: {spacing}")
    _check_unit(file, fields.get("DistanceUnits", ""))
    for name, neutral in SCALING.items():
        if name in fields and fields[name] not in (f"{neutral:g}", f"{neutral}"):
            raise ScanError(f"{file.name} says that its values are scaled ({name} = {fields[name]}); write it rescaled")


def _check_unit(file: Path, unit: str) -> None:
    """Raise a ScanError if lengths are in another unit than mm, which ITK takes for mm."""
    if not MILLIMETRES.fullmatch(unit.strip()):
        raise ScanError(f"{file.name} has its lengths in {unit}; write it anew in mm")


def _check_raw_length(file: Path, image: sitk.Image) -> None:
    """Raise a ScanError if there are more raw data than a MetaImage's header says: of another type, size or start."""
    fields, start = _meta_header(file)
    if fields.get("CompressedData", "False").lower() == "true" or fields.get("HeaderSize", "0") != "0":
        return
    if fields["ElementDataFile"].upper() != "LOCAL":
        file, start = file.parent / fields["ElementDataFile"], 0
    if file.is_file():  # no list or pattern of several
        _check_not_longer(file, file.stat().st_size - start, image)


def _check_not_longer(file: Path, there: int, image: sitk.Image) -> None:
    """Raise a ScanError if a file has more bytes of raw data than its header says: the one or the other is wrong."""
    if there > (wanted := sitk.GetArrayViewFromImage(image).nbytes):
        raise ScanError(f"{file.name} does not go with its header: it has {there} bytes of voxels, not {wanted}")


def _check_zlib(file: Path, image: sitk.Image) -> None:
    """Raise a ScanError if a MetaImage's compressed data do not have their checksum, which MetaIO ignores."""
    fields, start = _meta_header(file)
    size = fields.get("CompressedDataSize", "")
    orders = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    swapped = any(fields.get(name, "False").lower() == "true" for name in orders)
    if fields.get("CompressedData", "False").lower() != "true" or not size or swapped:
        return
    if not size.isdecimal():
        raise ScanError(f"{file.name} cannot be read: its CompressedDataSize is {size!r}")
    if fields["ElementDataFile"].upper() != "LOCAL":
        file, start = file.parent / fields["ElementDataFile"], 0
    with file.open("rb") as stream:
        stream.seek(start + int(size) - 4)
        checksum = int.from_bytes(stream.read(4), "big")  # the last four bytes of a zlib stream
    if checksum != zlib.adler32(sitk.GetArrayViewFromImage(image).data):
        raise ScanError(f"the compressed data of {file.name} are corrupt")


def _check_nrrd(file: Path, image: sitk.Image) -> None:
    """Raise a ScanError if a NRRD does not say how large its voxels are, or its gzip data do not have their checksum.

    ITK's reader takes 1 mm, and reads what it can.
    """
    with file.open("rb") as stream:
        fields: dict[str, str] = {}
        for line in iter(stream.readline, b""):
            if not line.strip():
                break
            key, _, value = line.decode(errors="replace").partition(":")
            fields[key.strip().lower().replace(" ", "")] = value.strip()
        start = stream.tell()
    steps = VECTOR.findall(fields.get("spacedirections", "")) or fields.get("spacings", "").lower().split()
    if sum(step not in ("none", "nan") for step in steps) < min(3, image.GetDimension()):
        raise ScanError(f"{file.name} does not say how large its voxels are (space directions)")
    for unit in QUOTED.findall(fields.get("spaceunits", fields.get("units", ""))):
        _check_unit(file, unit)
    if fields.keys() & {"lineskip", "byteskip"}:
        return
    name, encoding = fields.get("datafile", ""), fields.get("encoding", "").lower()
    data = file.parent / name if name else file
    if data.is_file() and encoding == "raw":
        _check_not_longer(data, data.stat().st_size - (0 if name else start), image)
    if not data.is_file() or encoding not in ("gzip", "gz"):  # a list or a pattern of several
        return
    length = 0
    try:
        with data.open("rb") as stream:
            stream.seek(0 if name else start)
            with gzip.GzipFile(fileobj=stream) as unzipped:
                while chunk := unzipped.read(2**20):
                    length += len(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ScanError(f"the compressed data of {file.name} are corrupt") from None
    if length != (wanted := sitk.GetArrayViewFromImage(image).nbytes):
        raise ScanError(f"{file.name} cannot be read: it has {length} bytes of voxels, not {wanted} as its header says")


def reason(file: Path, printed: str, error: str) -> str:
    """One line from what ITK printed and raised."""
    short = re.search(r"ideal = (\d+) : actual = (\d+)", printed)
    if short:
        return f"the data of {file.name} are cut short: {short[2]} of {short[1]} bytes"
    if "Cannot open data file" in printed:
        return f"the data file that {file.name} names is missing"
    if "Uncompress failed" in printed:
        return f"the compressed data of {file.name} are corrupt"
    if short := re.search(r"expected (\d+) bytes but received (\d+)", error):  # NRRD's way to say it
        return f"the data of {file.name} are cut short: {short[2]} of {short[1]} bytes"
    if "allocate memory" in error or "bad_alloc" in error:
        return f"{file.name} needs more memory than there is, or its header is wrong"
    text = " ".join(re.split(r"ERROR: (?:\w+\(0x\w+\): )?", error or printed)[-1].split())
    if "for reading. Reason: No such file" in text:  # the file is there: MetaIO could not make sense of it
        text = "its header is damaged or lacks something"
    if "[nrrd]" in text:  # it tells the way to the fault, one function after the other
        text = f"damaged or cut short: {text.rpartition('[nrrd] ')[2].partition(': ')[2] or 'no NRRD file'}"
    return f"{file.name} cannot be read: {shorten(text, LONGEST, placeholder=' ...')}"
