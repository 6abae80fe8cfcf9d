"""What ``--phase finetune`` and ``--phase linear`` know of a task, and how its parts are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from datasets.loader import Loader, PairDataset
from methods.supervised import Supervised
from options import Options
from training.devices import Devices
from training.evaluation import EvalResult
from training.precision import Precision
from training.run import workers_here
from utils.errors import UserError
from utils.process_group import ProcessGroup
from utils.text import counted

SIDED = ("left", "right")  # in the name of a class: then left and right are not exchanged


@dataclass(frozen=True)
class Results:
    """``values``: for ``metrics.json``. ``scalars``: for TensorBoard. ``table``: to read, several lines."""

    values: dict[str, Any]
    scalars: dict[str, float]
    table: str


@dataclass(frozen=True)
class Task:
    """A supervised task, ready to be trained.

    ``files``: of the training samples. ``note``: what an epoch takes of them, if not each once. ``start``: what is
    known of the weights that it starts from. ``facts``: how images are prepared. Both: for a TrainingJob's ``facts``.
    ``written``: as of a TrainingJob.
    ``validate``: the method on the valid part, which chooses the epoch. ``test``: the method on the test part, whose
    predictions and pictures go to a folder. These two are called with the method in evaluation mode, on all ranks.
    """

    method: Supervised
    loader: Loader
    files: Sequence[str]
    validate: Callable[[Precision], EvalResult]
    test: Callable[[Precision, Path], Results]
    note: str = ""
    start: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)


class BuildTask(Protocol):
    """Makes a task of the options. The encoder is frozen with ``--phase linear`` (``options.frozen``)."""

    def __call__(self, options: Options, devices: Devices, ranks: ProcessGroup) -> Task: ...


def training_loader(options: Options, samples: PairDataset, devices: Devices, ranks: ProcessGroup) -> Loader:
    """Shuffled batches of ``image`` and ``label``."""
    if options.b > len(samples):
        raise UserError(
            f"--b {options.b}: {options.data} has only {counted(len(samples), 'training sample')}; use a smaller batch"
        )
    return Loader(
        samples,
        options.b,
        options.seed,
        workers_here(options),
        devices.main,
        options.on_bad_sample,
        ranks=ranks,
        prefetch=options.prefetch,
    )


def plain_loader(options: Options, samples: PairDataset, devices: Devices, ranks: ProcessGroup) -> Loader:
    """Batches of all samples in their order; one that cannot be made is an error."""
    workers = workers_here(options)
    return Loader(
        samples,
        options.b,
        options.seed,
        workers,
        devices.main,
        ranks=ranks,
        prefetch=options.prefetch,
        shuffled=False,
        keep_workers=False,
    )


def mirrors(mirror: str, classes: Sequence[str]) -> bool:
    """Whether training exchanges left and right: as ``--mirror`` says, or if no class is of one side."""
    sided = any(side in name.lower() for name in classes for side in SIDED)
    return not sided if mirror == "auto" else mirror == "on"
