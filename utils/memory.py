"""What tells an error for want of main memory from others."""

from __future__ import annotations

import errno
import re

# Of torch's allocator, of its mapped files and of C++; as plain RuntimeErrors, also out of a worker process.
REFUSALS = re.compile(r"can't allocate memory|not enough memory|[Cc]annot allocate memory|bad_alloc")
# Of torch's loader: a worker that the system ended, or a batch for which shared memory has no room.
LOST_WORKER = re.compile(
    r"(DataLoader worker|Pin memory thread)[^\n]* (is killed by signal|exited unexpectedly)[^\n]*|"
    r"unable to (open|write|mmap|resize|allocate)[^\n]*(shared memory|file </torch_)[^\n]*"
)
WANTED = re.compile(r"tried to allocate (\d+) bytes")


def lost_worker(error: BaseException) -> str:
    """Why a process that loads data did not hand over a batch: it was ended, or had no room; "" if it is not that.

    A batch in flight is asked of the process that made it, by a connection, which breaks if that was killed.
    """
    if isinstance(error, RuntimeError) and (found := LOST_WORKER.search(str(error))):
        return found[0].rstrip(" .")
    if str(error).startswith("Caught "):  # of a sample, handed on by torch
        return ""
    if isinstance(error, ConnectionError | EOFError | FileNotFoundError):
        return "its connection broke"
    return "Too many open files" if getattr(error, "errno", None) == errno.EMFILE else ""


def lack_of_memory(error: BaseException) -> str:
    """What could not be had, in words; "" if the error is another one."""
    text = str(error)
    refused = isinstance(error, RuntimeError) and REFUSALS.search(text)
    if not refused and not isinstance(error, MemoryError) and getattr(error, "errno", None) != errno.ENOMEM:
        return ""
    wanted = WANTED.search(text)
    return f"{int(wanted[1]) / 1e6:,.0f} MB more are not available" if wanted else "no more memory available"
