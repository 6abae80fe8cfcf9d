"""What a scan is known by: the content of all its files, whatever they are called and wherever they lie."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from datasets.ct.data_files import data_files
from preprocess.volumes.files import Scan

READ_BYTES = 2**22
FORMER_DIGITS = 32  # of BLAKE2 hashes, which earlier versions wrote; they took a third of the time of a scan's pairs


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
    named = list(data_files(scan.files[0])) if len(scan.files) == 1 else []
    there = [path for path in named if path.is_file()]
    paths = (*scan.files, *there)
    stats = [path.stat() for path in paths]
    told = [(each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in stats]
    stamp = _hash(repr(sorted((os.path.abspath(path), *own) for path, own in zip(paths, told, strict=True))))
    return Files(paths, sum(each.st_size for each in stats), stamp, len(there) == len(named))


def content_of(files: Files, like: str = "") -> str:
    """A hash of the bytes of all files; names and order do not count. OSError if one cannot be read.

    ``like``: another hash, for one of its kind, to be compared with it.
    """
    former = is_former(like)
    hashes = sorted(_file_hash(path, former) for path in files.paths)
    return _hash("\n".join(hashes)) if former else xxhash.xxh3_64_hexdigest("\n".join(hashes).encode())


def is_former(content: str) -> bool:
    """Whether it is a hash as earlier versions wrote it."""
    return len(content) == FORMER_DIGITS


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=FORMER_DIGITS // 2).hexdigest()


def _file_hash(path: Path, former: bool) -> str:
    digest: Any = hashlib.blake2b(digest_size=FORMER_DIGITS // 2) if former else xxhash.xxh3_64()
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(READ_BYTES):
            digest.update(chunk)
    return str(digest.hexdigest())
