"""CSV tables in the place of lists, such as NIH's Data_Entry_2017.csv: which column has the names of the images."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from datasets.xray.images import SUFFIXES
from utils.errors import UserError

DELIMITERS = ",;\t"
FINDINGS = "Finding Labels"  # NIH's column of labels


def is_table(first: str, path: Path) -> bool:
    """Whether a file that begins with this line is a table with a header, not a list of names and labels."""
    fields = [field.strip() for field in _fields(first, _delimiter(first))]
    if any(field.lower().endswith(SUFFIXES) for field in fields):
        return False
    if len(fields) == 1:
        return path.suffix.lower() == ".csv"
    return not all(field in ("0", "1") for field in fields[1:])


def read_table(text: str, path: Path) -> tuple[list[str], list[str] | None]:
    """The names of the images, and NIH's findings where the table has them, in the order of its rows.

    The names are in the only column all of whose values are names of image files. UserError if there is none, or
    more than one.
    """
    delimiter = _delimiter(next(line for line in text.split("\n") if line.strip()))
    try:
        header, *rows = (row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(map(str.strip, row)))
    except csv.Error as error:
        raise UserError(f"the table {path} cannot be read: {error}") from error
    if not rows:
        raise UserError(f"the table {path} has a header and no rows")
    columns = [[row[place].strip() if place < len(row) else "" for row in rows] for place in range(len(header))]
    named = [place for place, values in enumerate(columns) if all(value.lower().endswith(SUFFIXES) for value in values)]
    if len(named) != 1:
        which = f"the columns {' and '.join(header[place] for place in named)}"
        which = which if named else f"no column (of {', '.join(filter(None, header))})"
        raise UserError(
            f"the table {path} has names of image files ({', '.join(SUFFIXES)}) in all rows of {which}; "
            "write a list, one name a line"
        )
    return columns[named[0]], columns[header.index(FINDINGS)] if FINDINGS in header else None


def _delimiter(line: str) -> str:
    return max(DELIMITERS, key=line.count)


def _fields(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error:
        return [line]
