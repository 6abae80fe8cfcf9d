"""What segmentation is judged by, with MONAI: the loss of a patch, Dice of a volume.

MONAI is imported where it is needed: that takes seconds, which other tasks do not have to wait.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def dice_ce_loss() -> Callable[[Tensor, Tensor], Tensor]:
    """(logits (B, K, ...), labels (B, 1, ...)) -> soft Dice of the foreground classes plus cross-entropy of all.

    Each is a mean over the samples, so that the loss of a batch does not depend on how it is dealt to devices.
    """
    from monai.losses import DiceCELoss

    return DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)


def dice(prediction: Tensor, truth: Tensor, classes: int) -> list[float]:
    """2 |P and T| / (|P| + |T|) of the classes 1 .. ``classes`` - 1, for maps of class numbers of one shape.

    A class that is in neither map has 1, one that is in only one of them 0.
    """
    from monai.metrics import compute_dice

    maps = (prediction[None, None], truth[None, None].to(prediction))
    return compute_dice(*maps, include_background=False, ignore_empty=False, num_classes=classes)[0].tolist()
