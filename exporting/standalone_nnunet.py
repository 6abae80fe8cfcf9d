"""The 3D U-Net that PCRL pre-trains as a network of nnU-Net. This file and unet3d.py belong on PYTHONPATH.

    python pcrl_nnunet.py nnUNet_preprocessed/Dataset004_Hippocampus/nnUNetPlans.json

writes PCRLPlans.json beside nnU-Net's own plans: these plans, with this network and the input of its pre-training
(plans.json beside this file). README.md has the commands that follow. All axes are nnU-Net's: z, y, x.

Copyright (c) 2026 The PCRL maintainers. SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exporting.standalone_unet3d import Down, Up

PLANS, CONFIGURATION = "PCRLPlans", "3d_fullres"
STRIDES = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]  # nnU-Net reads the sizes of its targets from these
MULTIPLE, SMALLEST, LARGEST = 8, 32, 128  # of a patch's sides, in voxels
WINDOWED, SCALED = "CTNormalization", "RescaleTo01Normalization"  # names of nnU-Net's


class Encoder(nn.Module):
    """Volume (B, C, Z, Y, X) -> four maps, of 64 channels at its size to 512 at an eighth of it."""

    def __init__(self, in_channels: int, norm: str, z_normalised: bool) -> None:
        super().__init__()
        self.z_normalised = z_normalised
        widths = [in_channels, 64, 128, 256, 512]
        self.levels = nn.ModuleList(Down(*pair, norm) for pair in pairwise(widths))

    def forward(self, volume: Tensor) -> list[Tensor]:
        if self.z_normalised:  # each channel of each patch, as in the pre-training
            std, mean = torch.std_mean(volume, dim=(2, 3, 4), keepdim=True)
            volume = (volume - mean) / std.clamp(min=0.001)
        maps: list[Tensor] = []
        for level in self.levels:
            maps.append(level(F.max_pool3d(maps[-1], 2) if maps else volume))
        return maps


class Decoder(nn.Module):
    """The encoder's maps -> logits (B, classes, Z, Y, X); with deep supervision a list, of halved sizes."""

    def __init__(self, num_classes: int, norm: str, deep_supervision: bool) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision  # nnU-Net switches it
        widths = [512, 256, 128, 64]
        self.levels = nn.ModuleList(Up(*pair, norm) for pair in pairwise(widths))
        # nnU-Net takes all layers from -pretrained_weights but those of this name.
        self.seg_layers = nn.ModuleList(nn.Conv3d(channels, num_classes, 1) for channels in widths[1:])

    def forward(self, maps: list[Tensor]) -> Tensor | list[Tensor]:
        *skips, x = maps
        logits = []
        for level, layer in zip(self.levels, self.seg_layers, strict=True):
            x = level(x, skips.pop())
            if self.deep_supervision or not skips:
                logits.append(layer(x))
        return logits[::-1] if self.deep_supervision else logits[0]


