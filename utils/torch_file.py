"""Files of tensors: written atomically, read without running any code that they may hold."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from utils import safetensors
from utils.errors import UserError, reason
from utils.files import atomic_path
from utils.memory import lack_of_memory
from utils.pickled_numbers import STAND_INS

ZIP = b"PK\x03\x04"  # what torch.save's files begin with
BEGIN = 16  # bytes that tell the formats apart
HDF5 = b"\x89HDF"  # Keras'
SUFFIXES = (".pt", ".pth", ".tar", ".ckpt", ".bin", ".safetensors")
PLAIN = "save the network's state_dict() alone, torch.save(network.state_dict(), FILE), and give that file"


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
    A file in the format safetensors is read as well. Where the file has checksums they are compared.
    """
    if os.path.isdir(path):
        raise UserError(f"{path}: is a folder{_files_in(Path(path))}")
    try:
        if safetensors.is_safetensors(_begin(path)):
            return safetensors.read(path)
        if _is_torchscript(path):  # torch.load would say so in a warning of several lines
            raise UserError(
                f"{path}: is a TorchScript program, which is not read here: load it with torch.jit.load, {PLAIN}"
            )
        if zipfile.is_zipfile(path):  # whose checksums torch.load passes over
            check(path)
        with torch.serialization.safe_globals([argparse.Namespace, *STAND_INS]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        refusal = f"refused, it is not a file of plain tensors (it holds a {foreign[1]}); {PLAIN}" if foreign else None
        raise UserError(f"{path}: {refusal or _fault(path)}") from None
    except Exception as error:  # on a damaged file the reader fails with whatever it comes upon
        if lack_of_memory(error):
            raise
        raise UserError(f"{path}: {_fault(path)}") from None


def _begin(path: str | Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(BEGIN)


def _files_in(folder: Path) -> str:
    """The way out where a folder was given: the checkpoints in it, the newest first."""
    found = [path for suffix in SUFFIXES for path in folder.glob(f"*{suffix}") if path.is_file()]
    names = [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]
    if not names:
        return f" without a file of weights in it ({', '.join(SUFFIXES)}); give a file"
    return f"; give a file in it: {', '.join(names[:3])}{', ...' * (len(names) > 3)}"


def _fault(path: str | Path) -> str:
    """What is wrong with a file that cannot be loaded; what torch says of it would help nobody, and may mislead."""
    try:
        begin = _begin(path)
    except OSError as error:
        return f"cannot be read: {reason(error)}"
    if not begin:
        return "is empty: it has 0 bytes"
    if begin.startswith(HDF5):
        return "is a file in HDF5, as Keras writes it; convert it to PyTorch and save a state_dict()"
    if safetensors.is_safetensors(begin):
        return "cannot be read: a damaged .safetensors file, or one with an unknown data type"
    if begin.startswith(ZIP) and not zipfile.is_zipfile(path):  # a zip file's table of contents is at its end
        return "cannot be read, it is cut short or damaged"
    return "cannot be read: not a checkpoint written by torch.save, or damaged"


def _is_torchscript(path: str | Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
