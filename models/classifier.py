"""The encoder of a U-Net alone, and a classifier on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.unet import UNet, UNetNetwork, z_normal


class Encoder(UNetNetwork):
    """Image (B, C, ...) -> the deepest feature, averaged over space: (B, channels), 512 with a ResNet-18 or in 3D."""

    def __init__(self, unet: UNet) -> None:
        """``unet`` loses its decoder."""
        super().__init__(unet)
        unet.drop_decoder()
        self.channels = unet.feature_channels[-1]

    def forward(self, image: Tensor) -> Tensor:
        return self.unet.pooled(z_normal(image) if self.z_normalised else image)


class Classifier(Encoder):
    """Image (B, C, ...) -> logits (B, classes), in float32. The head ``fc`` is called as torchvision's."""

    def __init__(self, unet: UNet, classes: int) -> None:
        super().__init__(unet)
        self.fc = nn.Linear(self.channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        feature = super().forward(image)
        device = feature.device.type
        if not torch.is_autocast_enabled(device):
            return self.fc(feature)
        with torch.autocast(device, enabled=False):  # 16 bits would give many images equal outputs, and AUROC ties
            return self.fc(feature.float())
