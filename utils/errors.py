"""The one exception that means "the user can mend this"."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # of the disk, of a quota, of the largest file allowed


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, where, and what to do about it."""


def reason(error: OSError) -> str:
    """Why a file could not be read or written, in the system's words."""
    return error.strerror or str(error)


def complain(message: str) -> None:
    """One line on standard error that says why a program ends."""
    print(f"error: {message}", file=sys.stderr, flush=True)


def run_cli(main: Callable[[], int | None] | Callable[[], None]) -> None:
    """Run a command-line entry point and leave the process with its exit status.

    A :class:`UserError`, or a disk without room, becomes one line on standard error and status 2, without a
    traceback; ``main`` returns its own status (None means 0).
    """
    try:
        status = main() or 0
    except UserError as error:
        complain(str(error))
        status = 2
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        complain(f"{error.filename or 'a file'} cannot be written: {error.strerror}; make room and start again")
        status = 2
    except KeyboardInterrupt as stopped:
        print(str(stopped) or "stopped by the keyboard", file=sys.stderr, flush=True)
        status = getattr(stopped, "status", 130)
    sys.exit(status)
