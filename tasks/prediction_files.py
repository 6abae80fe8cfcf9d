"""What is told of single images: ``predictions.csv``, and a mask of each scan under ``masks/``."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from datasets.ct.nifti_write import write_nifti
from datasets.ct.stored_grid import StoredGrid, back_to_stored
from utils.errors import UserError, reason
from utils.files import atomic_path

TABLE, MASKS, PROBABILITIES = "predictions.csv", "masks", "probabilities"
SUFFIX = ".nii.gz"
DIGITS = 8


PARTIAL = "predictions.part{}.jsonl"
Row = dict[str, str]  # by column: ``file`` and what else is known of the image, then a number for each class


def number_text(value: float) -> str:
    """A number as the table has it."""
    return f"{value:.{DIGITS}g}"


def write_table(output: Path, classes: Sequence[str], images: Sequence[Row], values: np.ndarray) -> None:
    """Write ``predictions.csv``: what each image is (``file`` first), and its ``values`` (N, classes)."""
    texts = (dict(zip(classes, map(number_text, row), strict=True)) for row in values)
    write_rows(output, classes, [{**image, **text} for image, text in zip(images, texts, strict=True)])


def write_rows(output: Path, classes: Sequence[str], rows: Sequence[Row]) -> None:
    """Write ``predictions.csv``, whole."""
    known = dict.fromkeys(itertools.chain(["file"], *rows))
    columns = [*(name for name in known if name not in classes), *classes]
    try:
        with (
            atomic_path(output / TABLE) as temporary,
            open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            table = csv.DictWriter(file, columns)
            table.writeheader()
            table.writerows(rows)
    except OSError as error:
        raise UserError(f"--output {output}: {TABLE} cannot be written: {reason(error)}") from None


class PartialTable:
    """The rows of a process, on disk as soon as they are known: what is done outlives a kill."""

    def __init__(self, output: Path, rank: int) -> None:
        self.path = output / PARTIAL.format(rank)

    def __enter__(self) -> PartialTable:
        try:
            self._file = open(self.path, "a", encoding="ascii")
            self._file.write("\n")  # behind a line that was cut short
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {reason(error)}") from None
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._file.close()

    def add(self, row: Row) -> None:
        """Add a row."""
        with self._writing():
            self._file.write(json.dumps(row) + "\n")

    def flush(self) -> None:
        """Hand what was added to the system."""
        with self._writing():
            self._file.flush()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {reason(error)}; make room, and start again") from None

    @staticmethod
    def remove_all(output: Path) -> None:
        """Delete what all processes wrote: the table has it."""
        for path in output.glob(PARTIAL.format("*")):
            path.unlink(missing_ok=True)


def recover(output: Path, classes: Sequence[str]) -> dict[str, Row]:
    """The rows that the table has, and those of processes that were interrupted, by ``file``."""
    rows: list[Any] = []
    try:
        if (output / TABLE).exists():
            with open(output / TABLE, encoding="utf-8", errors="surrogateescape", newline="") as file:
                rows += csv.DictReader(file)
        for path in sorted(output.glob(PARTIAL.format("*"))):
            for line in path.read_text(encoding="ascii", errors="replace").splitlines():
                with suppress(ValueError):  # the last one may be cut short
                    rows.append(json.loads(line))
    except (OSError, csv.Error) as error:
        raise UserError(f"--output {output}: its predictions cannot be read: {error}; give another folder") from None
    wanted = {"file", *classes}
    whole = (row for row in rows if isinstance(row, dict) and wanted <= row.keys() and None not in row.values())
    return {row["file"]: row for row in whole}


def mask_path(output: Path, name: str) -> Path:
    """Where the mask of a scan of this name is."""
    return output / MASKS / f"{name}{SUFFIX}"


def probability_path(output: Path, name: str, number: int) -> Path:
    """Where the probabilities of class ``number`` (from 1) of a scan are."""
    return output / PROBABILITIES / f"{name}_{number}{SUFFIX}"


def write_mask(path: Path, mask: np.ndarray, grid: StoredGrid) -> None:
    """Write a mask, or the probabilities of a class, (X, Y, Z) in LPS, on the grid of the scan's file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            write_nifti(temporary, back_to_stored(mask, grid), grid)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {reason(error)}; make room, and start again") from None
