"""What C++ libraries print, caught before it reaches the terminal."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def native_output() -> Iterator[Callable[[], str]]:
    """Catch what C and C++ code prints on file descriptors 1 and 2 inside the block.

    Yields a function that returns the text so far. SimpleITK's readers print some failures only, and
    their warnings would stand between ours. Not for code that prints from Python or runs in threads.
    """
    with tempfile.TemporaryFile() as caught:
        saved = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
        try:
            for descriptor in saved:
                os.dup2(caught.fileno(), descriptor)
            yield lambda: os.pread(caught.fileno(), 100_000, 0).decode(errors="replace")
        finally:
            for descriptor, original in saved.items():
                os.dup2(original, descriptor)
                os.close(original)
