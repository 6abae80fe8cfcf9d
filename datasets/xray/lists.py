"""Text lists of images: one line an image, its name and, where known, its labels.

``00001522_000.png 0 0 1 0 0 0 0 0 0 0 0 0 0 0`` is a line of this project's own lists for ChestX-ray14;
NIH's own ``train_val_list.txt`` has names alone. Both are read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

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


@dataclass(frozen=True)
class ImageList:
    """``names`` in the order of the file; ``labels``: uint8 (N, labels) of 0 and 1, None for names alone."""

    names: list[str]
    labels: np.ndarray | None


def read_list(path: str | Path) -> ImageList:
    """Read a list; blank lines do not count.

    Raises UserError, with the number of the line where there is one, if the file cannot be read, names
    nothing, or has labels other than 0 and 1 or not the same number of them on every line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"the list {path} cannot be read: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the list {path} is not a text file (byte {error.start} is not UTF-8)") from error
    fields = [line.replace("\t", " ").strip().partition(" ") for line in lines]
    names = [name for name, _, _ in fields if name]
    if not names:
        raise UserError(f"the list {path} names no image")
    labels = _labels([text for name, _, text in fields if name])
    if labels is None:
        raise UserError(f"the list {path}, {_first_bad_line(fields)}")
    return ImageList(names, labels if labels.shape[1] else None)


def _labels(texts: list[str]) -> np.ndarray | None:
    """uint8 (N, labels) from texts like ``0 1 0``, all at once; None if they are not all of one such kind."""
    if any("  " in text for text in texts) or texts[0].startswith(" "):
        texts = [" ".join(text.split()) for text in texts]
    width = len(texts[0])
    joined = "".join(texts)
    if not joined.isascii() or not all(len(text) == width for text in texts) or (width and width % 2 == 0):
        return None
    characters = np.frombuffer(joined.encode("ascii"), np.uint8).reshape(len(texts), width)
    labels = characters[:, ::2] - ord("0")
    return labels if (labels <= 1).all() and (characters[:, 1::2] == ord(" ")).all() else None


def _first_bad_line(fields: list[tuple[str, str, str]]) -> str:
    """What is wrong with the first line that cannot be read, for the message."""
    expected = None
    for number, (name, _, text) in enumerate(fields, start=1):
        labels = text.split()
        bad = [label for label in labels if label not in ("0", "1")]
        if bad:
            return f"line {number}: a label is {bad[0]!r}, not 0 or 1; a line is a name, then labels of 0 and 1"
        expected = len(labels) if expected is None and name else expected
        if name and len(labels) != expected:
            return f"line {number}: {len(labels)} labels, where the lines before have {expected}"
    raise AssertionError("called for a list that has no bad line")


def first_part(count: int, ratio: float, what: str) -> int:
    """How many of ``count`` lines ``--ratio`` keeps: the first ``int(ratio * count)``; none is a UserError."""
    kept = int(ratio * count)
    if kept == 0:
        raise UserError(
            f"--ratio {ratio} of the {counted(count, 'image')} of {what} is none at all; take a larger ratio"
        )
    return kept
