"""Run a function over items in several processes, one of which may be killed."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def run_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[tuple[Item, Result | None]]:
    """Yield (item, ``function(item)``) as they come; the result is None where the item's process was killed.

    The items run in ``workers`` fresh processes of one thread each, one worker included, so that the results
    are the same for any number; no more items are handed out than there are workers. When a process is
    killed, say for want of memory, the items that were running are run once more, each alone, to see which
    one it was. An exception of ``function`` is raised here.
    """
    waiting = deque(items)
    while waiting:
        running: dict[Future[Result], Item] = {}
        try:
            with fresh_processes(workers) as pool:
                while waiting or running:
                    while waiting and len(running) < workers:
                        running[pool.submit(function, waiting[0])] = waiting[0]
                        waiting.popleft()
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        result = future.result()
                        yield running.pop(future), result
        except BrokenProcessPool:
            for item in running.values():
                yield item, _alone(function, item)


def _alone(function: Callable[[Item], Result], item: Item) -> Result | None:
    try:
        with fresh_processes(1) as pool:
            return pool.submit(function, item).result()
    except BrokenProcessPool:
        return None


@contextmanager
def fresh_processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that share nothing with this one and have one thread each for matrix products."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))  # the libraries read it when they are loaded
    try:
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_prepare_worker) as pool:
            yield pool
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent answers for them
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
