"""Options of predictions."""

from __future__ import annotations

import os
from dataclasses import dataclass

from options.flags import PREDICTION, SEGMENTATION, flag
from options.training import Training
from utils.errors import UserError


@dataclass(frozen=True)
class Prediction(Training):
    """What applying a fine-tuned network has."""

    tta: bool = flag(
        False,
        "prediction",
        "test-time augmentation: average the predictions over mirrored copies of each image; axes: those that were "
        "mirrored in training",
        phases=(PREDICTION,),
    )
    save_probabilities: bool = flag(
        False,
        "prediction",
        "segmentation only: also write the probability map of each class",
        phases=(PREDICTION,),
        data=(SEGMENTATION,),
    )

    def _check_prediction(self) -> None:
        if self.phase != PREDICTION:
            return
        if not self.weights:
            raise UserError("--weight is needed: the checkpoint to predict with, such as RUN/best.pt")
        if self.amp == "apex":
            raise UserError("--amp apex: it is for training; give --amp native, or leave it out")

    @property
    def weights(self) -> list[str]:
        """The files that ``--weight`` names, of predictions."""
        if os.path.exists(self.weight):
            return [self.weight]
        return [word.strip() for word in self.weight.split(",") if word.strip()]
