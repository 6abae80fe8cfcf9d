"""Checks of flags that the commands which cut crops out of scans have in common."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from utils.errors import UserError, reason

HU_RANGE = (-32768, 32767)
KILLED = "its worker process was killed: out of memory (give fewer --workers), or because of a damaged header"


def folders(flags: argparse.Namespace, *names: str) -> None:
    """UserError if one of these flags, which name folders, is missing."""
    for name in names:
        if getattr(flags, name) is None:
            raise UserError(f"--{name} is missing; give a folder: --{name} FOLDER")


def at_least(flags: argparse.Namespace, name: str, smallest: int) -> None:
    """UserError if this flag is given and smaller."""
    value = getattr(flags, name)
    if value is not None and value < smallest:
        raise UserError(f"--{name} {value}: it must be at least {smallest}")


def hu_window(flags: argparse.Namespace) -> None:
    """UserError unless ``--hu_min`` and ``--hu_max`` rise and fit into 16 bits."""
    if not HU_RANGE[0] <= flags.hu_min < flags.hu_max <= HU_RANGE[1]:
        raise UserError(
            f"--hu_min {flags.hu_min} --hu_max {flags.hu_max}: the first must be smaller, and both must fit into "
            f"16 bits"
        )


def would_be_lost(save: Path, what: str) -> UserError:
    """The one line for a folder that holds ``what`` this run would replace."""
    return UserError(f"--save {save} holds {what}; give another --save, or --replace to replace them")


def cannot_write(save: Path, error: OSError) -> UserError:
    """The one line for a folder that cannot be written to."""
    return UserError(f"--save {save}: cannot write there: {reason(error)}")


def writable(save: Path) -> None:
    """UserError unless files can be made in ``save`` or, while it is not there, above it."""
    there = save.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--save {save}: " + (f"cannot write in {there}" if there.is_dir() else f"{there} is a file"))
