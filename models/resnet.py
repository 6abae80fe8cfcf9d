"""ResNets as torchvision has them: the same names of the parameters, and the same initial values from the same seed.

Our own, since importing torchvision takes a second and more, and its channels cannot be divided.

Architecture: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (arXiv 1512.03385), with the stride
of a bottleneck in its 3x3 convolution.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.layers import BatchNorm2d, Conv2d

STEM_CHANNELS = 64
WIDTHS = (64, 128, 256, 512)  # of layer1 .. layer4, times the block's expansion
CLASSES = 1000  # of the classifier that torchvision's has


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to the input, which ``downsample`` fits to their output."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, channels, 3, stride)
        self.bn1 = BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv(channels, channels, 3)
        self.bn2 = BatchNorm2d(channels)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, channels, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += shortcut
        return self.relu(out)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, added to the input; the last one has four times the channels."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, channels, 1)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3, stride)
        self.bn2 = BatchNorm2d(channels)
        self.conv3 = _conv(channels, channels * self.expansion, 1)
        self.bn3 = BatchNorm2d(channels * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4 * channels, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        out += shortcut
        return self.relu(out)


# torchvision's names: the residual block, and how many of them make up layer1 .. layer4.
BACKBONES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], list[int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
}


class ResNet(nn.Module):
    """The layers of a ResNet before its pooling; all channels are divided by ``narrow``.

    ``channels``: of the maps of the stem and of layer1 .. layer4. ValueError if ``backbone`` is none of BACKBONES.
    """

    def __init__(self, backbone: str = "resnet18", narrow: int = 1) -> None:
        if backbone not in BACKBONES:
            raise ValueError(f"unknown backbone {backbone!r}; known: {', '.join(BACKBONES)}")
        super().__init__()
        block, blocks = BACKBONES[backbone]
        stem, widths = STEM_CHANNELS // narrow, [width // narrow for width in WIDTHS]
        self.backbone = backbone
        self.channels = (stem, *(width * block.expansion for width in widths))
        self.conv1 = Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _layer(block, inputs, width, number, stride)
            for inputs, width, number, stride in zip(self.channels, widths, blocks, (1, 2, 2, 2), strict=False)
        )
        nn.Linear(self.channels[-1], CLASSES)  # not kept: torchvision's draws its values here, before those that follow
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _layer(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, channels: int, number: int, stride: int
) -> nn.Sequential:
    """``number`` blocks, the first of them with the stride."""
    out_channels, downsample = channels * block.expansion, None
    if stride != 1 or in_channels != out_channels:
        downsample = nn.Sequential(_conv(in_channels, out_channels, 1, stride), BatchNorm2d(out_channels))
    first = block(in_channels, channels, stride, downsample)
    return nn.Sequential(first, *(block(out_channels, channels, 1, None) for _ in range(1, number)))
