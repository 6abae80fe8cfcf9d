"""Files of tensors: written atomically, read without running any code that they may hold."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from utils.errors import UserError, reason
from utils.files import atomic_path
from utils.memory import lack_of_memory
from utils.pickled_numbers import STAND_INS

ZIP = b"PK\x03\x04"  # what torch.save's files begin with


def write(path: str | Path, payload: dict[str, Any]) -> None:
    """``torch.save``; OSError if the file can't be written whole.

    To a path torch writes by itself, and says of a full disk "unexpected pos 64 vs 0".
    """
    try:
        with open(path, "wb") as file:
            torch.save(payload, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def save(path: str | Path, payload: dict[str, Any]) -> None:
    """Write to a temporary file, then rename it; OSError if it can't be written."""
    with atomic_path(path) as temporary:
        write(temporary, payload)


def check(path: str | Path) -> None:
    """Read every byte of the file and compare its checksums; UserError if it is not whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, zipfile.BadZipFile, EOFError, ValueError):
        raise UserError(f"{path}: {_fault(path)}") from None
    if broken is not None:
        raise UserError(f"{path}: damaged, the checksum of its part {broken} is wrong")


def load(path: str | Path) -> Any:
    """``torch.load`` on the CPU with ``weights_only=True``; UserError if there is no such file or it won't do.

    Beside tensors and plain containers two things are let in: ``argparse.Namespace``, since the published code keeps
    its options in one, and numpy's numbers, since many a training script puts its best loss beside the weights.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace, *STAND_INS]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"refused, it is not a file of plain tensors (it holds a {foreign[1]})" if foreign else None
        raise UserError(f"{path}: {reason or _fault(path)}") from None
    except Exception as error:  # on a damaged file the reader fails with whatever it comes upon
        if lack_of_memory(error):
            raise
        raise UserError(f"{path}: {_fault(path)}") from None


def _fault(path: str | Path) -> str:
    """What is wrong with a file that cannot be loaded; what torch says of it would help nobody, and may mislead."""
    try:
        with open(path, "rb") as file:
            begin = file.read(len(ZIP))
    except OSError as error:
        return f"cannot be read: {reason(error)}"
    if not begin:
        return "is empty: it has 0 bytes"
    if begin == ZIP and not zipfile.is_zipfile(path):  # a zip file's table of contents is at its end
        return "cannot be read, it is cut short or damaged"
    return "cannot be read, it is no checkpoint (as torch.save writes them), or a damaged one"
