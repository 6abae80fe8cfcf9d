"""What tells an error for want of main memory from others."""

from __future__ import annotations

import errno
import re

# Of torch's allocator, of its mapped files and of C++; as plain RuntimeErrors, also out of a worker process.
REFUSALS = re.compile(r"can't allocate memory|not enough memory|[Cc]annot allocate memory|bad_alloc")
WANTED = re.compile(r"tried to allocate (\d+) bytes")


def lack_of_memory(error: BaseException) -> str:
    """What could not be had, in words; "" if the error is another one."""
    text = str(error)
    refused = isinstance(error, RuntimeError) and REFUSALS.search(text)
    if not refused and not isinstance(error, MemoryError) and getattr(error, "errno", None) != errno.ENOMEM:
        return ""
    wanted = WANTED.search(text)
    return f"{int(wanted[1]) / 1e6:,.0f} MB more are not available" if wanted else "no more memory available"
