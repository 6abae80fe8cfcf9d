"""The record beside a scan's crops, ``<uid>.json``: how they were made, and that they are all there.

It goes before the first crop is written and comes after the last, so that after a kill it is right or not there.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import SimpleITK as sitk

from datasets.ct.errors import ScanError
from datasets.layout import RECORD
from preprocess.jobs.flags import cannot_write, would_be_lost
from preprocess.volumes.content import content_of, files_of
from preprocess.volumes.files import Scan
from preprocess.volumes.volume import read_image
from utils import json_text
from utils.errors import UserError, reason
from utils.files import TEMPORARY_SUFFIX, atomic_path, write_text
from utils.npy import read_array
from utils.text import counted

BAD_SCAN = (ScanError, OSError, RuntimeError, ValueError, MemoryError)  # whatever reading a bad file raises
TEMPORARY = re.compile(rf"\.(.*)\.\d+{re.escape(TEMPORARY_SUFFIX)}", re.DOTALL)  # utils.files.atomic_path's


def recipe_of(scan: Scan, version: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """All that a scan's crops depend on, as JSON gives it back."""
    size = sum(file.stat().st_size for file in scan.files)
    return json.loads(json.dumps({"version": version, **options, "files": len(scan.files), "bytes": size}))


def matches(record: Mapping[str, Any], recipe: Mapping[str, Any]) -> bool:
    """Whether the record's crops were made by this recipe. An option that came later is not held against it."""
    former = record["recipe"]
    return isinstance(former, dict) and {**recipe, **former} == recipe


def read_with_identity(scan: Scan, like: str = "") -> tuple[sitk.Image, dict[str, Any]]:
    """The scan, and what a record says of its files: their bytes, and a hash of their content (``content_of``).

    ScanError, as of :func:`read_image`, and if the files have changed meanwhile: the one would not be of the other.
    """
    before = files_of(scan)
    image = read_image(scan)
    found = {"size": before.size, "content": content_of(before, like)}
    if files_of(scan).stamp != before.stamp:
        raise ScanError("its files changed while they were read; run this again when they are all written")
    return image, found


def read_record(path: Path, *keys: str) -> dict[str, Any] | None:
    """The record, if it is there and has its recipe and these keys. UserError if there is one that cannot be read."""
    try:
        record = json_text.parse(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:  # as of another user: its crops are not to be replaced
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise UserError(f"{path} cannot be read: {reason(error)}; make it readable, or give another --save") from None
    return record if isinstance(record, dict) and {"recipe", *keys} <= record.keys() else None


def difference(record: Mapping[str, Any], options: Mapping[str, Any], words: Mapping[str, str]) -> str:
    """Those of these options that were others when the record was written, in words; "" if none was.

    ``words``: what an option is called, for people.
    """
    former, now = record["recipe"], json.loads(json.dumps(options))
    if not isinstance(former, dict):
        return ""
    others = [name for name in words if name in former and former[name] != now[name]]
    return "; ".join(f"{words[name]} {_shown(former[name])}, not {_shown(now[name])}" for name in others)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return (" .. " if len(value) == 2 else " x ").join(map(str, value))
    return "none" if value is None else str(value)


class CropJob(Protocol):
    """A scan's record, what decides on its crops beside the scan, and whether they are to be made anew."""

    @property
    def record(self) -> Path: ...
    @property
    def options(self) -> Any: ...
    @property
    def anew(self) -> bool: ...


def refuse_others(save: Path, what: str, jobs: Iterable[CropJob], words: Mapping[str, str]) -> None:
    """UserError if crops of these scans were made with other options: they would be lost.

    ``what`` they are, in the singular; in the plural it is the key of the record that has or counts them. ``words``: as
    of :func:`difference`.
    """
    number, first = 0, ""
    for job in jobs:
        record = None if job.anew else read_record(job.record, f"{what}s")
        if record and (others := difference(record, asdict(job.options), words)):
            made = record[f"{what}s"]
            number, first = number + (made if isinstance(made, int) else len(made)), first or others
    if number:
        raise would_be_lost(save, f"{counted(number, what)} made with other options ({first})")


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Say that the scan's crops are all there."""
    write_text(path, json.dumps(record, indent=1))


def clear(record: Path, *kinds: re.Pattern[str]) -> None:
    """Remove what an earlier run left of a scan: its record first, its crops, temporary files of a kill.

    ``kinds``: the names of the crops, of datasets/layout.py. Makes the folder if it is not there.
    """
    record.parent.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    uid = record.name.removesuffix(RECORD)
    for file in record.parent.iterdir():
        name = TEMPORARY.sub(r"\1", file.name)
        of_crops = any((match := kind.fullmatch(name)) and match["uid"] == uid for kind in kinds)
        if of_crops or (name != file.name and name == record.name):
            file.unlink()


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def is_array(path: Path, shape: tuple[int, ...], dtype: str) -> bool:
    """Whether the file is there, of this shape and kind and not cut short. Reads the header only."""
    try:
        array = read_array(path, mapped=True)
    except (OSError, ValueError):
        return False
    return array.shape == shape and array.dtype == dtype


def in_a_line(error: Exception) -> str:
    """What is wrong with a scan that raised one of BAD_SCAN."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be read: {reason(error)}"
    return " ".join(str(error).split()) or type(error).__name__


def not_written(save: Path, error: OSError) -> str:
    """What is wrong with a scan whose files' names the disk does not take; the UserError if it is something else."""
    if error.errno == errno.ENAMETOOLONG:
        return "its name is too long for this disk: rename the scan"
    raise cannot_write(save, error) from None
