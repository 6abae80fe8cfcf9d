"""How a field of the options becomes a flag of ``main.py``."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

SEGMENTATION = "msd"
DIMS = {"luna": 3, "chest": 2, SEGMENTATION: 3, "nodules": 3}  # of each --n
PHASES = {  # and the --n that each can do
    "pretask": ("luna", "chest"),
    "finetune": ("chest", "nodules", SEGMENTATION),
    "linear": ("chest", "nodules", SEGMENTATION),
    "knn": ("chest", "nodules"),
    "embed": ("luna", "chest"),
    "predict": ("chest", "nodules", SEGMENTATION),
}
PRETRAINING, SUPERVISED = ("pretask",), ("finetune", "linear")
TRAINING = PRETRAINING + SUPERVISED
PREDICTION = "predict"
OTHER_THAN_PREDICTION = tuple(phase for phase in PHASES if phase != PREDICTION)
OTHER_THAN_SEGMENTATION = tuple(name for name in DIMS if name != SEGMENTATION)
AS_PHASE = -1  # a default that depends on the phase


def flag(
    default: Any,
    group: str,
    text: str,
    phases: tuple[str, ...] = tuple(PHASES),
    data: tuple[str, ...] = tuple(DIMS),
    models: tuple[str, ...] = (),
    at_least: int | None = None,
    **argument: Any,
) -> Any:
    """A field that is a flag: its ``default``, its ``group`` and ``text`` in ``--help``.

    ``phases`` and ``data`` are the ``--phase`` and ``--n`` in which it means something; elsewhere it is warned of.
    ``models``: the methods of the project that heed it, if not all do.
    ``at_least`` is the smallest value that it may have. ``argument`` is for argparse (type, choices, metavar, ...).
    """
    metadata: dict[str, Any] = {"group": group, "help": text, "phases": phases, "data": data}
    metadata |= {"models": models, "at_least": at_least, "argument": argument}
    return dataclasses.field(default=default, metadata=metadata)


def positive(text: str) -> int:
    """A whole number of 1 or more: the ``type`` of a flag."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


def means_something(metadata: Mapping[str, Any], phase: str | None, n: str | None, model: str | None = None) -> bool:
    """Whether the flag of this ``metadata`` means something with ``--phase``, ``--n`` and ``--model``; None: with any.

    A method in a file may heed any flag.
    """
    heeded = not metadata["models"] or model in metadata["models"] or model is None or model.endswith(".py")
    return heeded and (phase is None or phase in metadata["phases"]) and (n is None or n in metadata["data"])
