"""NIfTI files, read byte by byte. Free of torch.

ITK's reader takes NaN for 0, which is soft tissue in HU, refuses directions that are rounded to a few digits, and reads
files that are cut short without a word.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import SimpleITK as sitk

from datasets.ct.errors import ScanError

HEADERS = {348: 352, 540: 544}  # size of the header of NIfTI-1 and NIfTI-2: how much of the file is read for it
KINDS = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}  # datatype codes: one number a voxel
UNITS_MM = {1: 1000.0, 3: 0.001}  # metres and micrometres; all else counts as millimetres
MOST_ZIPPED = 1100  # a gzip file becomes at most 1032 times as long
LARGEST = 2**62  # bytes, of any file
NOTHING = 1e-30  # of a direction; on smaller numbers ITK's solver prints its doubts
SCANNER = 1  # the code of a form that leads to the scanner's coordinates
TO_LPS = np.diag([-1.0, -1.0, 1.0])  # NIfTI's x grows to the right, y to the front; ITK's to the left and the back


@dataclass(frozen=True)
class NiftiHeader:
    """Of a NIfTI file: ``shape`` (3 or 4 axes, x first), the kind of its numbers and how they are scaled.

    ``direction`` (3, 3; unit columns), ``spacing`` and ``origin`` (3,) in mm are ITK's, in LPS. ``start``: of the data,
    in bytes.
    """

    shape: tuple[int, ...]
    kind: np.dtype
    slope: float
    intercept: float
    direction: np.ndarray
    spacing: np.ndarray
    origin: np.ndarray
    start: int

    @property
    def data_bytes(self) -> int:
        """Length of the data."""
        return math.prod(self.shape) * self.kind.itemsize


@dataclass(frozen=True)
class NiftiForms:
    """How a NIfTI header says where its voxels lie, as it stands there: ``pixdim`` (8,), ``units``, the two forms.

    ``quaternion`` (6,): b, c, d and the offsets of the qform. ``rows`` (3, 4): of the sform.
    """

    pixdim: np.ndarray
    units: int
    qform_code: int
    sform_code: int
    quaternion: np.ndarray
    rows: np.ndarray


def read_nifti(file: Path) -> sitk.Image:
    """The image in a NIfTI file: 3D, or 4D if it holds several volumes; axes that are not at right angles stay so.

    Numbers are as stored where the file does not scale them, else float32. Raises ScanError.
    """
    header = read_nifti_header(file)
    wanted = header.start + header.data_bytes
    try:
        if wanted > file.stat().st_size * MOST_ZIPPED:  # not asked for: so much memory there may not be
            raise _cut_short(file, _length(file), wanted)
        with _opened(file) as stream:
            stream.seek(header.start)
            data = stream.read(header.data_bytes)
            if len(data) < header.data_bytes:
                raise _cut_short(file, header.start + len(data), wanted)
            more = 0
            while rest := stream.read(2**20):  # to the end of a gzip file, where its checksum lies
                more += len(rest)
    except EOFError:
        raise _cut_short(file, _length(file), wanted) from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise ScanError(f"{file.name} cannot be read: {error}") from None
    if more:
        raise ScanError(f"{file.name} does not go with its header: it has {wanted + more} bytes, not {wanted}")
    voxels = np.frombuffer(data, header.kind).reshape(header.shape[::-1])
    if (header.slope, header.intercept) != (1, 0):
        voxels = (voxels * np.float64(header.slope) + header.intercept).astype(np.float32)
    voxels = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    volumes = [voxels] if voxels.ndim == 3 else list(voxels)
    images = [_image(volume, header) for volume in volumes]
    return images[0] if voxels.ndim == 3 else sitk.JoinSeries(images)


def read_nifti_header(file: Path) -> NiftiHeader:
    """The header alone; ScanError if there is none or it makes no sense."""
    fields = _read_fields(file)
    scaling = _scaling(file, fields)
    direction, spacing, origin = _place(file, fields)
    kind = np.dtype(fields.order + KINDS[fields.code])
    if not fields.start < LARGEST:  # not: so that NaN is refused as well
        raise ScanError(f"{file.name} cannot be read: its voxels begin at byte {fields.start:g} (vox_offset)")
    start = max(HEADERS[fields.size], int(fields.start))
    return NiftiHeader(_shape(file, fields), kind, *scaling, direction, spacing, origin, start)


def read_nifti_forms(file: Path) -> NiftiForms:
    """What the header says of the voxels' place, for a mask to say the same; ScanError if there is no header."""
    fields = _read_fields(file)
    codes = fields.qform_code, fields.sform_code
    return NiftiForms(fields.pixdim, fields.units, *codes, fields.quaternion, fields.rows)


def read_nifti_intent(file: Path) -> int:
    """What the header says that the numbers are, by NIfTI's codes; ScanError if there is no header."""
    return _read_fields(file).intent


def _opened(file: Path) -> BinaryIO:
    """The file as it is, or unzipped: some are zipped without saying so, others say so without being it."""
    with file.open("rb") as stream:
        zipped = stream.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(file)) if zipped else file.open("rb")


def _image(volume: np.ndarray, header: NiftiHeader) -> sitk.Image:
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(header.spacing.tolist())
    image.SetOrigin(header.origin.tolist())
    image.SetDirection(header.direction.ravel().tolist())
    return image


