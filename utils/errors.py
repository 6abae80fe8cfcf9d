"""What the user can mend, and how a command ends: its last words and its status."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # of the disk, of a quota, of the largest file allowed


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, where, and what to do about it."""


class Diverged(UserError):
    """What was trained gives numbers that are not finite: no state to go on from."""


class Unfinished(Exception):
    """A part of what was asked for could not be done, and all else was: one line, and the exit status 1."""


def reason(error: OSError) -> str:
    """Why a file could not be read or written, in the system's words."""
    return error.strerror or str(error)


def complain(message: str) -> None:
    """One line on standard error that says why a program ends."""
    _last_words(f"error: {message}")


def in_words(error: Exception) -> tuple[int, str]:
    """The exit status of a program that ends by this error, and what it says: 2 if the user can mend it, 1 if not."""
    if isinstance(error, UserError):
        return 2, str(error)
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        name = error.filename or "a file"
        return 2, f"{name} cannot be written: {error.strerror}; make room and start again"
    return 1, f"{type(error).__name__}: {error}"


def _last_words(line: str) -> None:
    with suppress(OSError):  # nobody can hear them
        print(line, file=sys.stderr, flush=True)


def _open_closed_streams() -> None:
    """Whoever starts a program may have closed them. Then files would get their numbers, and what is said go there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for as long as it runs


def flush() -> None:
    """Write what waits for standard output and error. What cannot be written is let go, lest the exit fail over it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def run_cli(main: Callable[[], int | None] | Callable[[], None]) -> None:
    """Run a command-line entry point and leave the process with its exit status.

    A :class:`UserError`, or a disk without room, becomes one line on standard error and status 2, without a
    traceback; ``main`` returns its own status (None means 0). That nobody reads what is said changes no status.
    """
    _open_closed_streams()
    try:
        status = main() or 0
    except (UserError, OSError) as error:
        status, words = in_words(error)
        if status == 1:
            raise
        complain(words)
    except KeyboardInterrupt as stopped:
        _last_words(str(stopped) or "stopped by the keyboard")
        status = getattr(stopped, "status", 130)
    finally:
        flush()
    sys.exit(status)
