"""The options of a run: one frozen, typed, validated dataclass, made of one for each kind of phase.

Each field is a flag of ``main.py`` of the same name (command_line.py); ``flag`` (flags.py) gives its default, its help
and where it means something.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from options.common import BACKBONES, MODELS
from options.flags import DIMS, PHASES, PREDICTION, PRETRAINING, SEGMENTATION, SUPERVISED, TRAINING, means_something
from options.labels import Labels
from options.prediction import Prediction
from options.pretrain import PARTS, Pretraining
from options.segmentation import Segmentation
from options.training import CHECKPOINTS

__all__ = ["ALIASES", "BACKBONES", "CHECKPOINTS", "DIMS", "MODELS", "NO_EFFECT", "PARTS", "PHASES", "PRETRAINING"]
__all__ += ["PREDICTION", "SEGMENTATION", "SUPERVISED", "TRAINING", "Options", "telling", "without_effect"]
ALIASES = {  # flags as other programs call them -> ours
    "batch_size": "b",
    "learning_rate": "lr",
    "dataset": "n",
    "dims": "d",
    "image_size": "size",
    "num_workers": "workers",
    "output_dir": "output",
    "data_dir": "data",
    "pretrained": "weight",
    "continue": "continue_with",
}
NO_EFFECT = ("root", "step", "gamma", "lr_decay_epochs", "lr_decay_rate")
NO_PART = ("preview", "dry_run", "report")  # of what a run is: of a look at it


@dataclass(frozen=True)
class Options(Pretraining, Labels, Segmentation, Prediction):
    """Everything a run depends on. Constructing one validates it and raises UserError."""

    def __post_init__(self) -> None:
        self._check_common()
        self._check_training()
        self._check_pretraining()
        self._check_labels()
        self._check_segmentation()
        self._check_prediction()


FLAGS = {field.name: field.metadata for field in dataclasses.fields(Options)}


def telling(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run's options, by name, that meant something in it: for a record that others read."""
    model = options.get("model")
    of_method = model if isinstance(model, str) else None
    others = {*NO_PART, *without_effect(options, options.get("phase", "pretask"), options.get("n"), of_method)}
    return {name: value for name, value in options.items() if name not in others}


def without_effect(given: Iterable[str], phase: str | None, n: str | None, model: str | None = None) -> list[str]:
    """Those of the flags that mean nothing with this ``--phase``, ``--n`` and ``--model``; None: with none of them."""
    return [
        name
        for name in given
        if name in NO_EFFECT or (name in FLAGS and not means_something(FLAGS[name], phase, n, model))
    ]
