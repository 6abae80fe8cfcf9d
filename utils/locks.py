"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError, reason
from utils.files import TEMPORARY_SUFFIX


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process, and sweep temporary files that a killed one left in it.

    UserError if another process holds it, or if nothing can be written there. The lock ends with the process, however
    that ends.
    """
    with open(folder / ".lock", "ab+", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().decode(errors="replace").strip() or "another process"
            raise UserError(f"{folder} is in use by {holder}; give another folder or stop that run") from None
        except OSError:
            pass  # a file system without locks: better to run than to refuse
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {os.uname().nodename}".encode())
        except OSError as error:
            raise UserError(f"{folder}: nothing can be written there: {reason(error)}") from None
        for stale in folder.rglob(f".*{TEMPORARY_SUFFIX}"):
            stale.unlink(missing_ok=True)
        yield
