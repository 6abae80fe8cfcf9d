"""Builds a U-Net of 2D or 3D by name."""

from __future__ import annotations

from models.unet import UNet
from models.unet2d import UNet2d
from models.unet3d import UNet3d


def build_unet(
    dims: int,
    in_channels: int,
    out_channels: int,
    norm: str,
    final_act: str,
    backbone: str = "resnet18",
    skips: bool = True,
    narrow: int = 1,
) -> UNet:
    """The 2D (on a ResNet) or the 3D U-Net, with initial values from torch's global generator.

    ``norm`` counts in 3D alone, ``backbone`` in 2D. Not ``skips``: the decoder reads the deepest feature alone.
    ``narrow``: what its channels are divided by.
    """
    if dims == 2:
        return UNet2d(in_channels, out_channels, final_act, backbone, skips, narrow)
    return UNet3d(in_channels, out_channels, norm, final_act, skips, narrow)
