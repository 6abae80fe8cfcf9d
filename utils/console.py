"""Lines for the person at the terminal (or the log file): one way to say and to warn."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TextIO

from tqdm import tqdm

from utils.text import printable

_muted = False


def mute() -> None:
    """From now on this process says nothing: of several that train together, one speaks."""
    global _muted
    _muted = True


def muted() -> bool:
    """Whether this process says nothing."""
    return _muted


def say(message: str) -> None:
    """One line on standard output, above a progress bar if there is one."""
    _write(message, sys.stdout)


def warn(message: str) -> None:
    """One line on standard error, marked as a warning."""
    _write(f"warning: {message}", sys.stderr)


def _write(message: str, file: TextIO) -> None:
    if _muted:
        return
    with suppress(OSError):  # a log on a full disk, a terminal that is gone: no reason to end a run of days
        tqdm.write(printable(message, file.encoding or "utf-8"), file=file)
        file.flush()
