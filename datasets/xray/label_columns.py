"""What a table's columns say of its images: yes or no of several classes, one class of many, or a number."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets.xray.lists import CHEST14_LABELS, NO_FINDING
from datasets.xray.tables import FINDINGS, Table, is_part_name
from utils.console import warn
from utils.errors import UserError
from utils.text import counted

MULTILABEL, CLASSES, REGRESSION = "multilabel", "classes", "regression"  # --target
KINDS = (MULTILABEL, CLASSES, REGRESSION)
MISSING = ("", "nan", "na", "n/a")  # in lower case, as all of these
NOT_KNOWN = (*MISSING, "-1", "-1.0")  # as CheXpert has what is not mentioned, or uncertain
YES_OR_NO = {**dict.fromkeys(("1", "1.0", "true"), 1.0), **dict.fromkeys(("0", "0.0", "false"), 0.0)}
AGE = re.compile(r"(\d{3})([YMWD])")  # as DICOM, and NIH's table of 2017, write one
YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
LARGEST = float(np.finfo(np.float32).max)
MANY = 50  # classes, of whole numbers: is it a number that is asked for?


@dataclass(frozen=True)
class Target:
    """What is learned of an image. ``kind``: one of KINDS. ``classes``: their names; of a number, its own.

    Labels are float32 (N, classes): 0 and 1, NaN where it is not known; of ``CLASSES`` a single 1 in each row; of
    ``REGRESSION`` the number.
    """

    kind: str
    classes: tuple[str, ...]


def find_columns(table: Table, taken: Sequence[str], wanted: str, kind: str) -> list[str]:
    """The columns of a table to train on that have what is learned.

    ``taken``: columns that are something else. ``wanted``: --label_column, names with commas between, "" for all
    columns of 0 and 1, or NIH's findings. ``kind``: --target, "" if not given. UserError if there is nothing to learn.
    """
    free = table.others(taken)
    if wanted:
        words = [wanted] if wanted in table.header else wanted.split(",")
        columns = [table.named(word.strip(), "--label_column") for word in words if word.strip()]
        if not columns:
            raise UserError(f"--label_column {wanted!r} names no column; {table.path} has {', '.join(free)}")
        if kind in (CLASSES, REGRESSION) and len(columns) > 1:
            raise UserError(f"--label_column {wanted}: --target {kind} learns one column; name one")
    elif kind in (CLASSES, REGRESSION):
        raise UserError(f"--target {kind}: name the column with --label_column; {table.path} has {', '.join(free)}")
    elif FINDINGS in free:
        columns = [FINDINGS]
    else:
        columns = [name for name in free if _is_yes_or_no(table.column(name))]
        if of_parts := [name for name in columns if is_part_name(name)]:
            columns = [name for name in columns if name not in of_parts]
            warn(f"the table {table.path}: not learned: {', '.join(of_parts)}; to learn it, name it by --label_column")
        almost = [why for name in free if name not in columns and (why := _almost(table, name))]
        if not columns:
            raise UserError(
                f"the table {table.path} has no column of 0 and 1 to learn; name one of classes or numbers with "
                f"--label_column, of {', '.join(free) or 'none: it has names of images alone'}"
                f"{f' ({almost[0]})' if almost else ''}"
            )
        for why in almost:
            warn(f"the table {table.path}: {why}: it is not learned; mend it, or name what to learn by --label_column")
    if twice := [name for name in columns if table.header.count(name) > 1 or columns.count(name) > 1]:
        raise UserError(f"the table {table.path}: the header or --label_column has {twice[0]} twice")
    return columns


def find_target(table: Table, train: Table, columns: Sequence[str], kind: str, others: Sequence[Table] = ()) -> Target:
    """What these columns teach. ``train``: the rows of the table to train on, which have the classes of CLASSES.

    ``kind``: --target; "": by what the columns have. ``others``: tables of the other parts, which may have findings
    that ``table`` has not.
    """
    findings, asked = _findings(table, columns, others), bool(kind)
    if not kind:
        yes_or_no = len(columns) > 1 or findings or _is_yes_or_no(table.column(columns[0]))
        kind = MULTILABEL if yes_or_no else CLASSES
    if kind == CLASSES:
        if not asked and (why := _almost(table, columns[0])):
            warn(f"the table {table.path}: {why}: the column is learned as classes")
        return Target(CLASSES, _class_names(train, columns[0]))
    return Target(kind, findings if findings and kind == MULTILABEL else tuple(columns))


def _is_yes_or_no(values: Sequence[str]) -> bool:
    found = {value.lower() for value in values}
    return found <= {*YES_OR_NO, *NOT_KNOWN} and bool(found & YES_OR_NO.keys())


def _almost(table: Table, name: str) -> str:
    """Where a column most of whose values are 0 and 1 has another one, in words; "" if it is no such column."""
    values = table.column(name)
    odd = [row for row, value in enumerate(values) if value.lower() not in {*YES_OR_NO, *NOT_KNOWN}]
    if not odd or 2 * sum(value.lower() in YES_OR_NO for value in values) < len(values):
        return ""
    return f"line {table.lines[odd[0]]} of the column {name} has {values[odd[0]]!r}, not 0 or 1"


def _findings(table: Table, columns: Sequence[str], others: Sequence[Table]) -> tuple[str, ...]:
    """The names of the findings in a column like NIH's, ``Effusion|Mass``; () if it is none such."""
    if len(columns) > 1:
        return ()
    (name,), tables = columns, [table, *(other for other in others if columns[0] in other.header)]
    if name != FINDINGS and not any("|" in value for each in tables for value in each.column(name)):
        return ()
    own, *more = (
        {word for value in each.column(name) if value.lower() not in NOT_KNOWN for word in _words(value)}
        for each in tables
    )
    found = own if name == FINDINGS and own <= set(CHEST14_LABELS) else own.union(*more)  # NIH's: others are misspelled
    return CHEST14_LABELS if found <= set(CHEST14_LABELS) else tuple(sorted(found))


