"""The PCRLv2 network, for 2D and 3D: a U-Net without skips, of whose decoder every block has three heads.

Paper: Zhou et al., "A Unified Visual Information Preservation Framework for Self-supervised Pre-training in Medical
Image Analysis", TPAMI 2023 (arXiv 2301.00772). A scale is a block of the decoder, numbered deep to shallow.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.build import build_unet
from models.unet import UNet, UNetNetwork
from models.unet3d import bf16_is_broken

HEADS_PREFIX = "heads."
INTERPOLATION = {2: "bilinear", 3: "trilinear"}


class Vectors(NamedTuple):
    """What a scale says of images, (B, C) each: the ``prediction`` of one view is compared with the others'
    ``projection``.
    """

    projection: Tensor
    prediction: Tensor


class Outputs(NamedTuple):
    """What the network makes of a batch.

    ``restored``: view 1, of its size. ``restorations``: of view 1 at each scale, of the scale's size; the one that was
    asked for has a gradient. ``view1``, ``view2``, ``locals``: vectors at each scale, (B, C), of locals (B, L, C).
    """

    restored: Tensor
    restorations: list[Tensor]
    view1: list[Vectors]
    view2: list[Vectors]
    locals: list[Vectors]


def _restoring_layers(dims: int, channels: int, out_channels: int) -> nn.Sequential:
    """The layers that restore an image from a map; the first two are a convolution and its batch normalisation."""
    if dims == 2:
        return nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, out_channels, 1),
        )
    conv, norm = nn.Conv3d(channels, out_channels, 3, padding=1), nn.BatchNorm3d(out_channels)
    return nn.Sequential(OrderedDict(conv1=conv, bn1=norm, activation=nn.Sigmoid()))


class ScaleHeads(nn.Module):
    """Projection, prediction and restoration of a map of ``channels``. The names are those of the published files."""

    def __init__(self, dims: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(channels)
        self.predictor_head = nn.Sequential(
            nn.Linear(channels, 2 * channels),
            nn.BatchNorm1d(2 * channels),
            nn.ReLU(inplace=True),
            nn.Linear(2 * channels, channels),
        )
        self.deep_supervision_head = _restoring_layers(dims, channels, out_channels)

    def vectors(self, feature_map: Tensor) -> Vectors:
        """Map (B, C, ...) -> its projection and prediction, (B, C)."""
        average = feature_map.mean(dim=tuple(range(2, feature_map.dim())))
        projection = self.bn(average.to(self.bn.weight.dtype))
        return Vectors(projection, self.predictor_head(projection))

    def restore(self, feature_map: Tensor) -> Tensor:
        """Map (B, C, ...) -> the restored image, of the map's size."""
        if feature_map.dim() == 5 and bf16_is_broken(feature_map):
            with torch.autocast("cpu", enabled=False):
                return self.deep_supervision_head(feature_map.float())
        return self.deep_supervision_head(feature_map)

    @torch.no_grad()
    def follow(self, feature_map: Tensor) -> None:
        """Update the running statistics of the restoration head with a map whose restoration is not used."""
        self.deep_supervision_head[:2](feature_map)


class PCRLv2Network(UNetNetwork):
    """A U-Net without skips and the heads of its scales. All of a step's work on a batch is one forward."""

    def __init__(self, unet: UNet, out_channels: int) -> None:
        super().__init__(unet)
        self.heads = nn.ModuleList(ScaleHeads(unet.dims, channels, out_channels) for channels in unet.map_channels)
        if unet.dims == 2:
            _initialise(self.heads)

    def forward(self, view1: Tensor, view2: Tensor, local_views: Tensor, scale: int) -> Outputs:
        """Views (B, C, ...), local views (B, L, C, ...); ``scale``: where view 1 is restored with a gradient.

        View 1 passes first, then view 2, then the local views of all images in one pass, local by local. Every head
        sees every pass, since its running statistics follow all of them.
        """
        count = local_views.shape[1]
        images = [view1, view2, local_views.transpose(0, 1).flatten(0, 1)]
        deepest = [self.unet.encode(image)[-1] for image in images]
        vectors: list[list[Vectors]] = [[], [], []]
        restorations = []
        for number, (heads, maps) in enumerate(zip(self._heads(), self.unet.decode_maps(deepest), strict=True)):
            for of_pass, feature_map in zip(vectors, maps, strict=True):
                of_pass.append(heads.vectors(feature_map))
            with torch.set_grad_enabled(torch.is_grad_enabled() and number == scale):
                restorations.append(heads.restore(maps[0]))
            for feature_map in maps[1:]:
                heads.follow(feature_map)
        of_locals = [Vectors(*(v.unflatten(0, (count, -1)).transpose(0, 1) for v in each)) for each in vectors[2]]
        return Outputs(self.unet.output_layer()(maps[0]), restorations, vectors[0], vectors[1], of_locals)

    def _heads(self) -> Iterator[ScaleHeads]:
        for heads in self.heads:
            assert isinstance(heads, ScaleHeads)
            yield heads

    def published_name(self, name: str) -> str:
        """In files a scale's heads lie in its block."""
        if not name.startswith(HEADS_PREFIX):
            return super().published_name(name)
        number, rest = name.removeprefix(HEADS_PREFIX).split(".", 1)
        block = (
            f"model.decoder.blocks.{number}"
            if self.dims == 2
            else f"up_tr{self.unet.map_channels[int(number)] * self.unet.narrow}"
        )
        return f"{block}.{rest}"


def enlarge(image: Tensor, size: torch.Size) -> Tensor:
    """A scale's restoration (B, C, ...), interpolated linearly to the spatial ``size`` of the view."""
    if image.shape[2:] == size:
        return image
    return F.interpolate(image, size=list(size), mode=INTERPOLATION[len(size)], align_corners=False)


def _initialise(heads: nn.Module) -> None:
    """The initial values of the 2D heads, from torch's global generator; in 3D they are PyTorch's own."""
    for module in heads.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)


def build_network(
    dims: int, in_channels: int, out_channels: int, final_act: str, backbone: str = "resnet18", narrow: int = 1
) -> PCRLv2Network:
    """The 2D (on a ResNet) or 3D network, with initial values from torch's global generator; batch normalisation.

    ``backbone`` counts in 2D alone. ``narrow``: what the U-Net's channels are divided by.
    """
    unet = build_unet(dims, in_channels, out_channels, "bn", final_act, backbone, skips=False, narrow=narrow)
    return PCRLv2Network(unet, out_channels)
