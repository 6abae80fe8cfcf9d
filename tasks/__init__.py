"""The supervised tasks by their ``--n``. A new one is a file here, its test, a line here and in options.PHASES."""

from __future__ import annotations

from functools import partial

from tasks.base import BuildTask
from tasks.chest import find_chest_labels
from tasks.classification import FindClassification, classify
from tasks.msd import build_msd
from tasks.nodules import find_nodules

CLASSIFICATIONS: dict[str, FindClassification] = {"chest": find_chest_labels, "nodules": find_nodules}
TASKS: dict[str, BuildTask] = {
    **{name: partial(classify, find) for name, find in CLASSIFICATIONS.items()},
    "msd": build_msd,
}