def _words(value: str) -> set[str]:
    return {word for word in map(str.strip, value.split("|")) if word.lower() not in ("", NO_FINDING.lower())}


def _class_names(table: Table, column: str) -> tuple[str, ...]:
    names = {_class(value) for value in table.column(column)} - {""}
    numbers = [_number(name) for name in names]
    fractions = [name for name, number in zip(names, numbers, strict=True) if number is not None and number % 1]
    if fractions:
        raise UserError(
            f"the table {table.path}: the column {column} has {min(fractions)}, which is not a class; to learn "
            "numbers give --target regression"
        )
    if len(names) < 2:
        raise UserError(
            f"the table {table.path}: the column {column} has {counted(len(names), 'class')} "
            f"({', '.join(names) or 'no value'}); a classification needs two or more"
        )
    if None in numbers:
        _warn_of_like_names(table, column, sorted(names))
        return tuple(sorted(names))
    if len(names) > MANY:
        warn(f"the column {column} has {len(names)} classes; to learn it as a number give --target regression")
    return tuple(sorted(names, key=float))


def _warn_of_like_names(table: Table, column: str, names: Sequence[str]) -> None:
    """Warn of classes whose names differ in capitals and blanks alone."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault("".join(name.casefold().split()), name)
        if other != name:
            warn(f"the table {table.path}: the column {column} has {other!r} and {name!r}, which are two classes")


def _class(value: str) -> str:
    """The name of a class, "" if it is not known; of whole numbers, 2 and 2.0 are one."""
    if value.lower() in MISSING:
        return ""
    number = _number(value)
    return str(int(number)) if number is not None and number % 1 == 0 else value


def _number(value: str) -> float | None:
    if "_" in value:  # a number to Python alone
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def read_labels(table: Table, target: Target, columns: Sequence[str]) -> np.ndarray:
    """The labels of a table's rows, float32 (N, classes); a row of which nothing is known has NaN throughout.

    ``columns``: as of the table to train on. UserError, with the line, at a value that is none.
    """
    for name in columns:
        if name not in table.header:
            raise UserError(
                f"the table {table.path} lacks the column {name} of the training list; its columns: "
                f"{', '.join(filter(None, table.header))}"
            )
    if target.kind == MULTILABEL and tuple(columns) == target.classes:
        return np.stack([_yes_or_no(table, name) for name in columns], axis=1)
    values = table.column(columns[0])
    if target.kind == MULTILABEL:
        return _of_findings(table, values, columns[0], target.classes)
    if target.kind == REGRESSION:
        return _numbers(table, values, columns[0])
    return _one_hot(table, values, columns[0], target.classes)


def _wrong(table: Table, row: int, column: str, value: str, what: str) -> UserError:
    return UserError(f"the table {table.path}, line {table.lines[row]}: the column {column} has {value!r}, {what}")


def _yes_or_no(table: Table, column: str) -> np.ndarray:
    labels = np.full(len(table.rows), np.nan, np.float32)
    for row, value in enumerate(table.column(column)):
        if value.lower() in YES_OR_NO:
            labels[row] = YES_OR_NO[value.lower()]
        elif value.lower() not in NOT_KNOWN:
            raise _wrong(table, row, column, value, "which must be 0, 1, or for an unknown label -1 or empty")
    return labels


def _of_findings(table: Table, values: Sequence[str], column: str, classes: Sequence[str]) -> np.ndarray:
    labels = np.full((len(values), len(classes)), np.nan, np.float32)
    for row, value in enumerate(values):
        if value.lower() in NOT_KNOWN:
            continue
        found = _words(value)
        if unknown := found - set(classes):
            what = f"and {min(unknown)} is no class of the list to train on ({', '.join(classes)})"
            raise _wrong(table, row, column, value, what)
        labels[row] = [name in found for name in classes]
    return labels


def _one_hot(table: Table, values: Sequence[str], column: str, classes: Sequence[str]) -> np.ndarray:
    labels = np.zeros((len(values), len(classes)), np.float32)
    place = {name: number for number, name in enumerate(classes)}
    for row, value in enumerate(values):
        name = _class(value)
        if name in place:
            labels[row, place[name]] = 1
        elif not name:
            labels[row] = np.nan
        else:
            what = f"no class of the images to train on ({', '.join(classes)})"
            more = "; to learn a number give --target regression" if _number(value) is not None else ""
            raise _wrong(table, row, column, value, what + more)
    return labels


def _numbers(table: Table, values: Sequence[str], column: str) -> np.ndarray:
    labels = np.full((len(values), 1), np.nan, np.float32)
    for row, value in enumerate(values):
        age = AGE.fullmatch(value)
        number = float(age[1]) * YEARS[age[2]] if age else _number(value)
        if number is not None and abs(number) > LARGEST:
            raise _wrong(table, row, column, value, "a number that is too large")
        if number is not None:
            labels[row] = number
        elif value.lower() not in MISSING:
            raise _wrong(table, row, column, value, "no number")
    return labels
