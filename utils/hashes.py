"""SHA-256 of files."""

from __future__ import annotations

import hashlib
import math
import os
import time
from pathlib import Path

END_BYTES = 2**16  # of a file, that tell it from another one at either end


class TooLateError(Exception):
    """The time that a search may take is over."""


def hash_of_content(path: str | Path, end: float = math.inf) -> str:
    """Of all bytes of a file; OSError, and TooLateError after ``end``, of the monotonic clock."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            if time.monotonic() > end:
                raise TooLateError
    return digest.hexdigest()


def hash_of_ends(path: str | Path) -> str:
    """Of the file's first and last bytes; a gzip file ends with a checksum of all it holds. OSError."""
    with open(path, "rb") as file:
        begin = file.read(END_BYTES)
        file.seek(-min(os.fstat(file.fileno()).st_size, END_BYTES), os.SEEK_END)
        return hashlib.sha256(begin + file.read(END_BYTES)).hexdigest()
