"""CSV tables in the place of lists, such as NIH's Data_Entry_2017.csv: which column says what of an image."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.xray.images import SUFFIXES
from utils.console import warn
from utils.errors import UserError
from utils.text import counted

DELIMITERS = ",;\t"
FINDINGS = "Finding Labels"  # NIH's column of labels
# What columns are usually called, without regard to capitals, blanks and dashes; the first that is there counts.
IMAGE_NAMES = (
    *("image", "imagepath", "path", "filepath", "filename", "file", "imagename", "imageindex", "imageid"),
    *("imagefile", "img", "dicompath", "name"),
)
PATIENT_NAMES = ("patientid", "patient", "subjectid", "subject", "patientnumber", "pid", "personid")
SPLIT_NAMES = ("split", "partition", "subset", "set", "part", "fold", "dataset")
TRAIN, VALID, TEST = "train", "valid", "test"
PART_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), TRAIN),
    **dict.fromkeys(("valid", "val", "validation", "validate", "dev"), VALID),
    **dict.fromkeys(("test", "testing", "tst"), TEST),
}


@dataclass(frozen=True)
class Table:
    """A table with a header: ``rows`` has as many fields each as ``header``, without blanks at their ends."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]  # of the file, where each row ends; counted from 1

    def column(self, name: str) -> list[str]:
        """The values of a column, by its name."""
        place = self.header.index(name)
        return [row[place] for row in self.rows]

    def named(self, name: str, flag: str) -> str:
        """The column of this name, in the case of the header; UserError if there is none. ``flag``: that asked."""
        found = [own for own in self.header if own == name] or [own for own in self.header if _bare(own) == _bare(name)]
        if not found:
            raise UserError(f"{flag} {name}: the table {self.path} has no such column; it has {self._columns()}")
        return found[0]

    def usual(self, names: Sequence[str]) -> str:
        """The first column that is called one of ``names``; "" if none is."""
        own = {_bare(name): name for name in reversed(self.header)}
        return next((own[name] for name in names if name in own), "")

    def image_column(self, wanted: str = "") -> str:
        """The column of the names of the images: ``wanted`` (--image_column), or the one found.

        That is the only column all of whose values are names of image files; of several the one with a usual name; if
        there is none, a column with a usual name. UserError if there is no such column.
        """
        if wanted:
            return self.named(wanted, "--image_column")
        files = [name for name in self.header if all(value.lower().endswith(SUFFIXES) for value in self.column(name))]
        if len(files) == 1:
            return files[0]
        usual = Table(self.path, files, [], []).usual(IMAGE_NAMES) if files else self.usual(IMAGE_NAMES)
        if usual and self.header.count(usual) == 1:
            return usual
        which = f"the columns {' and '.join(files)} hold" if files else f"no column (of {self._columns()}) holds"
        raise UserError(
            f"the table {self.path}: {which} names of image files ({', '.join(SUFFIXES)}) in each row; name the column "
            "(--image_column, with labels), or write a list, one name a line"
        )

    def names(self, image_column: str = "") -> list[str]:
        """The names of the images; UserError, with the line, if one is empty."""
        column = self.image_column(image_column)
        names = self.column(column)
        if "" in names:
            line = self.lines[names.index("")]
            raise UserError(f"the table {self.path}, line {line}: the column {column} of the images' names is empty")
        return names

    def patient_column(self, wanted: str = "") -> str:
        """The column that tells whose image it is: ``wanted`` (--patient_column), or one with a usual name; or ""."""
        return self.named(wanted, "--patient_column") if wanted else self.usual(PATIENT_NAMES)

    def part_column(self) -> str:
        """The column all of whose values are words for training, validation and test; "" if there is none.

        UserError if a column ``split`` has other values beside such words.
        """
        for name in self.header:
            if _bare(name) not in SPLIT_NAMES:
                continue
            words = [value.lower() for value in self.column(name)]
            known = [word in PART_WORDS for word in words]
            if all(known):
                return name
            if any(known) and _bare(name) == SPLIT_NAMES[0]:
                row = known.index(False)
                raise UserError(
                    f"the table {self.path}, line {self.lines[row]}: the column {name} has {words[row]!r}, which is "
                    "none of train, valid (val) and test"
                )
        return ""

    def overlooked_parts(self) -> str:
        """What to warn of where no column tells the parts, but one seems to; else "".

        It is called ``split``, or most of its values are words for two parts or more.
        """
        if self.part_column():
            return ""
        for name in self.header:
            values = [value.lower() for value in self.column(name)]
            known = [PART_WORDS[value] for value in values if value in PART_WORDS]
            if _bare(name) == SPLIT_NAMES[0]:
                return f"the column {name} is ignored, because none of its values is train, valid or test"
            if len(set(known)) > 1 and 2 * len(known) > len(values):
                return (
                    f"the column {name} is ignored, though it seems to tell the parts: to use it, call it "
                    f"{SPLIT_NAMES[0]}, with no other words than {TRAIN}, {VALID} and {TEST}"
                )
        return ""

    def parts(self) -> list[str] | None:
        """Which part each row is of, ``TRAIN``, ``VALID`` or ``TEST``; None if no column says so."""
        name = self.part_column()
        return [PART_WORDS[value.lower()] for value in self.column(name)] if name else None

    def described(self, image_column: str = "", patient_column: str = "") -> list[str]:
        """The columns of the names, of the patients and of the parts: those that are no labels."""
        found = self.image_column(image_column), self.patient_column(patient_column), self.part_column()
        return [name for name in found if name]

    def others(self, names: Sequence[str]) -> list[str]:
        """The columns with a name that are none of these."""
        return [name for name in self.header if name and name not in names]

    def chosen(self, rows: Sequence[int]) -> Table:
        """Some of its rows."""
        return Table(self.path, self.header, [self.rows[row] for row in rows], [self.lines[row] for row in rows])

    def text(self, without: str = "") -> str:
        """The table as a CSV file, ``without`` a column."""
        kept = [place for place, name in enumerate(self.header) if not without or name != without]
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(
            [row[place] for place in kept] for row in (self.header, *self.rows)
        )
        return out.getvalue()

    def _columns(self) -> str:
        return ", ".join(filter(None, self.header))


