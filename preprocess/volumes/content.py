"""What a scan is known by: the content of all its files, whatever they are called and wherever they lie."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from preprocess.volumes.files import Scan

HEADER_BYTES = 2**20  # in which a header names its data files
READ_BYTES = 2**22
META_FIELD = re.compile(rb"^[ \t]*ElementDataFile[ \t]*=(.*)", re.MULTILINE)
NAMING = {  # the field of a header that names the files of the voxels
    ".mhd": META_FIELD,
    ".mha": META_FIELD,
    ".nrrd": re.compile(rb"^data ?file:(.*)", re.MULTILINE | re.IGNORECASE),
}
BLANK_LINE = re.compile(rb"\r?\n\r?\n")  # ends the header of a .nrrd
PATTERN = re.compile(r"%\d*d")  # of the slices' numbers


@dataclass(frozen=True)
class Files:
    """The files of a scan, their bytes together, and a ``stamp`` that changes when one of them is written or moved.

    ``whole``: whether all that a header names are there.
    """

    paths: tuple[Path, ...]
    size: int
    stamp: str
    whole: bool


def files_of(scan: Scan) -> Files:
    """The scan's files, those that a header names included; reads a header at most. OSError if it is not there."""
    named = list(_named_by(scan.files[0])) if len(scan.files) == 1 else []
    there = [path for path in named if path.is_file()]
    paths = (*scan.files, *there)
    stats = [path.stat() for path in paths]
    told = [(each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in stats]
    stamp = _hash(repr(sorted((os.path.abspath(path), *own) for path, own in zip(paths, told, strict=True))))
    return Files(paths, sum(each.st_size for each in stats), stamp, len(there) == len(named))


def content_of(files: Files) -> str:
    """A hash of the bytes of all files; names and order do not count. OSError if one cannot be read."""
    return _hash("\n".join(sorted(_file_hash(path) for path in files.paths)))


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _file_hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _named_by(header: Path) -> Iterator[Path]:
    """The data files that a header names: one, a pattern's, or a list; none if the data are in the file itself."""
    naming = NAMING.get(header.suffix.lower())
    if naming is None:
        return
    with header.open("rb") as stream:
        text = stream.read(HEADER_BYTES)
    if naming is not META_FIELD:
        text = BLANK_LINE.split(text, maxsplit=1)[0]
    found = naming.search(text)
    value = os.fsdecode(found[1]).strip() if found else ""
    if not found or value.upper() in ("", "LOCAL"):
        return
    if value.upper().startswith("LIST"):
        lines = (os.fsdecode(line).strip() for line in text[found.end() :].splitlines())
        yield from (header.parent / line for line in lines if line)
    elif PATTERN.search(value) and not (header.parent / value).exists():
        pattern = PATTERN.sub("*", glob.escape(value.split()[0]))
        yield from sorted(header.parent.glob(pattern))
    else:
        yield header.parent / value