class PCRLUNet3d(nn.Module):
    """Volume (B, input_channels, Z, Y, X), sizes multiples of 8 -> logits, as nnU-Net wants them.

    ``strides``: STRIDES, which nnU-Net reads from the plans. ``norm``: bn, gn or in. ``z_normalised``: whether each
    channel of each patch is normalised to mean 0 and deviation 1 before the first layer.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        strides: list[list[int]] = STRIDES,
        norm: str = "bn",
        z_normalised: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if [list(stride) for stride in strides] != STRIDES:
            raise ValueError(f"the strides of this network are {STRIDES}, not {strides}")
        self.encoder = Encoder(input_channels, norm, z_normalised)
        self.decoder = Decoder(num_classes, norm, deep_supervision)

    def forward(self, volume: Tensor) -> Tensor | list[Tensor]:
        return self.decoder(self.encoder(volume))

    @staticmethod
    def initialize(module: nn.Module, generator: torch.Generator | None = None) -> None:
        """The initial values of a layer, by He et al. (2015), as nnU-Net's networks have them; nnU-Net calls it."""
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def pcrl_plans(planned: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """nnU-Net's plans of a dataset, with the network and the input of plans.json; ValueError if they don't fit.

    Spacing and patch are those of plans.json where it has them. A patch then covers the same millimetres as nnU-Net's,
    in multiples of 8 voxels, 32 to 128 a side. Channels that nnU-Net takes for CT are cut to the pre-training's window
    and scaled to 0..1, others scaled from their minimum and maximum.
    """
    if CONFIGURATION not in planned.get("configurations", {}):
        raise ValueError(f"no plans of nnU-Net with a configuration {CONFIGURATION}")
    theirs, own = planned["configurations"][CONFIGURATION], ours["configurations"][CONFIGURATION]
    schemes, channels = theirs["normalization_schemes"], len(own["normalization_schemes"])
    if len(schemes) != channels:
        count = len(schemes)
        raise ValueError(f"{count} input channels, the weights have {channels}; export with --inchannel {count}")
    windows = {
        number: ours["foreground_intensity_properties_per_channel"].get(number) or _scaled(known)
        for number, known in planned["foreground_intensity_properties_per_channel"].items()
    }
    spacing = own.get("spacing", _turned(theirs["spacing"], planned))
    ratios = [old / new for old, new in zip(_turned(theirs["spacing"], planned), spacing, strict=True)]
    sides = [voxels * ratio for voxels, ratio in zip(_turned(theirs["patch_size"], planned), ratios, strict=True)]
    median = _turned(theirs["median_image_size_in_voxels"], planned)
    configuration = {
        **theirs,
        "spacing": spacing,
        "patch_size": [min(LARGEST, max(SMALLEST, MULTIPLE * round(side / MULTIPLE))) for side in sides],
        "median_image_size_in_voxels": [voxels * ratio for voxels, ratio in zip(median, ratios, strict=True)],
        **own,
        "normalization_schemes": [WINDOWED if scheme == WINDOWED else SCALED for scheme in schemes],
    }
    return {
        **planned,
        **ours,
        "original_median_spacing_after_transp": _turned(planned["original_median_spacing_after_transp"], planned),
        "original_median_shape_after_transp": _turned(planned["original_median_shape_after_transp"], planned),
        "foreground_intensity_properties_per_channel": windows,
        "configurations": {CONFIGURATION: configuration},
    }


def _turned(values: list[Any], planned: dict[str, Any]) -> list[Any]:
    """Numbers of each axis, from the order of the plans back to the order of the files (z, y, x)."""
    return [values[axis] for axis in planned["transpose_backward"]]


def _scaled(known: dict[str, Any]) -> dict[str, Any]:
    """A channel's intensities such that nnU-Net scales its own window to 0..1."""
    low, high = known["percentile_00_5"], known["percentile_99_5"]
    return {**known, "mean": low, "std": high - low}


def main(arguments: list[str]) -> None:
    """Write PCRLPlans.json beside the plans that are named."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.exit("usage: python pcrl_nnunet.py nnUNet_preprocessed/DatasetXXX_NAME/nnUNetPlans.json")
    path = Path(arguments[0])
    target = path.with_name(f"{PLANS}.json")
    if target.exists():
        sys.exit(f"{target}: is there already; delete it to have it written anew")
    ours = json.loads(Path(__file__).with_name("plans.json").read_text(encoding="utf-8"))
    try:
        plans = pcrl_plans(json.loads(path.read_text(encoding="utf-8")), ours)
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}; nnUNetv2_plan_and_preprocess writes it")
    except ValueError as error:
        sys.exit(f"{path}: {error}")
    target.write_text(json.dumps(plans, indent=4), encoding="utf-8")
    own = plans["configurations"][CONFIGURATION]
    schemes = ", ".join(own["normalization_schemes"])
    print(f"{target}: spacing {own['spacing']} mm, patch {own['patch_size']} (z, y, x), {schemes}")


if __name__ == "__main__":
    main(sys.argv[1:])
