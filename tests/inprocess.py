"""Scripts run in forks of a process that has imported the heavy libraries: as separate as processes, and quick.

Not for scripts that start processes by multiprocessing's spawn, or start themselves again.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = (
    *("torch", "torchvision", "torch.utils.data", "numba", "SimpleITK", "skimage.transform", "scipy.ndimage"),
    *("tensorboardX", "matplotlib.figure", "matplotlib.backends.backend_agg", "PIL.Image", "tqdm"),
)
CONTEXT.set_forkserver_preload(list(PRELOADED))


def _run(argv: list[str], folder: str, log: str) -> None:
    os.chdir(folder)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.argv = argv
    sys.path[0] = str(Path(argv[0]).parent)  # as python does for a script
    runpy.run_path(argv[0], run_name="__main__")


def run_script(argv: list[str], folder: Path, log: Path, timeout: float = 300) -> int:
    """``python argv[0] argv[1:]`` in ``folder``; what it prints goes to ``log``. -> the exit status."""
    process = CONTEXT.Process(target=_run, args=(argv, str(folder), str(log)))
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode if process.exitcode is not None else -1
