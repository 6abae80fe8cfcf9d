"""What a process of tests/inprocess.py finds done: imports, fonts of the pictures, compiled kernels.

No operation of torch runs here: its threads would not survive a fork.
"""

from __future__ import annotations

import importlib
import io
import multiprocessing.context
import pkgutil
from pathlib import Path

from datasets.ct.luna import warm_up
from datasets.xray.chest import ChestPairs

LIBRARIES = (
    *("torch", "torchvision", "torch.utils.data", "numba", "SimpleITK", "skimage.transform", "scipy.ndimage"),
    *("tensorboardX", "matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.font_manager", "PIL.Image"),
    *("tqdm", "monai.losses", "sklearn.metrics", "sklearn.linear_model", "sklearn.neighbors", "pydicom"),
    *("torch.distributed.run", "torch.distributed.elastic.agent.server.local_elastic_agent"),
    *("torch.distributed.elastic.rendezvous.registry", "pytest", "hypothesis"),  # the last two: of what ranks compute
)
ROOT = Path(__file__).resolve().parents[1]
OWN = ("datasets", "exporting", "methods", "models", "options", "phantoms", "phases", "preprocess", "tasks", "training")


def _import_all() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    for package in OWN:
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            importlib.import_module(module.name)


def _draw() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    axis = figure.subplots()
    axis.plot([1, 10], [1, 10], label="a")
    axis.set_yscale("log")
    axis.legend()
    figure.savefig(io.BytesIO(), format="png")


def _fork_in_place_of_spawn() -> None:
    """Workers of a script find the imports done, too: its process has one thread, so that it can be forked."""
    methods = multiprocessing.context._concrete_contexts  # type: ignore[attr-defined]
    methods["spawn"] = methods["fork"]


_import_all()
_draw()
_fork_in_place_of_spawn()
ChestPairs([], seed=0)  # which loads the compiled kernels
warm_up()