def _bare(name: str) -> str:
    return re.sub(r"[\s_\-.#]", "", name).lower()


def is_part_name(name: str) -> bool:
    """Whether a column of this name tells parts, by its name."""
    return _bare(name) in SPLIT_NAMES


def is_table(first: str, path: Path) -> bool:
    """Whether a file that begins with this line is a table with a header, not a list of names and labels."""
    fields = [field.strip() for field in _fields(first, _delimiter(first))]
    if any(field.lower().endswith(SUFFIXES) for field in fields):
        return False
    if len(fields) == 1:
        return path.suffix.lower() == ".csv"
    return not all(field in ("0", "1") for field in fields[1:])


def read_table(text: str, path: Path) -> Table:
    """A table from the text of its file; UserError if it has no rows."""
    delimiter = _delimiter(next(line for line in text.split("\n") if line.strip()))
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    try:
        read = [(reader.line_num, [value.strip() for value in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise UserError(
            f"the table {path} cannot be read: line {reader.line_num}: {error} (a quote too many?)"
        ) from error
    (_, header), *rows = read
    if not rows:
        raise UserError(f"the table {path} has a header and no rows")
    width = len(header)
    for line, row in rows:
        if any(row[width:]):
            what = f"{len(row)} fields, and the header {width}; a field with {delimiter!r} in it needs double quotes"
            raise UserError(f"the table {path}, line {line}: it has {what}")
    if short := [line for line, row in rows if len(row) < width]:
        more = f", and {counted(len(short) - 1, 'other line')}" if len(short) > 1 else ""
        warn(f"the table {path}: line {short[0]}{more}: fewer fields than the header's {width}; the others are empty")
    return Table(path, header, [(row + [""] * width)[:width] for _, row in rows], [line for line, _ in rows])


def _delimiter(line: str) -> str:
    return max(DELIMITERS, key=line.count)


def _fields(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error:
        return [line]
