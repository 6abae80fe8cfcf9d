"""A checkpoint's networks under the names of the libraries that load them elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from exporting.nnunet import network_weights
from exporting.standalone_unet3d import UNet3d
from models.resnet import BACKBONES
from models.unet2d import UNet2d
from models.weight_files import resnet_name
from models.weights import bare_tensors, checkpoint_options
from utils.errors import UserError
from utils.text import counted

NNUNET = "nnunet"
# Dimensions, and the library.
TARGETS = {
    "torchvision": (2, "torchvision"),
    "timm": (2, "timm"),
    "smp": (2, "segmentation-models-pytorch"),
    "unet3d": (3, "pytorch"),
    NNUNET: (3, "nnunetv2"),
}
DEFAULT_TARGET = {2: "torchvision", 3: "unet3d"}
ENCODER_2D = re.compile(r"(conv1|bn1|layer[1-4])\.")
DECODER_2D = re.compile(r"blocks\.")
STEM, FIRST_3D, OUTPUT_3D = "conv1.weight", "down_tr64.ops.0.conv1.weight", "out_tr.final_conv.weight"


@dataclass(frozen=True)
class Portable:
    """``state``: tensors by the names of ``target``. ``architecture``: resnet18 .. or unet3d.

    ``out_channels``: of the 3D reconstruction or of the classes. ``decoder``: whether ``state`` has the checkpoint's.
    ``norm`` and ``final_act``: as the options of the same names. ``segments``: whether the outputs are logits of
    classes. ``new``: tensors of ``state`` that the checkpoint lacks.
    """

    target: str
    architecture: str
    state: dict[str, Tensor]
    in_channels: int
    out_channels: int = 1
    decoder: bool = False
    norm: str = "bn"
    final_act: str = "none"
    segments: bool = False
    new: int = 0

    @property
    def dims(self) -> int:
        """Spatial dimensions, 2 or 3."""
        return TARGETS[self.target][0]

    @property
    def file(self) -> str:
        """What the weight file is called."""
        if self.target == NNUNET:
            return "nnunet.pth"
        return f"unet_{self.architecture}.pt" if self.target == "smp" else f"{self.architecture}.pt"

    @property
    def content(self) -> dict[str, Any]:
        """What the weight file holds."""
        return {"network_weights": self.state} if self.target == NNUNET else self.state


def make_portable(
    checkpoint: Any, target: str | None = None, teacher: bool = False, inchannel: int | None = None
) -> Portable:
    """The student of a checkpoint, or its teacher, for ``target`` (by default the one of its dimensions).

    ``inchannel``: channels of the images that nnU-Net will give it (by default the checkpoint's).
    UserError if there is no such network in it, or it is not of the target's kind.
    """
    if teacher and not (isinstance(checkpoint, Mapping) and "model_ema" in checkpoint):
        raise UserError("holds no teacher (model_ema); leave --teacher out")
    narrow = checkpoint_options(checkpoint).get("narrow", 1)
    if narrow != 1:
        raise UserError(f"its network has --narrow {narrow}, which no library supports; export a run with --narrow 1")
    tensors = bare_tensors(checkpoint["model_ema"] if teacher else checkpoint)
    dims = 3 if FIRST_3D in tensors else 2 if STEM in tensors else None
    if dims is None:
        raise UserError(f"holds neither a ResNet nor the 3D U-Net (its named tensors: {len(tensors)})")
    target = target or DEFAULT_TARGET[dims]
    if TARGETS[target][0] != dims:
        known = ", ".join(name for name, (of, _) in TARGETS.items() if of == dims)
        raise UserError(f"holds a {dims}D network, --target {target} is {TARGETS[target][0]}D; choose from {known}")
    tensors = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    if dims == 2:
        return _portable_2d(tensors, target)
    portable = _portable_3d(tensors, checkpoint_options(checkpoint))
    return _for_nnunet(portable, inchannel or portable.in_channels) if target == NNUNET else portable


def _for_nnunet(portable: Portable, in_channels: int) -> Portable:
    if portable.in_channels not in (1, in_channels):
        raise UserError(f"reads {portable.in_channels} channels, of which --inchannel {in_channels} cannot be made")
    state = network_weights(portable.state, in_channels, portable.norm)
    new = 0 if portable.decoder else sum(name.startswith("decoder.") for name in state)
    return replace(portable, target=NNUNET, state=state, in_channels=in_channels, new=new)


def _portable_2d(tensors: dict[str, Tensor], target: str) -> Portable:
    encoder = {name: tensor for name, tensor in tensors.items() if ENCODER_2D.match(name)}
    architecture, in_channels = resnet_name(encoder), encoder[STEM].shape[1]
    if architecture not in BACKBONES:
        raise UserError(f"its encoder ({counted(len(encoder), 'tensor')}) is none of {', '.join(BACKBONES)}")
    if target != "smp":
        return Portable(target, architecture, encoder, in_channels)
    decoder = {f"decoder.{name}": tensor for name, tensor in tensors.items() if DECODER_2D.match(name)}
    if not decoder:
        raise UserError("holds no decoder; --target torchvision or timm takes the encoder alone")
    with torch.device("meta"):
        known = _shapes(UNet2d(in_channels, backbone=architecture).decoder.state_dict())
    if _shapes(decoder) != {f"decoder.{name}": shape for name, shape in known.items()}:
        raise UserError(
            "its decoder is not the U-Net's that segmentation_models_pytorch has; --target torchvision or timm takes "
            "the encoder alone"
        )
    state = {f"encoder.{name}": tensor for name, tensor in encoder.items()} | decoder
    return Portable(target, architecture, state, in_channels, decoder=True)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def _portable_3d(tensors: dict[str, Tensor], options: dict[str, Any]) -> Portable:
    in_channels = tensors[FIRST_3D].shape[1]
    out_channels = len(tensors[OUTPUT_3D]) if OUTPUT_3D in tensors else 1
    norm = _norm(tensors, options)
    with torch.device("meta"):
        shapes = _shapes(UNet3d(in_channels, out_channels, norm).state_dict())
    state = {name: tensors[name] for name, shape in shapes.items() if name in tensors and tensors[name].shape == shape}
    missing = [name for name in shapes if name not in state]
    if any(name.startswith("down_") for name in missing):
        raise UserError(f"its 3D U-Net differs from ours: {len(missing)} tensors do not fit, the first is {missing[0]}")
    if missing:  # fine-tuned on whole volumes' labels, say: the encoder alone
        state = {name: tensor for name, tensor in state.items() if name.startswith("down_")}
    reconstructs = options.get("phase", "pretask") == "pretask"  # else its outputs are logits
    final_act = "sigmoid" if reconstructs and options.get("final_act") != "none" else "none"
    segments = not reconstructs and not missing
    return Portable("unet3d", "unet3d", state, in_channels, out_channels, not missing, norm, final_act, segments)


def _norm(tensors: dict[str, Tensor], options: dict[str, Any]) -> str:
    """Group and instance normalisation have the same tensors: which it is only the options tell."""
    if FIRST_3D.replace("conv1.weight", "bn1.running_mean") in tensors:
        return "bn"
    norm = options.get("norm")
    if norm not in ("gn", "in"):
        raise UserError("its normalisation is gn or in, but its options (opt) do not say which; it cannot be exported")
    return norm
