"""The 2D backbone: a U-Net on a ResNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import BatchNorm2d, Conv2d
from models.recompute import lean_convolve
from models.resnet import ResNet
from models.shared import Prepared, shared
from models.unet import UNet
from models.upconv import Mixture, prepare, upsample_convolve

DECODER_CHANNELS = (256, 128, 64, 32, 16)


class ResNetEncoder(ResNet):
    """A ResNet, whose ``forward`` gives the maps of its layers, and that may read other than 3 channels."""

    def __init__(self, in_channels: int, backbone: str = "resnet18", narrow: int = 1) -> None:
        super().__init__(backbone, narrow)
        if in_channels != 3:
            self.conv1 = Conv2d(in_channels, self.channels[0], 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (B, C, H, W) -> five features, shallow to deep: stem (H/2) to layer4 (H/32)."""
        features = [self.relu(self.bn1(self.conv1(image)))]
        deeper = self.maxpool(features[0])
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            deeper = layer(deeper)
            features.append(deeper)
        return features


def _conv_norm_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_uniform_(conv.weight, mode="fan_in", nonlinearity="relu")
    return nn.Sequential(conv, BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def _convolution(conv: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    """A convolution of kernel 3, for one use of its weights."""
    weight = shared(conv.weight)
    return lambda x: F.conv2d(x, weight, padding=1)


class DecoderBlock(nn.Module):
    """Nearest upsampling by 2, joined with the skip, two conv3x3 + BN + ReLU."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.conv1 = _conv_norm_relu(in_channels + skip_channels, out_channels)
        self.conv2 = _conv_norm_relu(out_channels, out_channels)

    def forward(self, passes: list[Tensor], skip: Mixture | None) -> list[Tensor]:
        """The passes' maps (B, C, h, w) and the mixture of their skips -> (B, out_channels, 2h, 2w) each."""
        conv, norm, activation = self.conv1
        next_conv, *rest = self.conv2
        maps = []
        for x in upsample_convolve(passes, skip, None, cast(nn.Conv2d, conv), None):
            convolve = _convolution(cast(nn.Conv2d, next_conv))
            maps.append(nn.Sequential(*rest)(lean_convolve(norm, activation, convolve, x)))
        return maps

    def prepare(self) -> tuple[nn.Module, Prepared, list[Tensor]]:
        """What is made of the first convolution's weights, whatever is decoded."""
        conv = cast(nn.Conv2d, self.conv1[0])
        return conv, prepare(None, conv, None, self.in_channels), [conv.weight]


class Decoder(nn.Module):
    """The blocks, deep to shallow; the last one has no skip, and none has if not ``skips``."""

    def __init__(self, encoder_channels: Sequence[int], skips: bool = True, narrow: int = 1) -> None:
        super().__init__()
        deep_to_shallow = list(reversed(encoder_channels))
        outputs = [channels // narrow for channels in DECODER_CHANNELS]
        inputs = [deep_to_shallow[0], *outputs[:-1]]
        skip_channels = [*deep_to_shallow[1:], 0] if skips else [0] * len(inputs)
        self.blocks = nn.ModuleList(
            DecoderBlock(*channels) for channels in zip(inputs, skip_channels, outputs, strict=True)
        )


class UNet2d(UNet):
    """ResNet U-Net. ``encode`` gives features shallow to deep, ``decode`` a map of the image's size.

    ``narrow``: what all channels but those of the images are divided by.
    """

    dims = 2
    map_channels: tuple[int, ...] = DECODER_CHANNELS
    size_multiple = (32, 32)

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        final_act: str = "none",
        backbone: str = "resnet18",
        skips: bool = True,
        narrow: int = 1,
    ) -> None:
        super().__init__()
        self.skips, self.narrow = skips, narrow
        self.map_channels = tuple(channels // narrow for channels in DECODER_CHANNELS)
        self.encoder = ResNetEncoder(in_channels, backbone, narrow)
        self.feature_channels = self.encoder.channels
        self.decoder = Decoder(self.feature_channels, skips, narrow)
        output = Conv2d(self.map_channels[-1], out_channels, 3, padding=1)
        nn.init.xavier_uniform_(output.weight)
        nn.init.zeros_(output.bias)  # type: ignore[arg-type]  # there is one
        self.segmentation_head = nn.Sequential(output, *([nn.Sigmoid()] if final_act == "sigmoid" else []))

    def encode(self, image: Tensor) -> list[Tensor]:
        """Image (B, in_channels, H, W), H and W multiples of 32 -> five features, shallow to deep."""
        return self.encoder(image)

    def library_parts(self) -> dict[str, dict[str, Tensor]]:
        """The encoder under torchvision's names, the decoder under segmentation_models_pytorch's."""
        parts = {"state_dict": self.encoder.state_dict()}
        return parts | ({"decoder_state_dict": self.decoder.state_dict()} if hasattr(self, "decoder") else {})

    def drop_decoder(self) -> None:
        del self.decoder, self.segmentation_head

    def up_blocks(self) -> nn.ModuleList:
        return self.decoder.blocks

    def output_layer(self) -> nn.Module:
        return self.segmentation_head
