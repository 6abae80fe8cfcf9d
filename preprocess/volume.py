"""Read a scan and resample the part of it that is needed to 1 mm, with SimpleITK's numbers."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from preprocess.native import native_output
from preprocess.scans import Scan

OUTSIDE_HU = -1000  # the value beyond the scan's edge: air
MAX_EXTENT_MM = 3000  # a scan of more than that has a wrong spacing
UNEVEN = 0.1  # slices of a series may differ this much in distance, as a part of the usual distance


class ScanError(Exception):
    """A scan that cannot be used. The message is one line and says why."""


def read_image(scan: Scan) -> sitk.Image:
    """Read a scan whole: a 3D image of one finite number a voxel.

    Raises:
        ScanError: unreadable, cut short or corrupt files, missing slices, not such an image.
    """
    if scan.problem:
        raise ScanError(scan.problem)
    for file in scan.files:
        if not file.is_file():
            raise ScanError(f"{file.name} is missing")
    image = _read_files(scan.files)
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ScanError(f"not a 3D image with one number a voxel: its size is {_by(image.GetSize())}")
    extent = [n * spacing for n, spacing in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    if max(extent) > MAX_EXTENT_MM:
        raise ScanError(f"it would measure {_by(round(side) for side in extent)} mm: its spacing must be wrong")
    voxels = sitk.GetArrayViewFromImage(image)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels.sum(dtype=np.float64)):
        raise ScanError("it has voxels that are not finite numbers (NaN or infinite)")
    return image


def shape_at_1mm(image: sitk.Image) -> tuple[int, ...]:
    """Voxels in x, y, z of ``image`` once resampled to 1 mm: int(n * spacing + 0.5)."""
    return tuple(int(n * spacing + 0.5) for n, spacing in zip(image.GetSize(), image.GetSpacing(), strict=True))


def resample(image: sitk.Image, first: Iterable[int], end: Iterable[int]) -> np.ndarray:
    """Voxels ``first`` to ``end`` (exclusive) of ``image`` resampled to 1 mm, as (x, y, z).

    Linear, same origin and direction, -1000 outside, in the scan's kind of number, integers cut off
    towards zero: what ``SimpleITK.Resample`` gives, in a tenth of its time, since only the part that
    crops come from is made. (Where the exact result is a whole number, rounding decides which side of it
    the sum lies on, so that some voxels are 1 HU apart: one in two thousand of a LUNA16 scan. SimpleITK
    asked for a part of the scan differs as often from SimpleITK asked for the whole.)
    """
    voxels = sitk.GetArrayViewFromImage(image)
    kind = {"i": np.int32, "u": np.int32, "f": np.float32}[voxels.dtype.kind]
    x, y, z = (
        _Axis(n, spacing, low, high)
        for n, spacing, low, high in zip(image.GetSize(), image.GetSpacing(), first, end, strict=True)
    )
    out = np.empty((len(z.below), len(y.below), len(x.below)), np.int16 if voxels.dtype == np.int16 else kind)
    planes: dict[int, np.ndarray] = {}  # the two slices around the current one, resampled in x and y
    for k, neighbours in enumerate(zip(z.below, z.above, strict=True)):
        planes = {n: planes[n] if n in planes else _in_plane(voxels[n], x, y) for n in neighbours}
        below, above = (planes[n] for n in neighbours)
        out[k] = _between(below, above, z.fraction[k])
    out[z.outside], out[:, y.outside], out[:, :, x.outside] = OUTSIDE_HU, OUTSIDE_HU, OUTSIDE_HU
    return out.T


class _Axis:
    """Where the voxels ``low`` to ``high`` of the 1 mm grid lie on an axis of ``n`` voxels."""

    def __init__(self, n: int, spacing: float, low: int, high: int) -> None:
        position = np.arange(low, high) / spacing
        self.below = np.minimum(position.astype(int), n - 1)
        self.above = np.minimum(self.below + 1, n - 1)
        self.fraction = position - self.below
        self.outside = position >= n - 0.5  # a voxel reaches half its width beyond its centre


def _in_plane(plane: np.ndarray, x: _Axis, y: _Axis) -> np.ndarray:
    """Resample one slice (y, x), x first: the order of ITK's sums."""
    plane = plane[y.below[0] : y.above[-1] + 1]
    left, right = plane.take(x.below, axis=1).astype(np.float64), plane.take(x.above, axis=1)
    rows = _between(left, right, x.fraction)
    return _between(rows[y.below - y.below[0]], rows[y.above - y.below[0]], y.fraction[:, None])


