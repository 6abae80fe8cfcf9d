"""Scripts run in forks of a process that has imported the heavy libraries: as separate as processes, and quick.

What a script starts by multiprocessing's spawn is forked, too, and so are the Python scripts that it starts by
``subprocess`` (tests/forked.py), as ranks are.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.forked import run_as_main

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.preloaded"])


def _run(argv: list[str], folder: str, logs: tuple[str, str], environment: dict[str, str], largest: int) -> None:
    assert "tests.preloaded" in sys.modules, "what the server could not import is imported by each process anew"
    os.chdir(folder)
    out, err = (os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for log in logs)
    os.dup2(out, 1)
    os.dup2(out if logs[0] == logs[1] else err, 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    run_as_main(argv, environment | {"OMP_NUM_THREADS": "1"})


class Started:
    """A script that runs: what a test does with it and to it, in the words of ``subprocess.Popen``."""

    def __init__(self, argv: list[str], folder: Path, log: Path, errors: Path | None = None) -> None:
        self._log, logs, largest = log, (str(log), str(errors or log)), resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        self._process = CONTEXT.Process(target=_run, args=(argv, str(folder), logs, dict(os.environ), largest))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status; None while it runs, minus the signal if one ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float = 300) -> int:
        """The exit status; what runs for longer than ``timeout`` seconds is killed."""
        self._process.join(timeout)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        return -1 if self.returncode is None else self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, None]:
        """Wait for its end; -> all that it has printed."""
        self.wait(timeout)
        return self._log.read_text(), None


def run_script(argv: list[str], folder: Path, log: Path, errors: Path | None = None, timeout: float = 300) -> int:
    """``python argv[0] argv[1:]`` in ``folder``; what it prints goes to ``log``, or ``errors``. -> the exit status.

    It has the environment of this process and its limit on the size of files, but not its other limits.
    """
    return Started(argv, folder, log, errors).wait(timeout)


def run_captured(argv: list[str], folder: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """``run_script`` (in this folder, if no other is given), with what it printed."""
    with tempfile.TemporaryDirectory() as logs:
        out, err = Path(logs, "out"), Path(logs, "err")
        status = run_script(argv, folder or Path.cwd(), out, err, timeout)
        return subprocess.CompletedProcess(argv, status, out.read_text(), err.read_text())
