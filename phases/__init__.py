"""What ``main.py`` can do, by the names of ``--phase``. A new phase is a file here, its test, and a line in PHASES."""

from __future__ import annotations

from collections.abc import Callable

from options import Options
from phases.features import embed
from phases.knn import look_up
from phases.pretask import pretrain
from phases.supervised import learn
from training.devices import Devices
from utils.ranks import Ranks

PHASES: dict[str, Callable[[Options, Devices, Ranks], None]] = {
    "pretask": pretrain,
    "finetune": learn,
    "linear": learn,
    "knn": look_up,
    "embed": embed,
}
