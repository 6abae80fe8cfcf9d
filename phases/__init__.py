"""What ``main.py`` can do, by the names of ``--phase``. A new phase is a file here, its test, and a line in PHASES."""

from __future__ import annotations

from collections.abc import Callable

from options import Options
from phases.features import embed
from phases.knn import run_knn
from phases.pretask import pretrain
from phases.supervised import finetune
from training.devices import Devices
from utils.process_group import ProcessGroup

PHASES: dict[str, Callable[[Options, Devices, ProcessGroup], None]] = {
    "pretask": pretrain,
    "finetune": finetune,
    "linear": finetune,
    "knn": run_knn,
    "embed": embed,
}
