"""What ``main.py`` can do, by the names of ``--phase``. A new phase is a file here, its test, and a line in PHASES."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from options import Options
from training.devices import Devices
from utils.process_group import ProcessGroup

Phase = Callable[[Options, Devices, ProcessGroup], None]
PHASES = {  # its module, and its function there; imported when it is asked for: each needs libraries of its own
    "pretask": ("phases.pretask", "pretrain"),
    "finetune": ("phases.supervised", "finetune"),
    "linear": ("phases.supervised", "finetune"),
    "knn": ("phases.knn", "run_knn"),
    "embed": ("phases.features", "embed"),
    "predict": ("phases.predict", "predict"),
}


def phase(name: str) -> Phase:
    """What does the work of a phase."""
    module, function = PHASES[name]
    return cast(Phase, getattr(import_module(module), function))
