"""What predicts, what for, and what comes of it: of classifiers and of segmenters alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.unet import UNetNetwork
from options import Options
from tasks.finetuned import Finetuned
from training.devices import Devices
from training.network import in_memory_format
from training.precision import Precision
from utils.process_group import ProcessGroup


@dataclass(frozen=True)
class PredictionJob:
    """``folds``: the checkpoints whose predictions are averaged. ``options``: with what these alone know.

    ``begin``: takes and prepares ``output``; the first rank calls it once there are images to predict.
    """

    options: Options
    folds: Sequence[Finetuned]
    output: Path
    devices: Devices
    precision: Precision
    ranks: ProcessGroup
    begin: Callable[[], None]

    def ready(self, fold: Finetuned) -> UNetNetwork:
        """The network of a fold, on the device."""
        network = fold.network(self.options)
        return in_memory_format(network, self.options, self.devices.main).to(self.devices.main)


@dataclass(frozen=True)
class Predicted:
    """``found``: images there are, each a ``what``. ``where`` their predictions are. ``problems``: of all ranks'."""

    found: int
    what: str
    where: Path
    problems: list[str]
