"""Options of segmentation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from options.flags import OTHER_THAN_PREDICTION, SEGMENTATION, SUPERVISED
from options.flags import flag as flag_of_any_phase
from options.training import Training
from utils.errors import UserError

flag = partial(flag_of_any_phase, phases=OTHER_THAN_PREDICTION)


@dataclass(frozen=True)
class Segmentation(Training):
    """What segmentation has."""

    folds: int = flag(5, "segmentation", "folds of the cross-validation", data=(SEGMENTATION,), at_least=2)
    fold: int = flag(
        0,
        "segmentation",
        "the fold that is the test set, from 0; with --split, the entry of that file (default: 0)",
        data=(SEGMENTATION,),
        at_least=0,
    )
    train_cases: int = flag(
        0,
        "segmentation",
        "train on the first N training cases only (default: all)",
        data=(SEGMENTATION,),
        at_least=0,
    )
    patch: str = flag(
        "64,64,32", "segmentation", "voxels of a patch, multiples of 8", metavar="X,Y,Z", data=(SEGMENTATION,)
    )
    patches: int = flag(4, "segmentation", "patches of each case in an epoch", data=(SEGMENTATION,), at_least=1)
    spacing_mm: str = flag(
        "",
        "segmentation",
        "voxel spacing to which volumes are resampled, in mm (default: median of the training cases)",
        metavar="X,Y,Z",
        data=(SEGMENTATION,),
    )
    modality: str = flag(
        "",
        "segmentation",
        "intensities: ct: scaled by --hu_min and --hu_max; mr: by percentiles (default: from dataset.json, else mr)",
        choices=["ct", "mr"],
        data=(SEGMENTATION,),
    )
    hu_min: int = flag(-1000, "segmentation", "CT window, lower end in HU; becomes 0", data=(SEGMENTATION,))
    hu_max: int = flag(1000, "segmentation", "CT window, upper end in HU; becomes 1", data=(SEGMENTATION,))
    mirror: str = flag(
        "auto",
        "data",
        "random left-right flips in training with labels; auto: on, unless a class name contains left or right",
        choices=["auto", "on", "off"],
        phases=SUPERVISED,
        data=(SEGMENTATION, "chest"),
    )
    cache: str = flag(
        "",
        "segmentation",
        "store prepared volumes in this folder and memory-map them (default: keep them in memory)",
        metavar="FOLDER",
        data=(SEGMENTATION,),
    )

    def _check_segmentation(self) -> None:
        if any(side < 8 or side % 8 for side in self.patch_shape):
            raise UserError(f"--patch {self.patch}: must be three multiples of 8")
        if self.spacing and not all(0 < mm < math.inf for mm in self.spacing):
            raise UserError(f"--spacing_mm {self.spacing_mm}: must be three numbers above 0")
        if self.hu_min >= self.hu_max:
            raise UserError(f"--hu_min {self.hu_min} --hu_max {self.hu_max}: --hu_min must be less than --hu_max")

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """``--patch`` as numbers: x, y, z."""
        x, y, z = _three(self.patch, "patch", int)
        return x, y, z

    @property
    def spacing(self) -> tuple[float, ...]:
        """``--spacing_mm`` as numbers: x, y, z; empty if it is not given."""
        return tuple(_three(self.spacing_mm, "spacing_mm", float)) if self.spacing_mm else ()


def _three(text: str, name: str, number: Callable[[str], Any]) -> list[Any]:
    try:
        x, y, z = (number(word) for word in text.split(","))
    except ValueError:
        raise UserError(f"--{name} {text}: give three numbers, of x, y and z, such as 64,64,32") from None
    return [x, y, z]
