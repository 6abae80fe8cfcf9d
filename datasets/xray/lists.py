"""Text lists of images: one line an image, its name and, where known, its labels.

``00001522_000.png 0 0 1 0 0 0 0 0 0 0 0 0 0 0`` is a line of this project's own lists for ChestX-ray14;
NIH's own ``train_val_list.txt`` has names alone. Both are read here, and tables (datasets/xray/tables.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from datasets.xray.images import SUFFIXES
from datasets.xray.tables import FINDINGS, TRAIN, Table, is_table, read_table
from utils.console import say, warn
from utils.errors import UserError, reason
from utils.text import counted

CHEST14_LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
NO_FINDING = "No Finding"


LABELS = re.compile(r"(?:\s+[01])+")  # behind a name
SIMPLE = re.compile(r"[A-Za-z0-9_-]+\.png")  # as most names are
AT_THE_END = re.compile(rf"{LABELS.pattern}$")
AFTER_A_SUFFIX = re.compile(rf"(?:{'|'.join(map(re.escape, SUFFIXES))})(?=[\s,;])(.+)", re.IGNORECASE)


@dataclass(frozen=True)
class ImageList:
    """``names`` in the order of the file; ``labels``: uint8 (N, labels) of 0 and 1, None for names alone."""

    names: list[str]
    labels: np.ndarray | None


def read_list(path: str | Path, image_column: str = "") -> ImageList:
    """Read a list, or a CSV table with a column of names; blank lines do not count.

    Of a table with a column that says ``train``, ``valid``, ``test`` these are the rows to train on. ``image_column``:
    of names, if not the one found. Raises UserError, with the number of the line where there is one, if the file cannot
    be read, names nothing, or has labels other than 0 and 1 or not the same number of them on every line.
    """
    found = read_list_or_table(path)
    if isinstance(found, ImageList):
        return found
    parts = found.parts() or []
    table = found.chosen([row for row, part in enumerate(parts) if part == TRAIN]) if TRAIN in parts else found
    _tell_part(found, table)
    if overlooked := found.overlooked_parts():
        _warn_once(f"{path}: {overlooked}; all rows are taken")
    findings = table.column(FINDINGS) if FINDINGS in table.header else None
    return ImageList(table.names(image_column), _chest14(findings))


@cache
def _tell_once(line: str) -> None:
    say(line)


@cache
def _warn_once(line: str) -> None:
    warn(line)


def _tell_part(table: Table, chosen: Table) -> None:
    """Say, once a process, that the rows of a table are taken in part."""
    if len(chosen.rows) < len(table.rows):
        _tell_once(f"{table.path}: the {TRAIN} rows are taken, {len(chosen.rows)} of {len(table.rows)}")


def read_list_or_table(path: str | Path) -> ImageList | Table:
    """A list, or a table as it is; UserError as of :func:`read_list`."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"the list {path} cannot be read: {reason(error)}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"the list {path} is not a text file in UTF-8 (line {line} is not); save it as such, in Excel as CSV UTF-8"
        ) from error
    lines = [line.strip() for line in text.split("\n")]
    first = next(filter(None, lines), "")
    if not first:
        raise UserError(f"the list {path} names no image")
    if _quoted(first) is None and is_table(first, Path(path)):
        return read_table(text, Path(path))
    return _plain_list(lines) or _any_list(lines, path)


def list_line(name: str, labels: Iterable[int] = ()) -> str:
    """The line of a list that :func:`read_list` reads as this name and these labels, without its end.

    A name that the line would not show as it is (blanks at an end, a 0 or 1 behind a blank, a line break, ...) is
    written in double quotes, as in JSON.
    """
    plain = SIMPLE.fullmatch(name) is not None or (
        name.isprintable()
        and name == name.strip()
        and _parsed(name) == (name, "")
        and not is_table(name, Path())
        and not AFTER_A_SUFFIX.search(name)
    )
    return " ".join([name if plain else json.dumps(name), *map(str, labels)])


def _plain_list(lines: list[str]) -> ImageList | None:
    """The whole list at once, which is fast; None if a line is not just a name and labels with single blanks."""
    fields = [line.partition(" ") for line in lines if line]
    labels = _labels([text for _, _, text in fields])
    if labels is None or any(name.startswith('"') or AFTER_A_SUFFIX.search(name) for name, _, _ in fields):
        return None
    return ImageList([name for name, _, _ in fields], labels if labels.shape[1] else None)


def _any_list(lines: list[str], path: str | Path) -> ImageList:
    """The list line by line: names with blanks, in quotes, any white space before labels."""
    names, labels = [], []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        name, text = _parsed(line)
        bad = None if line.startswith('"') else AFTER_A_SUFFIX.search(line)
        if bad and not name.lower().endswith(SUFFIXES):
            wrong = next(label for label in bad[1].split() if label not in ("0", "1"))
            raise UserError(
                f"the list {path}, line {number}: a label is {wrong!r}, not 0 or 1; "
                "a line is a name, then labels of 0 and 1; a table needs a header"
            )
        names.append(name)
        labels.append([int(label) for label in text.split()])
        if len(labels[-1]) != len(labels[0]):
            raise UserError(
                f"the list {path}, line {number}: {len(labels[-1])} labels, but the lines before have {len(labels[0])}"
            )
    return ImageList(names, np.array(labels, np.uint8) if labels[0] else None)


def _parsed(line: str) -> tuple[str, str]:
    """A line without blanks at its ends -> its name and the text of its labels."""
    if quoted := _quoted(line):
        return quoted
    found = AT_THE_END.search(line)
    return (line[: found.start()], found[0]) if found else (line, "")


def _quoted(line: str) -> tuple[str, str] | None:
    """The same of a name in quotes; None if the line is none such, and quotes in it belong to the name."""
    if line.startswith('"'):
        with suppress(ValueError, RecursionError):
            name, end = json.JSONDecoder().raw_decode(line)
            if name and (end == len(line) or LABELS.fullmatch(line, end)):
                return name, line[end:]
    return None


def _labels(texts: list[str]) -> np.ndarray | None:
    """uint8 (N, labels) from texts like ``0 1 0``, all at once; None if they are not all of one such kind."""
    width = len(texts[0])
    joined = "".join(texts)
    if not joined.isascii() or not all(len(text) == width for text in texts) or (width and width % 2 == 0):
        return None
    characters = np.frombuffer(joined.encode("ascii"), np.uint8).reshape(len(texts), width)
    labels = characters[:, ::2] - ord("0")
    return labels if (labels <= 1).all() and (characters[:, 1::2] == ord(" ")).all() else None


def _chest14(findings: list[str] | None) -> np.ndarray | None:
    """uint8 (N, 14) of NIH's findings, each like ``Effusion|Mass``; None if there are others among them."""
    if findings is None:
        return None
    found = [set(text.split("|")) for text in findings]
    if set().union(*found) - {*CHEST14_LABELS, NO_FINDING}:
        return None
    return np.array([[label in each for label in CHEST14_LABELS] for each in found], np.uint8)


def first_part(count: int, ratio: float, what: str) -> int:
    """How many of ``count`` lines ``--ratio`` keeps: the first ``int(ratio * count)``; none is a UserError."""
    kept = int(ratio * count)
    if kept == 0:
        raise UserError(
            f"--ratio {ratio} of the {counted(count, 'image')} in {what} gives no image; give a larger --ratio"
        )
    return kept
