"""Masks and probabilities as NIfTI-1 files that lie where the scan lies. Free of torch.

ITK's writer states a place anew, in its own way; here what the scan's header says is copied, so that every program that
puts the scan somewhere puts the mask there too.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from datasets.ct.grid import ROUNDED, skew_degrees
from datasets.ct.nifti import TO_LPS, NiftiForms, read_nifti_forms
from datasets.ct.stored_grid import StoredGrid

CODES = {"u1": (2, 8), "f4": (16, 32)}  # datatype, bits
HEADER_BYTES, DATA_START = 348, 352
MILLIMETRES = 2
SLICE = 2**24  # bytes that are compressed at once
FASTEST = 1  # level of gzip: masks shrink to a hundredth whatever the level


def write_nifti(path: Path, voxels: np.ndarray, grid: StoredGrid) -> None:
    """Write ``voxels`` uint8 or float32 (x, y, z), on the grid of a scan, as a zipped NIfTI-1 file; OSError.

    Not by itself whole or not at all: give the temporary path of ``utils.files.atomic_path``.
    """
    forms = read_nifti_forms(grid.file) if grid.file else _forms(grid)
    kind = voxels.dtype.str[1:]
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", FASTEST, raw, mtime=0) as file:
        file.write(_header(voxels.shape, kind, forms))
        planes = max(1, SLICE // max(1, voxels[..., 0].nbytes))
        for first in range(0, voxels.shape[2], planes):
            file.write(voxels[..., first : first + planes].astype(f"<{kind}").tobytes(order="F"))


def _header(shape: tuple[int, ...], kind: str, forms: NiftiForms) -> bytes:
    header = bytearray(DATA_START)
    code, bits = CODES[kind]
    struct.pack_into("<i", header, 0, HEADER_BYTES)
    struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, code, bits)
    struct.pack_into("<8f", header, 76, *forms.pixdim[:4], 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, DATA_START, 1, 0)  # where voxels begin, slope, intercept
    header[123] = forms.units & 7  # of lengths; there is no time
    struct.pack_into("<2h", header, 252, forms.qform_code, forms.sform_code)
    struct.pack_into("<6f", header, 256, *forms.quaternion)
    struct.pack_into("<12f", header, 280, *forms.rows.ravel())
    header[344:348] = b"n+1\0"
    return bytes(header)


def _forms(grid: StoredGrid) -> NiftiForms:
    """The place of a scan that is no NIfTI file, in NIfTI's words; a quaternion only where axes are at right angles."""
    direction = TO_LPS @ np.reshape(grid.direction, (3, 3))
    origin = TO_LPS @ np.array(grid.origin)
    rows = np.column_stack([direction * grid.spacing, origin])
    mirrored = np.linalg.det(direction) < 0
    rotation = direction * ([1, 1, -1] if mirrored else [1, 1, 1])
    upright = skew_degrees(direction) <= np.degrees(ROUNDED)
    b, c, d, a = Rotation.from_matrix(rotation).as_quat() if upright else (0, 0, 0, 1)
    sign = -1 if a < 0 else 1
    quaternion = np.array([sign * b, sign * c, sign * d, *origin])
    pixdim = np.array([-1.0 if mirrored else 1.0, *grid.spacing, 0, 0, 0, 0])
    return NiftiForms(pixdim, MILLIMETRES, int(upright), 1, quaternion, rows)
