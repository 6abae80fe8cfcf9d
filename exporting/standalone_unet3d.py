"""The 3D U-Net that PCRL pre-trains, in one file that needs torch alone: copy it to where you load the weights.

    network = UNet3d(in_channels=1, out_channels=1, norm="bn")
    network.load_state_dict(torch.load("unet3d.pt", weights_only=True))
    features = network.eval().encode(volume)  # of 64, 128, 256, 512 channels, at 1, 1/2, 1/4, 1/8 of the size

For a task of your own take ``out_channels=classes, final_act="none"``, and leave the tensors of ``out_tr`` out.

Copyright (c) 2026 The PCRL maintainers. SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def norm_layer(norm: str, channels: int) -> nn.Module:
    """``bn``: batch; ``gn``: group (8 groups); ``in``: instance, affine."""
    if norm == "bn":
        return nn.BatchNorm3d(channels)
    if norm == "gn":
        return nn.GroupNorm(8, channels)
    if norm == "in":
        return nn.InstanceNorm3d(channels, affine=True)
    raise ValueError(f"unknown norm {norm!r}; known: bn, gn, in")


class ConvNormReLU(nn.Module):
    """The layers conv 3x3x3, norm, ReLU. The norm is called ``bn1`` whatever its kind: the weights have these names."""

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1)
        self.bn1 = norm_layer(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(x)))


class Down(nn.Module):
    """Two convolutions at one resolution."""

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        middle = out_channels // 2
        self.ops = nn.Sequential(ConvNormReLU(in_channels, middle, norm), ConvNormReLU(middle, out_channels, norm))

    def forward(self, x: Tensor) -> Tensor:
        return self.ops(x)


class Up(nn.Module):
    """Transposed convolution 2x2x2 that keeps its channels, joined with the skip, two convolutions."""

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        joined = in_channels + out_channels
        self.up_conv = nn.ConvTranspose3d(in_channels, in_channels, kernel_size=2, stride=2)
        self.ops = nn.Sequential(
            ConvNormReLU(joined, out_channels, norm), ConvNormReLU(out_channels, out_channels, norm)
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.ops(torch.cat([self.up_conv(x), skip], dim=1))


class Output(nn.Module):
    """Convolution 1x1x1 to the output channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.final_conv = nn.Conv3d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.final_conv(x)


class UNet3d(nn.Module):
    """Volume (B, in_channels, X, Y, Z), sizes multiples of 8 -> (B, out_channels, X, Y, Z).

    ``norm``: bn, gn or in. ``final_act``: sigmoid or none.
    """

    def __init__(
        self, in_channels: int = 1, out_channels: int = 1, norm: str = "bn", final_act: str = "sigmoid"
    ) -> None:
        super().__init__()
        if final_act not in ("sigmoid", "none"):
            raise ValueError(f"unknown final_act {final_act!r}; known: sigmoid, none")
        self.final_act = final_act
        self.down_tr64 = Down(in_channels, 64, norm)
        self.down_tr128 = Down(64, 128, norm)
        self.down_tr256 = Down(128, 256, norm)
        self.down_tr512 = Down(256, 512, norm)
        self.up_tr256 = Up(512, 256, norm)
        self.up_tr128 = Up(256, 128, norm)
        self.up_tr64 = Up(128, 64, norm)
        self.out_tr = Output(64, out_channels)

    def encode(self, volume: Tensor) -> list[Tensor]:
        """Four features, shallow to deep: 64 channels at the volume's size to 512 at an eighth of it."""
        features = [self.down_tr64(volume)]
        for down in (self.down_tr128, self.down_tr256, self.down_tr512):
            features.append(down(F.max_pool3d(features[-1], 2)))
        return features

    def forward(self, volume: Tensor) -> Tensor:
        *skips, x = self.encode(volume)
        for up in (self.up_tr256, self.up_tr128, self.up_tr64):
            x = up(x, skips.pop())
        x = self.out_tr(x)
        return torch.sigmoid(x) if self.final_act == "sigmoid" else x
