"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
import io
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError, reason
from utils.files import TEMPORARY_SUFFIX

HOLDER = re.compile(r"process (\d+) on (.+)")  # what the lock file says
ENDS_WITHIN_S = 30.0  # the helpers of a killed run
RENEWALS = 100  # of a lock; some file systems never tell that a file is the one at its path
OWN_TEMPORARY = re.compile(rf"\..+\.\d+{re.escape(TEMPORARY_SUFFIX)}")  # .<name>.<process id>.tmp


@contextmanager
def exclusive(
    folder: Path, subfolders: Sequence[str] = (), sweeps: bool = True, patience_s: float = 0.0, leaves: bool = True
) -> Iterator[None]:
    """Hold ``folder`` for this process, and, if this ``sweeps``, remove temporary files that a killed one left in it.

    Those of utils/files.py alone, in this folder and in its ``subfolders``, not below: another run may live there.
    ``leaves``: the lock's file afterwards.

    UserError if another process holds it for longer than ``patience_s``, or if nothing can be written there. The lock
    ends with the process, however that ends.
    """
    path = folder / ".lock"
    with _taken(path, patience_s) as file:
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {os.uname().nodename}".encode())
        except OSError as error:
            raise UserError(f"{folder}: nothing can be written there: {reason(error)}") from None
        for swept in (folder, *(folder / name for name in subfolders)) if sweeps else ():
            sweep(swept)
        try:
            yield
        finally:
            if not leaves:
                path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder which this one holds."""
    for stale in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        if OWN_TEMPORARY.fullmatch(stale.name) and stale.is_file():
            stale.unlink(missing_ok=True)


@contextmanager
def _taken(path: Path, patience_s: float) -> Iterator[io.FileIO]:
    """The lock's file, locked. One that was removed while this process waited for it locks nothing: then anew."""
    for number in range(RENEWALS, -1, -1):
        with _opened(path) as file:
            _take(file, path.parent, patience_s)
            if number == 0 or _is_at(file, path):
                yield file
                return


def _opened(path: Path) -> io.FileIO:
    try:
        return open(path, "ab+", buffering=0)
    except PermissionError as error:
        there = "give" if not os.path.lexists(path) else f"remove {path}, which may be another user's, or give"
        raise UserError(
            f"{path.parent}: nothing can be written there: {reason(error)}; {there} another folder"
        ) from None
    except OSError as error:
        raise UserError(f"{path.parent}: nothing can be written there: {reason(error)}") from None


def _is_at(file: io.FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _take(file: io.FileIO, folder: Path, patience_s: float) -> None:
    """Lock the file. The processes that load data for a killed run hold it, too, until they see that it is gone."""
    deadline, impatient = (time.monotonic() + seconds for seconds in (ENDS_WITHIN_S, patience_s))
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().decode(errors="replace").strip()
            if time.monotonic() > (deadline if _is_gone(holder) else impatient):
                holder = holder or "another process"
                raise UserError(f"{folder} is in use by {holder}; give another folder or stop that run") from None
            time.sleep(0.05)
        except OSError:
            return  # a file system without locks: better to run than to refuse
        else:
            return


def _is_gone(holder: str) -> bool:
    """Whether the process that the lock file names was one of this machine, and has ended."""
    words = HOLDER.fullmatch(holder)
    if not words or words[2] != os.uname().nodename:
        return False
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    try:  # a zombie, whose parent does not ask for its status, has ended
        return Path(f"/proc/{words[1]}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (OSError, IndexError):
        return False
