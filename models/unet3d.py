"""The 3D backbone: a U-Net of four levels (as in Models Genesis)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from models.layers import OPERATORS, Convolution, before_norm, norm_layer, with_zero_gradients
from models.recompute import lean_convolve
from models.shared import Prepared, shared
from models.unet import UNet
from models.upconv import Mixture, is_composed, prepare, upsample_convolve

DIMS = 3
# Maps whose bf16 gradients on the CPU cannot be used, because oneDNN 3 reads memory there that nobody has written: of
# 3 x 3 x 3 kernels with 2 voxels in x (AVX512-BF16), and of upsampling convolutions with 1 voxel in z (AMX).
BROKEN_IN_BF16, BROKEN_IN_UPSAMPLING = 2, 1


def bf16_is_broken(x: Tensor, upsampled: int = 1) -> bool:
    """Whether convolutions of (B, C, x, y, z), ``upsampled`` so many times, must be computed in float32."""
    broken = x.shape[2] * upsampled == BROKEN_IN_BF16 or (upsampled > 1 and x.shape[4] == BROKEN_IN_UPSAMPLING)
    return broken and x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


class ConvNormReLU(nn.Module):
    """The layers conv3x3x3, norm, ReLU. The norm is called ``bn1`` whatever its kind: files speak these names."""

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.conv1 = OPERATORS[DIMS].conv(in_channels, out_channels, kernel_size=3, padding=1)
        self.bn1 = norm_layer(norm, out_channels, DIMS)
        self.activation = nn.ReLU(inplace=True)

    def convolution(self) -> Callable[[Tensor], Tensor]:
        """The convolution alone, for one use of its weights, as its norm lets it be computed."""
        weight, bias = shared(self.conv1.weight), before_norm(shared(self.conv1.bias), self.bn1)
        return lambda x: OPERATORS[DIMS].convolve(x, weight, bias, padding=1)


class ConvPair(nn.Sequential):
    """Two convolutions at one resolution, each with norm and ReLU."""

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, norm: str) -> None:
        super().__init__(ConvNormReLU(in_channels, mid_channels, norm), ConvNormReLU(mid_channels, out_channels, norm))

    def layers(self) -> list[ConvNormReLU]:
        return cast(list[ConvNormReLU], list(self))

    def biases(self) -> list[tuple[Convolution, nn.Module]]:
        """The convolutions, and the norms that follow them."""
        return [(layer.conv1, layer.bn1) for layer in self.layers()]

    def forward(self, x: Tensor) -> Tensor:
        return self.after_first(self.layers()[0].convolution()(x))

    def after_first(self, convolved: Tensor) -> Tensor:
        """All that follows the first convolution."""
        first, second = self.layers()
        return second.activation(
            second.bn1(lean_convolve(first.bn1, first.activation, second.convolution(), convolved))
        )


class DownTransition(nn.Module):
    """Two convolutions at one resolution."""

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.ops = ConvPair(in_channels, mid_channels, out_channels, norm)

    def forward(self, x: Tensor) -> Tensor:
        if bf16_is_broken(x):
            with torch.autocast("cpu", enabled=False):
                return self.ops(x.float())
        return self.ops(x)


class UpTransition(nn.Module):
    """Transposed conv 2x2x2/2 that keeps its channels, joined with the skip (if any), two convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.up_conv = OPERATORS[DIMS].transposed_conv(in_channels, in_channels, kernel_size=2, stride=2)
        self.ops = ConvPair(in_channels + skip_channels, out_channels, out_channels, norm)

    def forward(self, passes: list[Tensor], skip: Mixture | None) -> list[Tensor]:
        """The passes' maps (B, C, x, y, z) and the mixture of their skips -> (B, out_channels, 2x, 2y, 2z) each."""
        if any(bf16_is_broken(x, upsampled=2) for x in passes):
            with torch.autocast("cpu", enabled=False):
                return self([x.float() for x in passes], skip and skip.map(Tensor.float))
        first, _ = self.ops.layers()
        bias = before_norm(first.conv1.bias, first.bn1)
        return [self.ops.after_first(x) for x in upsample_convolve(passes, skip, self.up_conv, first.conv1, bias)]

    def prepare(self) -> tuple[nn.Module, Prepared, list[Tensor]]:
        """What is made of the first convolution's weights, whatever is decoded."""
        (first, _), up = self.ops.layers(), self.up_conv
        bias = before_norm(first.conv1.bias, first.bn1)
        made = prepare(up, first.conv1, bias, up.in_channels)
        return first.conv1, made, [first.conv1.weight, *(up.parameters() if is_composed(up) else ())]


