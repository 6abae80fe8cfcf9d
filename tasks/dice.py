"""What segmentation computes, with MONAI: the loss of a patch, the segmentation of a volume, Dice.

MONAI is imported where it is needed: that takes seconds, which other tasks do not have to wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

OVERLAP = 0.5  # of neighbouring windows


def dice_ce_loss() -> Callable[[Tensor, Tensor], Tensor]:
    """(logits (B, K, ...), labels (B, 1, ...)) -> soft Dice of the foreground classes plus cross-entropy of all.

    Each is a mean over the samples, so that the loss of a batch does not depend on how it is dealt to devices.
    """
    from monai.losses import DiceCELoss

    return DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)


@torch.no_grad()
def segment(
    network: Callable[[Tensor], Tensor], image: Tensor, patch: Sequence[int], windows: int, shape: Sequence[int]
) -> Tensor:
    """The class of each voxel: int64 of ``shape``.

    ``image``: (C, X, Y, Z), as large as it is. The network sees windows of the size ``patch``, ``windows`` of them at a
    time, which overlap by half and are averaged with Gaussian weights; where a volume is smaller, zeros are around it.
    Its probabilities are then resized, linearly, to ``shape``: the grid of the file, if ``image`` was resampled.
    """
    from monai.inferers import sliding_window_inference

    def probabilities(window: Tensor) -> Tensor:
        return network(window).float().softmax(dim=1)

    averaged = sliding_window_inference(
        image[None], tuple(patch), windows, probabilities, overlap=OVERLAP, mode="gaussian"
    )
    assert isinstance(averaged, Tensor)  # it would be more where the network gives more
    if tuple(averaged.shape[2:]) != tuple(shape):
        averaged = F.interpolate(averaged, size=tuple(shape), mode="trilinear", align_corners=False)
    return averaged[0].argmax(dim=0)


def dice(prediction: Tensor, truth: Tensor, classes: int) -> list[float]:
    """2 |P and T| / (|P| + |T|) of the classes 1 .. ``classes`` - 1, for maps of class numbers of one shape.

    A class that is in neither map has 1, one that is in only one of them 0.
    """
    from monai.metrics import compute_dice

    maps = (prediction[None, None], truth[None, None].to(prediction))
    return compute_dice(*maps, include_background=False, ignore_empty=False, num_classes=classes)[0].tolist()
