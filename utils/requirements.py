"""Called first by the command lines: a package that is not installed, or not as it should be, is one line.

Outside the virtual environment already the first import of others' code fails, before there is anything to catch it.
"""

from __future__ import annotations

import sys
from types import TracebackType

from utils.errors import complain

PACKAGES = frozenset(  # of requirements.txt, by the names that they are imported by
    [
        *("PIL", "SimpleITK", "matplotlib", "monai", "numba", "numpy", "scipy", "skimage", "sklearn", "tensorboardX"),
        *("pydicom", "safetensors", "torch", "torchvision", "tqdm", "xxhash", "yaml"),
    ]
)
FOR_DEVELOPMENT = frozenset({"torchio"})  # of requirements-dev.txt, which benchmarks need


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In place of a traceback where one of these packages is not installed, or torchvision not made for this torch."""
    if isinstance(error, RuntimeError) and "torchvision::" in str(error):
        complain(
            "torchvision does not work with this torch, as where one is built for CPUs and the other for CUDA; install "
            "both anew from one index: pip install --force-reinstall torch torchvision"
        )
        sys.exit(2)
    if not isinstance(error, ModuleNotFoundError) or error.name not in PACKAGES | FOR_DEVELOPMENT:
        sys.__excepthook__(kind, error, trace)
        return
    listed = "requirements-dev.txt" if error.name in FOR_DEVELOPMENT else "requirements.txt"
    complain(
        f"the package {error.name} is not installed here; activate the environment (source .venv/bin/activate) or "
        f"pip install -r {listed}"
    )
    sys.exit(2)


def say_missing_packages() -> None:
    """From now on a package of these that is not installed, or does not work, ends the program with one line."""
    sys.excepthook = _tell
