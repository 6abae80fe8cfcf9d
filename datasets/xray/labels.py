"""The labelled lists of X-rays: which images are trained on, which choose the epoch, which are reported on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from datasets.xray.files import ALL_IMAGES, PROJECT_LIST, TEST_LIST, VALID_LIST, Images, training_list
from datasets.xray.label_columns import MISSING, MULTILABEL, Target, find_columns, find_target, read_labels
from datasets.xray.lists import CHEST14_LABELS, ImageList, first_part, list_line, read_list_or_table
from datasets.xray.patients import patient, same_patient, shared, some, split_by_patient
from datasets.xray.tables import FINDINGS, TEST, TRAIN, VALID, Table
from utils.console import say, warn
from utils.errors import UserError
from utils.text import counted

LISTS = f"by --train_list FILE, and put a {VALID_LIST} and a {TEST_LIST} into --data, each line a name and its labels"
WAYS = "give --valid_list and --test_list, or a column split (train, valid, test), or --split 70,10,20"
FILE, TABLE = "file", "predictions.csv"  # the first column of the table of predictions
SIDES = ((True, "train"), (False, "other"))  # of a probe
PARTS = {TRAIN: "train", VALID: "valid", TEST: "test"}


@dataclass(frozen=True)
class Labelling:
    """How the labels are to be read: flags of the same names. ``split``: shares of the patients, () for none."""

    valid_list: str = ""
    test_list: str = ""
    image_column: str = ""
    label_column: str = ""
    patient_column: str = ""
    target: str = ""
    split: tuple[float, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Labelled:
    """``files``: paths of images. ``labels``: float32 (N, classes), as :class:`Target` says. ``patients``: of each."""

    files: list[str]
    labels: np.ndarray
    patients: list[str]


@dataclass(frozen=True)
class ChestParts:
    """What is learned, and the parts; no patient is in two of them.

    ``listed``: the images of the training list, of which ``train`` has those that pre-training left. ``written``: of a
    split that was made here, the lists that make it again, by the names of their files.
    """

    target: Target
    listed: int
    train: Labelled
    valid: Labelled
    test: Labelled
    written: dict[str, str] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.target.classes


@dataclass(frozen=True)
class Rows:
    """Lines of a list. ``what``: the list, and its ``part`` if it has several; ``labels``: as Target says."""

    path: Path
    what: str
    names: list[str]
    patients: list[str]
    source: Table | ImageList
    labels: np.ndarray | None = None
    part: str = ""

    def take(self, rows: Sequence[int], part: str = "") -> Rows:
        """Some of them."""
        source = self.source
        if isinstance(source, Table):
            chosen: Table | ImageList = source.chosen(rows)
        else:
            labels = None if source.labels is None else source.labels[list(rows)]
            chosen = ImageList([source.names[row] for row in rows], labels)
        names, patients = ([each[row] for row in rows] for each in (self.names, self.patients))
        labels = None if self.labels is None else self.labels[list(rows)]
        what = f"the {part} rows of {self.path}" if part else self.what
        part = part or self.part
        return replace(self, what=what, names=names, patients=patients, source=chosen, labels=labels, part=part)

    def text(self) -> str:
        """The lines as a list of the same kind, without a column that tells parts."""
        if isinstance(self.source, Table):
            return self.source.text(without=self.source.part_column())
        labels = self.source.labels
        rows = [()] * len(self.names) if labels is None else labels.tolist()
        return "".join(f"{list_line(name, row)}\n" for name, row in zip(self.names, rows, strict=True))


def find_labelled(data: Path, train_list: str | None, ratio: float, how: Labelling | None = None) -> ChestParts:
    """The labelled images under ``data``, a folder or a store as :func:`datasets.xray.files.find_chest` reads.

    The training list is that of pre-training, which took its first ``int(ratio * N)`` lines: the rest is trained on
    here, or all of it if ``ratio`` is 1. The others are those that ``how`` names, parts of the same list, or
    ``chest_valid.txt`` and ``chest_test.txt`` in ``data``, or else the project's own. UserError if a list has no
    labels, if images are missing, if a patient is in two lists, or if more than one is both in what pre-training took
    and in the rest.
    """
    how = how or Labelling()
    if train_list == ALL_IMAGES:
        raise UserError(
            f"--train_list {ALL_IMAGES}: images without a list have no labels; name one that has them, {LISTS}"
        )
    images = Images(data)
    whole = read_rows(training_list(data, train_list), how)
    target, parts = _with_labels(whole, _parts(data, whole, how), how)
    for one, other in itertools.combinations(parts, 2):
        _refuse_shared(one, other)
    written = {}
    if how.split:
        suffix = "csv" if isinstance(parts[0].source, Table) else "txt"
        written = {f"split_{name}.{suffix}": rows.text() for name, rows in zip(PARTS, parts, strict=True)}
    listed = len(parts[0].names)
    parts = [_known(_rest(parts[0], ratio)), *map(_known, parts[1:])]
    remedy = f"put a {VALID_LIST} and a {TEST_LIST} of the images that are there into {data}"
    remedies = (f"or name a list of those that are there, {LISTS}", remedy, remedy)
    if isinstance(whole.source, Table):
        remedies = ("look at --data and --image_column, or take those rows out of the table",) * 3
    train, valid, test = found = [
        Labelled(images.named(rows.names, rows.path, remedy, rows.part), _float(rows), _owners(rows))
        for rows, remedy in zip(parts, remedies, strict=True)
    ]
    for (rows, part), (others, another) in itertools.combinations(zip(parts, found, strict=True), 2):
        if twice := sorted(set(part.files) & set(another.files)):
            raise UserError(
                f"{rows.what} and {others.what} both contain {twice[0]}: this would leak training data into the "
                "evaluation; keep each image in one list only"
            )
    return ChestParts(target, listed, train, valid, test, written)


def find_probe(data: Path, path: str, how: Labelling) -> tuple[Target, Labelled, list[bool] | None]:
    """The labelled images of a list, and which of them are its ``train`` rows, if it has such and others.

    UserError if a patient has images of both.
    """
    rows = read_rows(Path(path), how)
    target, (rows,) = _with_labels(rows, [rows], how)
    rows = _known(rows)
    parts = rows.source.parts() if isinstance(rows.source, Table) else None
    if parts and VALID in parts:  # the test part is for the end
        rows = rows.take([row for row, part in enumerate(parts) if part != TEST], "")
        parts = [part for part in parts if part != TEST]
    teaching = [part == TRAIN for part in parts or ()]
    if TEST in (parts or ()):
        warn(f"probe: judged on the {TEST} rows of {path}, for lack of {VALID} rows; do not report on them later")
    if any(teaching) and not all(teaching):
        sides = [rows.take([row for row, each in enumerate(teaching) if each == side], name) for side, name in SIDES]
        _refuse_shared(*sides)
    images = Images(data).named(rows.names, rows.path, "or take those out of the list")
    found = Labelled(images, _float(rows), _owners(rows))
    return target, found, teaching if any(teaching) and not all(teaching) else None


def _owners(rows: Rows) -> list[str]:
    """Whose each image is, one spelling for each."""
    return list(map(same_patient, rows.patients))


def _float(rows: Rows) -> np.ndarray:
    assert rows.labels is not None  # _with_labels has given them
    return rows.labels.astype(np.float32)


def read_rows(path: Path, how: Labelling) -> Rows:
    """All lines of a list or table, and whose they are; their labels are not read yet."""
    source = read_list_or_table(path)
    if isinstance(source, ImageList):
        return Rows(path, str(path), source.names, [patient(name) for name in source.names], source)
    names = source.names(how.image_column)
    whose = source.patient_column(how.patient_column)
    owners = source.column(whose) if whose else [""] * len(names)
    owners = ["" if owner.lower() in MISSING else owner for owner in owners]
    patients = [owner or patient(name) for owner, name in zip(owners, names, strict=True)]
    alone = sum(not owner and own == name for owner, own, name in zip(owners, patients, names, strict=True))
    if whose and alone:
        cells = "1 row has no value" if alone == 1 else f"{alone} rows have no value"
        warn(f"{path}: {cells} in the column {whose}: these images count as a separate patient each")
    return Rows(path, str(path), names, patients, source)


def _parts(data: Path, rows: Rows, how: Labelling) -> list[Rows]:
    """The three parts, from one list or from three; ``rows``: the training list."""
    path = rows.path
    given = {VALID: ("valid_list", how.valid_list), TEST: ("test_list", how.test_list)}
    if how.split:
        for flag, value in given.values():
            if value:
                raise UserError(f"--split with --{flag}: the split makes all three parts of {path}; leave one out")
        if isinstance(rows.source, Table) and rows.source.part_column():
            warn(f"{path}: the column {rows.source.part_column()} is ignored, because --split is given")
        if rows.patients == rows.names:
            warn(f"{path} has no patient column: each image counts as a separate patient (see --patient_column)")
        taken = split_by_patient(rows.patients, how.split, how.seed, str(path))
        return [rows.take(part, name) for part, name in zip(taken, PARTS.values(), strict=True)]
    own = rows.source.parts() if isinstance(rows.source, Table) else None
    if own is None:
        if isinstance(rows.source, Table) and (overlooked := rows.source.overlooked_parts()):
            warn(f"{path}: {overlooked}")
        others = [read_rows(_other_list(data, rows, part, value, how), how) for part, (_, value) in given.items()]
        return _told_alike([rows, *others])
    found = []
    for part, name in PARTS.items():
        places = [row for row, each in enumerate(own) if each == part]
        flag, value = given.get(part, ("train_list", ""))
        if value and places:
            raise UserError(f"--{flag} {value}: the split column of {path} has {name} rows, too; use only one of them")
        if not places and not value:
            way = f"; add some, or give --{flag}" if part != TRAIN else ""
            raise UserError(f"{path}: the split column has no {name} rows; all three parts are needed{way}")
        found.append(rows.take(places, name) if places else read_rows(Path(value), how))
    return found


def _told_alike(parts: list[Rows]) -> list[Rows]:
    """The parts; warns if one tells patients and another does not: then nobody sees whether they share some."""
    silent = [rows for rows in parts if rows.patients == rows.names]
    if silent and len(silent) < len(parts):
        telling = next(rows for rows in parts if rows.patients != rows.names)
        warn(
            f"{silent[0].path} does not tell patients, {telling.path} does: whether they share patients is not known; "
            "give both a patient column"
        )
    return parts


def _other_list(data: Path, train: Rows, part: str, given: str, how: Labelling) -> Path:
    if given:
        return Path(given)
    name = VALID_LIST if part == VALID else TEST_LIST
    if (data / name).is_file():
        return data / name
    if isinstance(train.source, Table):
        raise UserError(f"{train.path} does not define validation and test images: {WAYS}")
    return PROJECT_LIST.with_name(name)


def _with_labels(whole: Rows, parts: list[Rows], how: Labelling) -> tuple[Target, list[Rows]]:
    """What is learned, and the parts with their labels; ``whole``: the training list before it was parted."""
    first = parts[0]
    if isinstance(whole.source, Table) and isinstance(first.source, Table):
        taken = whole.source.described(how.image_column, how.patient_column)
        columns = find_columns(whole.source, taken, how.label_column, how.target)
        others = [rows.source for rows in parts if isinstance(rows.source, Table)]
        target = find_target(whole.source, first.source, columns, how.target, others)
    else:
        if how.label_column or how.target not in ("", MULTILABEL):
            flag = f"--label_column {how.label_column}" if how.label_column else f"--target {how.target}"
            raise UserError(f"{flag}: {first.path} is no table; write a CSV file whose first line has names of columns")
        if how.image_column or how.patient_column:
            flag = (
                f"--image_column {how.image_column}" if how.image_column else f"--patient_column {how.patient_column}"
            )
            raise UserError(f"{flag}: {first.path} is no table, but a list of names; leave the flag out")
        target, columns = Target(MULTILABEL, _plain_classes(first)), []
    if FILE in target.classes:
        raise UserError(f"{first.path}: a class is called {FILE}, as the column of the images in {TABLE}; rename it")
    labelled = []
    for rows in parts:
        if isinstance(rows.source, Table):
            known = set(target.classes) <= set(rows.source.header) or FINDINGS not in rows.source.header
            labels = read_labels(rows.source, target, columns or (list(target.classes) if known else [FINDINGS]))
        else:
            labels = _plain_labels(rows, first, target)
        labelled.append(replace(rows, labels=labels))
    return target, labelled


def _plain_classes(rows: Rows) -> tuple[str, ...]:
    """The names of a plain list's labels: ChestX-ray14's if there are 14, else by their number."""
    assert isinstance(rows.source, ImageList)
    if rows.source.labels is None:
        raise UserError(f"the list {rows.path} has no labels: a line is a name, then a 0 or 1 for each class")
    count = rows.source.labels.shape[1]
    return CHEST14_LABELS if count == len(CHEST14_LABELS) else tuple(f"class_{number + 1}" for number in range(count))


def _plain_labels(rows: Rows, first: Rows, target: Target) -> np.ndarray:
    count = len(_plain_classes(rows))
    if target.kind != MULTILABEL:
        raise UserError(f"{rows.path} does not have the columns of {first.path}; write a CSV file with the same header")
    if count != len(target.classes):
        raise UserError(
            f"{first.path} has {len(target.classes)} labels a line and {rows.path} {count}; all lists need the same"
        )
    if isinstance(first.source, Table) and target.classes != CHEST14_LABELS:
        warn(
            f"{rows.path} names no columns: its labels are taken as those of {first.path}: {', '.join(target.classes)}"
        )
    assert isinstance(rows.source, ImageList)
    assert rows.source.labels is not None
    return rows.source.labels.astype(np.float32)


def _known(rows: Rows) -> Rows:
    """Without the lines of which no label is known; UserError if none is left."""
    assert rows.labels is not None
    known = np.flatnonzero(~np.isnan(rows.labels).all(axis=1)).tolist()
    if not known:
        raise UserError(f"{rows.what}: no image has a known label")
    if len(known) < len(rows.names):
        say(f"{rows.what}: {counted(len(rows.names) - len(known), 'image')} without a known label left out")
    return rows.take(known) if len(known) < len(rows.names) else rows


def _rest(known: Rows, ratio: float) -> Rows:
    """The lines after the first ``int(ratio * N)``, which pre-training took; all if ``ratio`` is 1."""
    if ratio == 1:
        return known
    cut = first_part(len(known.names), ratio, str(known.path))
    both = shared(known.patients[:cut], known.patients[cut:])
    if len(both) > 1:
        raise UserError(
            f"--ratio {ratio}: {some([name for name, _, _ in both])} in both the first part and the rest of "
            f"{known.path}; put each patient's lines together, or give --ratio 1.0 in pre-training and here"
        )
    return known.take(range(cut, len(known.names)))


def _refuse_shared(one: Rows, other: Rows) -> None:
    both = shared(one.patients, other.patients)
    if both:
        _, first, second = both[0]
        raise UserError(
            f"{some([name for name, _, _ in both])} in both {one.what} and {other.what} ({one.names[first]}, "
            f"{other.names[second]}): this would leak training data into the evaluation; keep each patient in one list"
        )