class OutputTransition(nn.Module):
    """conv1x1x1 to the output channels, then the final activation."""

    def __init__(self, in_channels: int, out_channels: int, final_act: str) -> None:
        super().__init__()
        self.final_conv = OPERATORS[DIMS].conv(in_channels, out_channels, kernel_size=1)
        self.activation = nn.Sigmoid() if final_act == "sigmoid" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.final_conv(x))


class UNet3d(UNet):
    """3D U-Net. ``encode`` gives features shallow to deep, ``decode`` a map of the volume's size.

    ``narrow``: what all channels but those of the volumes are divided by.
    """

    dims = 3
    feature_channels: tuple[int, ...] = (64, 128, 256, 512)
    map_channels: tuple[int, ...] = (256, 128, 64)
    size_multiple = (8, 8, 8)

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        norm: str = "bn",
        final_act: str = "sigmoid",
        skips: bool = True,
        narrow: int = 1,
    ) -> None:
        super().__init__()
        self.skips, self.narrow = skips, narrow
        self.map_channels = tuple(channels // narrow for channels in UNet3d.map_channels)
        self.feature_channels = tuple(channels // narrow for channels in UNet3d.feature_channels)
        c64, c128, c256, c512 = self.feature_channels
        self.pool = OPERATORS[DIMS].max_pool(2)
        self.down_tr64 = DownTransition(in_channels, c64 // 2, c64, norm)
        self.down_tr128 = DownTransition(c64, c64, c128, norm)
        self.down_tr256 = DownTransition(c128, c128, c256, norm)
        self.down_tr512 = DownTransition(c256, c256, c512, norm)
        self.up_tr256 = UpTransition(c512, c256 * skips, c256, norm)
        self.up_tr128 = UpTransition(c256, c128 * skips, c128, norm)
        self.up_tr64 = UpTransition(c128, c64 * skips, c64, norm)
        self.out_tr = OutputTransition(c64, out_channels, final_act)

    def encode(self, volume: Tensor) -> list[Tensor]:
        """Volume (B, in_channels, X, Y, Z), sizes multiples of 8 -> four features, shallow to deep."""
        features = [self.down_tr64(volume)]
        for transition in (self.down_tr128, self.down_tr256, self.down_tr512):
            features.append(transition(self.pool(features[-1])))
        downs = (self.down_tr64, self.down_tr128, self.down_tr256, self.down_tr512)
        features[-1] = with_zero_gradients(features[-1], [pair for down in downs for pair in down.ops.biases()])
        return features

    def decode_maps(self, passes: list[Tensor], skips: Sequence[Mixture] = ()) -> Iterator[list[Tensor]]:
        first, *others = passes
        ups = (self.up_tr256, self.up_tr128, self.up_tr64)
        first = with_zero_gradients(first, [pair for up in ups for pair in up.ops.biases()])
        return super().decode_maps([first, *others], skips)

    def drop_decoder(self) -> None:
        del self.up_tr256, self.up_tr128, self.up_tr64, self.out_tr

    def up_blocks(self) -> tuple[nn.Module, ...]:
        return self.up_tr256, self.up_tr128, self.up_tr64

    def output_layer(self) -> nn.Module:
        return self.out_tr