def _read_fields(file: Path) -> _Fields:
    try:
        with _opened(file) as stream:
            raw = stream.read(max(HEADERS.values()))
    except EOFError:
        raise ScanError(f"{file.name} cannot be read: it is cut short") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise ScanError(f"{file.name} cannot be read: {error}") from None
    order = next((order for order in "<>" if int(np.frombuffer(raw[:4].ljust(4), f"{order}i4")[0]) in HEADERS), "")
    if not order:
        raise ScanError(f"{file.name} cannot be read: it is {'no NIfTI file' if raw else 'empty'}")
    with np.errstate(invalid="ignore"):  # of NaN, which is looked for where it matters
        fields = _Fields(raw, order)
    if len(raw) < fields.size or fields.magic[:2] != b"n+":
        raise ScanError(f"{file.name} cannot be read: it is no NIfTI file in one part")
    if fields.code not in KINDS:
        raise ScanError(f"{file.name} cannot be read: its voxels are no single numbers (datatype {fields.code})")
    return fields


class _Fields:
    """The numbers of a header of either version."""

    def __init__(self, raw: bytes, order: str) -> None:
        self.order, self.size = order, int(np.frombuffer(raw[:4], f"{order}i4")[0])
        old = self.size == 348
        real = "f4" if old else "f8"
        raw = raw.ljust(self.size, b"\0")

        def at(offset: int, kind: str, count: int = 1) -> np.ndarray:
            return np.frombuffer(raw, f"{order}{kind}", count, offset)

        self.magic = raw[344:348] if old else raw[4:12]
        self.dim = at(40, "i2", 8).tolist() if old else at(16, "i8", 8).tolist()
        self.intent = int(at(68, "i2")[0]) if old else int(at(504, "i4")[0])
        self.code = int(at(70 if old else 12, "i2")[0])
        self.pixdim = at(76 if old else 104, real, 8).astype(float)
        self.start = float(at(108, "f4")[0]) if old else int(at(168, "i8")[0])
        self.scaling = at(112 if old else 176, real, 2).astype(float)
        self.units = int(raw[123]) if old else int(at(500, "i4")[0])
        forms = ("i2", 252) if old else ("i4", 344)
        self.qform_code, self.sform_code = at(forms[1], forms[0], 2).tolist()
        self.quaternion = at(256 if old else 352, real, 6).astype(float)  # b, c, d and the offsets
        self.rows = at(280 if old else 400, real, 12).astype(float).reshape(3, 4)


def _shape(file: Path, fields: _Fields) -> tuple[int, ...]:
    """Three axes; a fourth one, of several volumes, if it is longer than 1."""
    axes = fields.dim[0]
    shape = fields.dim[1 : 1 + axes]
    if not 1 <= axes <= 7 or min(shape) < 1:
        raise ScanError(f"{file.name} cannot be read: its header has the size {' x '.join(map(str, shape))}")
    shape = [*shape, 1, 1][: max(axes, 3)]
    more = [n for n in shape[3:] if n > 1]
    if len(more) > 1:
        raise ScanError(f"{file.name} has {len(more) + 3} dimensions, not 3")
    return (*shape[:3], *more)


def _scaling(file: Path, fields: _Fields) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 or NaN says that numbers are as stored (NIfTI-1's rule, and nibabel's)."""
    slope, intercept = fields.scaling.tolist()
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    if not np.isfinite(intercept):
        raise ScanError(f"{file.name} cannot be read: its numbers are scaled by {slope:g} plus {intercept} (scl_inter)")
    return slope, intercept


def _place(file: Path, fields: _Fields) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Direction, spacing and origin, in LPS and mm.

    A file may say twice where it lies. The sform counts if it leads to the scanner's coordinates or no qform is there;
    else the qform: an sform of another code may lead to an atlas, whose millimetres are not the patient's.
    """
    unit = UNITS_MM.get(fields.units & 7, 1.0)
    sform = (fields.sform_code, fields.rows[:, :3], fields.rows[:, 3])
    qform = (fields.qform_code, _rotation(fields) * np.abs(fields.pixdim[1:4]), fields.quaternion[3:])
    forms = [sform, qform] if fields.sform_code == SCANNER else [qform, sform]
    plain = (1, np.diag(np.abs(fields.pixdim[1:4])), np.zeros(3))
    for code, matrix, offset in (*forms, plain):
        matrix = np.where(np.abs(matrix) < NOTHING, 0, matrix)
        steps = np.linalg.norm(matrix, axis=0)
        if code > 0 and np.isfinite([*matrix.ravel(), *offset]).all() and (steps > 0).all():
            if abs(np.linalg.det(matrix / steps)) < 0.1:  # axes in one plane, or nearly so
                continue
            return TO_LPS @ (matrix / steps), steps * unit, TO_LPS @ offset * unit
    raise ScanError(f"{file.name} does not say how large its voxels are (pixdim, sform)")


def _rotation(fields: _Fields) -> np.ndarray:
    """The qform's rotation (3, 3), of a quaternion whose first number is left out; the third axis may be mirrored."""
    b, c, d = fields.quaternion[:3]
    a = np.sqrt(max(0.0, 1 - (b * b + c * c + d * d)))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    rotation[:, 2] *= -1 if fields.pixdim[0] < 0 else 1
    return rotation


def _cut_short(file: Path, there: int, wanted: int) -> ScanError:
    return ScanError(f"{file.name} is cut short: it has {there} of {wanted} bytes")


def _length(file: Path) -> int:
    """How many bytes there are, of a gzip file how much can be unzipped, cut short or not."""
    length = 0
    try:
        with cast(BufferedIOBase, _opened(file)) as stream:
            while chunk := stream.read1(2**20):  # read() would lose what comes before the file's end
                length += len(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        pass  # what has come so far is what there is
    return length
