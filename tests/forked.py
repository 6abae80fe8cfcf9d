"""A script runs in a fork, and finds all imports done; so do the Python scripts that it starts itself.

What is forked starts as ``python SCRIPT ...`` does: its own arguments, environment, signals and files.
"""

from __future__ import annotations

import atexit
import inspect
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing import resource_tracker, util
from pathlib import Path
from typing import Any, NoReturn

AS_EVER = subprocess.Popen._execute_child  # type: ignore[attr-defined]
SIGNATURE = inspect.signature(AS_EVER)
NAME = Path("/proc/self/comm")  # Linux shows the environment that a process was begun with, not that of a fork


def run_as_main(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """What ``python argv[0] ...`` does, in this process."""
    os.environ.clear()
    os.environ.update(environment)
    sys.argv, sys.orig_argv = list(argv), [sys.executable, *argv]
    sys.path[0] = str(Path(argv[0]).parent)
    sys.path[1:1] = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    subprocess.Popen._execute_child = _execute_child  # type: ignore[attr-defined]
    runpy.run_path(argv[0], run_name="__main__")


def _execute_child(self: Any, *given: Any) -> None:
    """``python [-u] SCRIPT ...`` is a fork of this process, any other command a process as ever."""
    call = SIGNATURE.bind(self, *given).arguments
    words = [str(word) for word in call["args"]] if isinstance(call["args"], list | tuple) else []
    argv = [word for word in words[1:] if word != "-u"]
    if words[:1] != [sys.executable] or not argv or not argv[0].endswith(".py"):
        AS_EVER(self, *given)
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or both would write it
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    self.pid = os.fork()
    if not self.pid:
        _begin(argv, call, blocked)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    self._child_created = True
    pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
    self._close_pipe_fds(*(call[name] for name in pipes))


def _begin(argv: list[str], call: dict[str, Any], blocked: Any) -> NoReturn:
    """Be the new process until its end. ``call``: the arguments of ``_execute_child``."""
    status: Any = 1
    try:
        atexit._clear()
        util._finalizer_registry.clear()  # type: ignore[attr-defined]
        atexit.register(util._exit_function)  # type: ignore[attr-defined]
        for place, name in enumerate(("p2cread", "c2pwrite", "errwrite")):
            if call[name] != -1:
                os.dup2(call[name], place)
        tracker = resource_tracker._resource_tracker._fd  # type: ignore[attr-defined]  # of semaphores: one for all
        # Closed, the numbers would be given to new files, which the objects that had them would close when collected.
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in map(int, os.listdir("/dev/fd")):
            if number > 2 and number not in (tracker, nothing):
                os.dup2(nothing, number, inheritable=False)
        if call["start_new_session"]:
            os.setsid()
        for signum in signal.valid_signals():
            if callable(signal.getsignal(signum)):
                signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        environment = dict(os.environ if call["env"] is None else call["env"])
        if "RANK" in environment and NAME.exists():
            NAME.write_text(f"RANK={environment['RANK']}")
        os.chdir(call["cwd"] or ".")
        run_as_main(argv, environment)
        status = 0
    except SystemExit as ended:
        status = ended.code or 0
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
