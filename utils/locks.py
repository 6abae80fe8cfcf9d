"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError, reason
from utils.files import TEMPORARY_SUFFIX

OWN_TEMPORARY = re.compile(rf"\..+\.\d+{re.escape(TEMPORARY_SUFFIX)}")  # .<name>.<process id>.tmp


@contextmanager
def exclusive(folder: Path, subfolders: Sequence[str] = ()) -> Iterator[None]:
    """Hold ``folder`` for this process, and sweep temporary files that a killed one left in it.

    Those of utils/files.py alone, in this folder and in its ``subfolders``, not below: another run may live there.

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
        for swept in (folder, *(folder / name for name in subfolders)):
            for stale in swept.glob(f".*{TEMPORARY_SUFFIX}"):
                if OWN_TEMPORARY.fullmatch(stale.name) and stale.is_file():
                    stale.unlink(missing_ok=True)
        yield
