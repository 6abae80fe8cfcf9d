"""The processes that load data: how they begin and end, and why one did not hand over a batch.

Their defects and the shortages of the machine must reach the run, which then saves: they must neither hang nor print.
"""

from __future__ import annotations

import atexit
import errno
import multiprocessing
import multiprocessing.queues
import os
import re
import resource
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, NamedTuple

from utils.errors import UserError, reason
from utils.signals import ignore_stop_signals

# Of torch's loader: a worker that the system ended, or a batch for which shared memory has no room.
LOST_WORKER = re.compile(
    r"(DataLoader worker|Pin memory thread)[^\n]* (is killed by signal|exited unexpectedly)[^\n]*|"
    r"unable to (open|write|mmap|resize|allocate)[^\n]*(shared memory|file </torch_)[^\n]*"
)
NO_FILES = re.compile("Too many open files|items of ancdata")  # torch's loader, and a descriptor that was not taken in
NO_FILE = errno.EMFILE, errno.ENFILE
NO_PROCESSES = re.compile("can't start new thread")
BROKEN = "its connection broke"
FEW_BATCHES = "use fewer --workers or a smaller --prefetch"
MEMORY_REMEDY = (
    f"main memory or shared memory may be short: give more (docker run --shm-size 8g), or {FEW_BATCHES}; "
    "docs/TROUBLESHOOTING.md"
)
FILES_REMEDY = f"raise the limit (ulimit -n 65536), or {FEW_BATCHES}"
PROCESSES_REMEDY = "use fewer --workers, or raise the limit of processes (ulimit -u) or of memory"
FEW_FILES = 4096  # may be too few for a loader
TMPDIR_REMEDY = "set TMPDIR to another folder, with a short path (TMPDIR=/tmp), or use --workers 0"

_of_threads: list[LostBatch] = []  # why the thread that pins batches ended


class LostBatch(NamedTuple):
    """Why a process did not hand over a batch, and what to do."""

    why: str
    remedy: str


NO_MORE_FILES = LostBatch("too many open files", FILES_REMEDY)


def why_lost(error: BaseException) -> LostBatch | None:
    """Of a loader's error: a process that was ended, or had no room; None if it is another one.

    A batch in flight is asked of the process that made it, by a connection, which breaks if that was killed.
    """
    text = str(error)
    if isinstance(error, RuntimeError) and (found := LOST_WORKER.search(text)):
        if "Pin memory thread" in found[0] and _of_threads:
            return _of_threads.pop()
        files = "Too many open files" in found[0]
        return LostBatch(found[0].rstrip(" ."), FILES_REMEDY if files else MEMORY_REMEDY)
    if text.startswith("Caught "):  # of a sample, handed on by torch
        return None
    number = _number(error)
    if number in NO_FILE or (isinstance(error, RuntimeError) and NO_FILES.search(text)):
        return NO_MORE_FILES
    if isinstance(error, ConnectionError | EOFError | FileNotFoundError):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return LostBatch(BROKEN, f"open files (ulimit -n is {limit}), " * (limit < FEW_FILES) + MEMORY_REMEDY)
    if number in (errno.EAGAIN, errno.ENOMEM) or (isinstance(error, RuntimeError) and NO_PROCESSES.search(text)):
        return LostBatch("no more processes can be started", PROCESSES_REMEDY)
    return None


def shortage(error: UserError) -> str:
    """What to do if a sample cannot be made because the machine lacks something, as any other then could not; else "".

    For the process that met it.
    """
    if _has_no_file_left() or _number(error.__cause__) in NO_FILE:
        return FILES_REMEDY
    return MEMORY_REMEDY if _number(error.__cause__) == errno.ENOMEM else ""


def _number(error: BaseException | None) -> int | None:
    return getattr(error, "errno", None)


def allow_open_files() -> None:
    """As many as the system lets this process have: each tensor of each batch made ahead is one."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def start_worker(worker: int) -> None:
    """At the beginning of each such process."""
    ignore_stop_signals()
    sys.excepthook = _quiet_about_lost
    # torch sends batches by such a queue, whose thread would print an error and go on: the run would wait for ever
    multiprocessing.queues.Queue._on_queue_feeder_error = _send_why  # type: ignore[attr-defined]


class NotSent(NamedTuple):
    """Comes instead of a batch that could not be sent."""

    lost: LostBatch


def _send_why(queue: Any, error: Exception, unsent: Any) -> None:
    """Send why a batch (its number, its samples) cannot be sent."""
    if isinstance(unsent, tuple) and isinstance(unsent[1], NotSent):  # the run is gone
        os._exit(1)
    known = NO_MORE_FILES if _has_no_file_left() else why_lost(error)
    if isinstance(error, OSError) and (known is None or known.why == BROKEN):  # it makes a socket, in that folder
        known = LostBatch(
            f"{reason(error)}, in {tempfile.tempdir or os.environ.get('TMPDIR') or '/tmp'}", TMPDIR_REMEDY
        )
    if known is None or not isinstance(unsent, tuple):  # a defect, or the queue itself is broken
        sys.__excepthook__(type(error), error, error.__traceback__)
        os._exit(1)  # which the run sees
    with suppress(ValueError):  # it was closed meanwhile: the run is ending
        queue.put((unsent[0], NotSent(known)))


def _has_no_file_left() -> bool:
    """Whether nothing can be opened: the error of that may be hidden in another one's."""
    try:
        with open(os.devnull, "rb"):
            return False
    except OSError:
        return True


def _quiet_about_lost(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An excepthook: shows what nobody caught, but for a connection that the run cut short, which has words for it.

    The thread that hands a batch over meets one when a second signal stops the run amid it, and would show a traceback.
    """
    if not why_lost(error):
        sys.__excepthook__(kind, error, trace)


def _quiet_thread(problem: threading.ExceptHookArgs) -> None:
    """The same of the thread that pins batches: it meets it when a worker was killed, and tells nobody else."""
    pins = problem.thread is not None and "_pin_memory_loop" in problem.thread.name  # of torch's function
    known = why_lost(problem.exc_value) if pins and problem.exc_value else None
    if known:
        _of_threads[:] = [known]
    else:
        threading.__excepthook__(problem)


def _quiet_end(problem: sys.UnraisableHookArgs) -> None:
    """The same of what is freed: torch's loader shows a traceback if it had not started all its workers."""
    if getattr(problem.object, "__qualname__", "") != "_MultiProcessingDataLoaderIter.__del__":
        sys.__unraisablehook__(problem)


@contextmanager
def child_signals_as_they_were() -> Iterator[None]:
    """Leaves torch's handler of SIGCHLD out: it raises amid a step if a worker ends, where nothing can be saved.

    Without it, the loader itself notices within 5 seconds.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if former is None else former)


def kill_workers_at_exit() -> None:
    """At the end of the process: whoever ignores signals that ask to stop would be waited for without end.

    For a program's entry point: it kills all children that multiprocessing started, and is quiet about their end.
    """
    threading.excepthook = _quiet_thread
    sys.unraisablehook = _quiet_end
    atexit.register(_kill_children)  # called before multiprocessing's own, which was registered when it was imported


def _kill_children() -> None:
    for process in multiprocessing.active_children():
        process.kill()
