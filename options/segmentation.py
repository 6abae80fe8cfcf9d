"""Options of segmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from options.flags import SEGMENTATION, flag
from options.training import Training
from utils.errors import UserError


@dataclass(frozen=True)
class Segmentation(Training):
    """What segmentation has."""

    folds: int = flag(5, "segmentation", "parts of the cases; one is tested on", data=(SEGMENTATION,), at_least=2)
    fold: int = flag(
        0,
        "segmentation",
        "the part to test on, from 0; with --split, the entry of the file (default: 0)",
        data=(SEGMENTATION,),
        at_least=0,
    )
    split: str = flag(
        "",
        "segmentation",
        "splits in place of --folds, as nnU-Net's splits_final.json (default: none)",
        metavar="FILE",
        data=(SEGMENTATION,),
    )
    train_cases: int = flag(
        0,
        "segmentation",
        "train on the first so many of the training cases (default: all)",
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
        "of the voxels (default: median of the training cases)",
        metavar="X,Y,Z",
        data=(SEGMENTATION,),
    )
    modality: str = flag(
        "",
        "segmentation",
        "ct: --hu_min .. --hu_max become 0 .. 1; mr: percentiles 0.5 .. 99.5 (default: as dataset.json says, else mr)",
        choices=["ct", "mr"],
        data=(SEGMENTATION,),
    )
    hu_min: int = flag(-1000, "segmentation", "of CT, what becomes 0, in Hounsfield units", data=(SEGMENTATION,))
    hu_max: int = flag(1000, "segmentation", "of CT, what becomes 1, in Hounsfield units", data=(SEGMENTATION,))
    mirror: str = flag(
        "auto",
        "segmentation",
        "exchange left and right at random; auto: unless the name of a class says left or right",
        choices=["auto", "on", "off"],
        data=(SEGMENTATION,),
    )
    cache: str = flag(
        "",
        "segmentation",
        "for prepared volumes, mapped from there (default: in memory)",
        metavar="FOLDER",
        data=(SEGMENTATION,),
    )

    def _check_segmentation(self) -> None:
        if any(side < 8 or side % 8 for side in self.patch_shape):
            raise UserError(f"--patch {self.patch}: must be three multiples of 8")
        if self.spacing and min(self.spacing) <= 0:
            raise UserError(f"--spacing_mm {self.spacing_mm}: must be above 0")
        if self.hu_min >= self.hu_max:
            raise UserError(f"--hu_min {self.hu_min} --hu_max {self.hu_max}: they must rise")

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
