"""The DICOM series in a folder, and what else lies there that holds no image of the body."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets.ct.dicom import DicomFile, is_dicom, read_dicom_file
from datasets.ct.dicom_series import split_off
from datasets.ct.errors import ScanError
from datasets.ct.split_series import Part, part_of
from utils.errors import reason

SUFFIXES = (".dcm", ".dicom", ".ima")
SINGLE = "single image"


@dataclass
class Folder:
    """What DICOM files a folder holds.

    Attributes:
        series: the files of each scan, under its SeriesInstanceUID; several multi-frame files may share one.
        passed_over: how many files hold something else, by what that is.
        left_out: slices that a series is read without, being of another size or orientation.
        unreadable: files that look like DICOM and cannot be read, and why the first one cannot.
        parts: the series of one slice a file, single slices too, to be compared with those of other folders.
    """

    series: list[tuple[str, tuple[Path, ...]]] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    left_out: list[Path] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)


def find_series(files: Sequence[Path]) -> Folder:
    """Sort the DICOM files among the ``files`` of one folder; their pixels are not read."""
    found = Folder()
    by_uid: dict[str, list[DicomFile]] = {}
    for file in files:
        named = file.suffix.lower() in SUFFIXES
        try:
            if not is_dicom(file):
                if named:
                    found.unreadable.append((file, "it is no DICOM file" if file.stat().st_size else "it is empty"))
                continue
        except OSError as error:
            if named or isinstance(
                error, PermissionError
            ):  # of what else leads nowhere, nothing says that it is a slice
                found.unreadable.append((file, reason(error)))
            continue
        if file.name == "DICOMDIR":  # other names it has, too, and tells then itself
            found.passed_over[file.name] += 1
            continue
        try:
            header = read_dicom_file(file)
        except (ScanError, OSError) as error:
            found.unreadable.append((file, str(error)))
            continue
        if header.other:
            found.passed_over[header.other] += 1
        elif len(header.slices) > 1:
            found.series.append((_uid(header), (file,)))
        else:
            by_uid.setdefault(_uid(header), []).append(header)
    for uid, headers in by_uid.items():
        _add_series(found, uid, headers)
    return found


def _add_series(found: Folder, uid: str, headers: Sequence[DicomFile]) -> None:
    """A series of one slice a file; without localizers, and not where it has one slice alone."""
    kept, left_out = split_off([header.slices[0] for header in headers])
    if kept and (part := part_of(uid, kept)):
        found.parts.append(part)
    if len(kept) < 2:
        found.passed_over["localizer" if not kept else SINGLE] += len(headers)
        return
    found.left_out += [slice_.file for slice_ in left_out]
    found.series.append((uid, tuple(slice_.file for slice_ in kept)))


def _uid(header: DicomFile) -> str:
    return re.sub(r"[^A-Za-z0-9.]", "", header.series)  # as GDCM names series