def _between(low: np.ndarray, high: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """low + (high - low) * fraction, written so that it touches little memory."""
    step = high - low
    step *= fraction
    step += low
    return step


def _read_files(files: tuple[Path, ...]) -> sitk.Image:
    with native_output() as printed:
        try:
            if len(files) > 1:
                return _read_series(files)
            image = sitk.ReadImage(str(files[0]))
        except RuntimeError as error:
            raise ScanError(_reason(files[0], printed(), str(error))) from None
        if "fail" in printed().lower():  # e.g. MetaIO's "Uncompress failed", after which it reads zeros
            raise ScanError(_reason(files[0], printed(), ""))
        if files[0].suffix.lower() in (".mhd", ".mha"):
            _check_zlib(files[0], image)
        if files[0].name.lower().endswith((".nii", ".nii.gz")):
            _check_nifti(files[0])
    return image


def _read_series(files: tuple[Path, ...]) -> sitk.Image:
    """Read the slices of a DICOM series, and see that none is missing between them."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in files])
    reader.MetaDataDictionaryArrayUpdateOn()
    image = reader.Execute()
    tag = "0020|0032"  # image position (patient), mm
    if all(reader.HasMetaDataKey(k, tag) for k in range(len(files))):
        corners = np.array([reader.GetMetaData(k, tag).split("\\") for k in range(len(files))], float)
        check_slice_distances(np.linalg.norm(np.diff(corners, axis=0), axis=1))
    return image


def check_slice_distances(distances: np.ndarray) -> None:
    """Raise a ScanError if the distances (mm) between neighbouring slices differ: slices are missing or doubled."""
    usual = float(np.median(distances))
    odd = distances[np.abs(distances - usual) > UNEVEN * usual]
    if usual == 0 or len(odd):
        raise ScanError(
            f"slices are missing or doubled: {len(odd)} of {len(distances)} distances between slices are not "
            f"the usual {usual:g} mm, e.g. {odd[0] if len(odd) else usual:g} mm"
        )


def _check_zlib(file: Path, image: sitk.Image) -> None:
    """Raise a ScanError if a MetaImage's compressed data do not have their checksum, which MetaIO ignores."""
    fields: dict[str, str] = {}
    with file.open("rb") as stream:
        while "ElementDataFile" not in fields:  # the header's last line
            key, _, value = stream.readline().decode(errors="replace").partition("=")
            fields[key.strip()] = value.strip()
        start = stream.tell()
    swapped = fields.get("BinaryDataByteOrderMSB", "False").lower() == "true"
    if fields.get("CompressedData", "False").lower() != "true" or "CompressedDataSize" not in fields or swapped:
        return
    if fields["ElementDataFile"] != "LOCAL":
        file, start = file.parent / fields["ElementDataFile"], 0
    with file.open("rb") as stream:
        stream.seek(start + int(fields["CompressedDataSize"]) - 4)
        checksum = int.from_bytes(stream.read(4), "big")  # the last four bytes of a zlib stream
    if checksum != zlib.adler32(sitk.GetArrayViewFromImage(image).data):
        raise ScanError(f"the compressed data of {file.name} are corrupt")


def _check_nifti(file: Path) -> None:
    """Raise a ScanError if a NIfTI file is shorter than its header says; ITK reads such a file without a word."""
    info = sitk.ImageFileReader()
    info.SetFileName(str(file))
    info.ReadImageInformation()
    bits = int(info.GetMetaData("bitpix"))
    wanted = int(float(info.GetMetaData("vox_offset"))) + int(np.prod(info.GetSize())) * bits // 8
    zipped = file.suffix.lower() == ".gz"
    there = _unzipped_bytes(file, wanted) if zipped else file.stat().st_size
    if there < wanted:
        raise ScanError(f"{file.name} is cut short: it has {there} of {wanted} bytes")


def _unzipped_bytes(file: Path, wanted: int) -> int:
    """Length of a gzip file's content; unzips it only where its last four bytes do not confirm ``wanted``."""
    with file.open("rb") as stream:
        stream.seek(-4, 2)
        if int.from_bytes(stream.read(4), "little") == wanted % 2**32:
            return wanted
    length = 0
    try:
        with gzip.open(file) as stream:
            while chunk := stream.read(2**20):
                length += len(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        pass  # what has come so far is what there is
    return length


def _reason(file: Path, printed: str, error: str) -> str:
    """One line from what ITK printed and raised."""
    short = re.search(r"ideal = (\d+) : actual = (\d+)", printed)
    if short:
        return f"the data of {file.name} are cut short: {short[2]} of {short[1]} bytes"
    if "Cannot open data file" in printed:
        return f"the data file that {file.name} names is missing"
    if "Uncompress failed" in printed:
        return f"the compressed data of {file.name} are corrupt"
    text = re.split(r"ERROR: (?:\w+\(0x\w+\): )?", error or printed)[-1]
    return f"{file.name} cannot be read: {' '.join(text.split())[:200]}"


def _by(sizes: Iterable[float]) -> str:
    return " x ".join(str(size) for size in sizes)
