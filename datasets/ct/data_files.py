"""The files beside a header that have a scan's voxels. Free of torch."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

HEADER_BYTES = 2**20  # in which a header names its data files
META_FIELD = re.compile(rb"^[ \t]*ElementDataFile[ \t]*=(.*)", re.MULTILINE)
NAMING = {  # the field of a header that names the files of the voxels
    ".mhd": META_FIELD,
    ".mha": META_FIELD,
    ".nrrd": re.compile(rb"^data ?file:(.*)", re.MULTILINE | re.IGNORECASE),
}
BLANK_LINE = re.compile(rb"\r?\n\r?\n")  # ends the header of a .nrrd
PATTERN = re.compile(r"%\d*d")  # of the slices' numbers


def data_files(header: Path) -> Iterator[Path]:
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
