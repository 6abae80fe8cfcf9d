"""Where LUNA16's nodules are: ``candidates_V2.csv``, or ``annotations.csv``, which has the nodules alone."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Container
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.layout import COORDINATES, uid_of_line, uid_on_disk
from utils.errors import UserError

NAMES = ("candidates_V2.csv", "annotations.csv")
SUBFOLDERS = ("", "CSVFILES")  # where copies of LUNA16 have them


@dataclass(frozen=True)
class Place:
    """A point of a scan, ``world`` coordinates in mm; ``label``: 1 where there is a nodule, else 0.

    ``diameter_mm``: of the nodule, 0 where the table does not say.
    """

    world: tuple[float, float, float]
    label: int
    diameter_mm: float = 0.0


@dataclass(frozen=True)
class Table:
    """The places of each scan, by its uid on disk, in the order of the file. ``negatives``: whether it has any."""

    path: Path
    places: dict[str, tuple[Place, ...]]
    negatives: bool

    def by_scan(self, uids: Container[str]) -> Table:
        """The same with the scans' own ``uids``: a table may have blanks around them, or ``.mhd`` behind."""
        places: dict[str, tuple[Place, ...]] = {}
        for name, own in self.places.items():
            uid = uid_of_line(name, uids)
            places[uid] = places.get(uid, ()) + own
        return replace(self, places=places)


def find_table(data: Path, given: Path | None) -> Table:
    """The table that is named, or the first of NAMES that there is in ``data``.

    Raises:
        UserError: there is none, or it is no such table.
    """
    candidates = [given] if given else [data / folder / name for name in NAMES for folder in SUBFOLDERS]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise UserError(
            f"--table {given}: no such file"
            if given
            else f"--data {data}: neither {' nor '.join(NAMES)} found; give the table with --table"
        )
    return read_table(path)


def read_table(path: Path) -> Table:
    """Read a table with the columns seriesuid, coordX, coordY, coordZ and class or diameter_mm."""
    try:
        text = io.StringIO(path.read_text(encoding="utf-8-sig"))
        reader = csv.DictReader(text, skipinitialspace=True, strict=True)
        columns = reader.fieldnames or []
        kind = next((name for name in ("class", "diameter_mm") if name in columns), None)
        missing = [name for name in ("seriesuid", *COORDINATES) if name not in columns]
        if kind is None or missing:
            wanted = ", ".join(missing) or "class (candidates_V2.csv) or diameter_mm (annotations.csv)"
            raise UserError(f"{path}: there is no column {wanted}")
        places: dict[str, list[Place]] = {}
        for row in reader:
            uid = uid_on_disk(row["seriesuid"] or "")
            places.setdefault(uid, []).append(_place(row, kind, f"{path}, line {reader.line_num}"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table: {error}") from error
    if not places:
        raise UserError(f"{path} lists no positions")
    return Table(path, {uid: tuple(own) for uid, own in places.items()}, kind == "class")


def _place(row: dict[str, str], kind: str, where: str) -> Place:
    if any(row.get(None, ())):  # type: ignore[call-overload]  # the key of what is beyond the header
        raise UserError(f"{where}: it has more fields than the header; a number has a point, no comma")
    try:
        x, y, z, value = (float(row[name]) for name in (*COORDINATES, kind))
    except (TypeError, ValueError):
        raise UserError(f"{where}: a number is missing; a line has the uid, x, y, z and {kind}") from None
    if not all(map(math.isfinite, (x, y, z, value))):
        raise UserError(f"{where}: a number is not finite")
    if kind == "diameter_mm":
        return Place((x, y, z), 1, value)
    if value not in (0, 1):
        raise UserError(f"{where}: the class is {row[kind]}, not 0 or 1")
    return Place((x, y, z), int(value))
