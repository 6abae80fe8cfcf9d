"""The 3D U-Net for nnU-Net: weights for ``nnUNetv2_train -pretrained_weights``, and what its plans need beside them.

nnU-Net's PlainConvUNet cannot state this network: it has strided convolutions in place of max-pooling, one width a
level, and transposed convolutions that change the number of channels. ``standalone_nnunet.py`` states it exactly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from exporting.inputs import segmentation_of
from exporting.standalone_nnunet import CONFIGURATION, PLANS, SCALED, STRIDES, WINDOWED, Decoder, PCRLUNet3d
from utils.seeding import generator

MODULE, NETWORK = "pcrl_nnunet", "PCRLUNet3d"
# Names of their own: --weight must not take kernels that are turned for those of the 3D U-Net.
BLOCKS = {
    **{f"down_tr{width}": f"encoder.levels.{level}" for level, width in enumerate((64, 128, 256, 512))},
    **{f"up_tr{width}": f"decoder.levels.{level}" for level, width in enumerate((256, 128, 64))},
}
OF_CLASSES = ".seg_layers."  # of any number of classes: nnU-Net does not load them
PUBLISHED_WINDOW, PUBLISHED_SPACING = (-1000, 1000), (1.0, 1.0, 1.0)
IMPORT = re.compile(r"^from exporting\.standalone_unet3d import", re.MULTILINE)


def network_weights(state: Mapping[str, Tensor], in_channels: int, norm: str) -> dict[str, Tensor]:
    """Tensors of the 3D U-Net by the names of PCRLUNet3d, all that nnU-Net asks for, kernels in its axes z, y, x.

    Layers that ``state`` lacks get new values, by He et al., always the same. A first convolution of one channel is
    repeated over ``in_channels`` and divided by their number: a constant image then gives the same maps.
    """
    with torch.device("meta"):
        network = PCRLUNet3d(in_channels, 1, norm=norm)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items() if OF_CLASSES not in name}
    weights = {}
    for name, tensor in state.items():
        block, _, rest = name.partition(".")
        if block in BLOCKS:
            own = f"{BLOCKS[block]}.{rest}"
            turned = tensor.permute(0, 1, 4, 3, 2) if tensor.dim() == 5 else tensor
            weights[own] = turned if turned.shape == shapes[own] else turned.expand(shapes[own]) / in_channels
    if any(name not in weights for name in shapes):
        draws = torch.Generator().manual_seed(int(generator(0, "nnU-Net", "decoder").integers(2**62)))
        decoder = Decoder(1, norm, deep_supervision=False)
        decoder.apply(lambda layer: network.initialize(layer, draws))
        weights |= {f"decoder.{name}": tensor for name, tensor in decoder.state_dict().items()}
    return {name: weights[name].detach().clone(memory_format=torch.contiguous_format) for name in shapes}


def plans_fragment(
    in_channels: int, norm: str, options: Mapping[str, Any], run: Mapping[str, Any], z_normalised: bool
) -> dict[str, Any]:
    """What of nnU-Net's plans this network settles: layers, spacing, axes and intensities, as in its training."""
    segmentation = segmentation_of(options, run)
    windows = segmentation["windows"] if segmentation else [_window(run)]
    windows = windows * in_channels if len(windows) == 1 else windows
    spacing = segmentation["spacing_mm"] if segmentation else PUBLISHED_SPACING
    architecture = {
        "network_class_name": f"{MODULE}.{NETWORK}",
        "arch_kwargs": {"strides": STRIDES, "norm": norm, "z_normalised": z_normalised},
        "_kw_requires_import": [],
    }
    configuration = {
        "data_identifier": f"{PLANS}_{CONFIGURATION}",
        "spacing": [float(mm) for mm in reversed(spacing)],
        "normalization_schemes": [WINDOWED if window else SCALED for window in windows],
        "use_mask_for_norm": [False] * len(windows),
        "architecture": architecture,
    }
    return {
        "plans_name": PLANS,
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {
            str(number): _properties(*window) for number, window in enumerate(windows) if window
        },
        "configurations": {CONFIGURATION: configuration},
    }


def window_is_known(options: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """Whether the checkpoint tells the window of its images; else ``plans_fragment`` takes the published one."""
    return bool(segmentation_of(options, run) or _recipe(run))


def _recipe(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """The most frequent one of the crops that tells its window, if any does."""
    known = [*run.get("recipes", []), *run.get("windows", [])]
    return next((recipe for recipe in known if recipe.get("percentiles") or recipe.get("hu")), {})


def _window(run: Mapping[str, Any]) -> tuple[float, float] | None:
    """Of the crops, in Hounsfield units; as published, if it is not known; None: percentiles (MR)."""
    recipe = _recipe(run)
    if recipe.get("percentiles"):
        return None
    low, high = recipe.get("hu", PUBLISHED_WINDOW)
    return low, high


def _properties(low: float, high: float) -> dict[str, float]:
    """Intensities of a channel such that nnU-Net's CTNormalization clips to this window and makes it 0..1."""
    bounds = {"min": low, "percentile_00_5": low, "percentile_99_5": high, "max": high}
    return {"mean": low, "std": high - low, "median": (low + high) / 2, **bounds}


def definition(source: str) -> str:
    """The text of ``standalone_nnunet.py`` as it stands beside ``unet3d.py``, outside of this project."""
    return IMPORT.sub("from unet3d import", source)
