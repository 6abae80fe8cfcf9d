"""A U-Net alone, as it is fine-tuned to segment."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.unet import UNetNetwork, z_normal
from models.unet3d import UNet3d


class Segmenter(UNetNetwork):
    """Volume (B, C, X, Y, Z), sizes multiples of 8 -> logits (B, classes, X, Y, Z), background first."""

    def forward(self, image: Tensor) -> Tensor:
        return self.unet.decode(self.unet.encode(z_normal(image) if self.z_normalised else image))

    def encoder(self) -> list[nn.Module]:
        """The parts of the U-Net that ``encode`` uses."""
        return [module for name, module in self.unet.named_children() if name.startswith("down_tr")]


def build_segmenter(in_channels: int, classes: int, norm: str, seed: int, narrow: int = 1) -> Segmenter:
    """The 3D U-Net with ``classes`` outputs, background included, and random values that depend on the seed."""
    torch.manual_seed(seed)
    return Segmenter(UNet3d(in_channels, classes, norm, final_act="none", narrow=narrow))
