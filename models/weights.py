"""Starting from existing weights: our checkpoints, the published code's and its kin's, or an encoder alone."""

from __future__ import annotations

import pickle
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor

from models.unet import UNetNetwork, load_published_state, published_state
from models.unet2d import UNet2d
from utils import torch_file
from utils.console import warn
from utils.errors import UserError
from utils.text import counted

# What a network's parts sit in, in files: DataParallel, our names, other projects'.
WRAPPERS = re.compile(r"^((module|model|base_model|encoder|decoder|unet|backbone)\.)+")
# The parts of a pre-trained network that tasks may do without, by their bare names in 2D and 3D.
DECODER = re.compile(r"(blocks|segmentation_head|up_tr\d+|out_tr)\.")
HEADS = re.compile(r"(aug_)?fc[12]\.")
IMAGENET = "imagenet"  # --weight imagenet: torchvision's ResNet
ENCODER_LAYER = "model.encoder.layer"  # of a 2D network: all that backbones differ in
ENCODER = ("model.encoder.", "down_tr")  # of a network in 2D and 3D
ENOUGH = 0.5  # of the encoder's convolutions: a file with fewer of them is another encoder's


@dataclass(frozen=True)
class WeightReport:
    """Names (published) that were ``used``, those of the network that were ``missing``, and what was ``unexpected``.

    ``reshaped``: those of the network that have another shape in the file. ``unneeded``: those of the unexpected ones
    that belong to parts of pre-training which this network does without. ``made``: what the file tells of the run that
    made it, ``opt``, ``run``, ``epoch``, ``step``, ``list_sha256`` (docs/CHECKPOINTS.md); empty for a file of others.
    """

    used: list[str]
    missing: list[str]
    reshaped: list[str]
    unexpected: list[str]
    unneeded: list[str]
    made: dict[str, Any]

    def __str__(self) -> str:
        def some(names: list[str], what: str) -> str:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            return f"{len(names)} {what}" + (f" ({shown})" if names else "")

        parts = [counted(len(self.used), "tensor") + " used"]
        if self.missing or not self.reshaped:
            parts.append(some(self.missing, "missing"))
        if self.reshaped:
            parts.append(some(self.reshaped, "of another shape, so new"))
        if self.unneeded:
            decoder = "decoder" if any(DECODER.match(name) for name in self.unneeded) else ""
            heads = "heads" if any(HEADS.match(name) for name in self.unneeded) else ""
            whose = " and ".join(filter(None, (decoder, heads)))
            parts.append(f"pre-training's {whose} ({counted(len(self.unneeded), 'tensor')}) not needed here")
        strange = [name for name in self.unexpected if name not in self.unneeded]
        if strange or not (self.unneeded or self.reshaped):
            parts.append(some(strange, "unexpected"))
        return "; ".join(parts)


def bare_name(name: str) -> str:
    """``module.model.encoder.conv1.weight`` -> ``conv1.weight``: the same, whoever wrote the file."""
    return WRAPPERS.sub("", name)


def _named_tensors(part: Any) -> dict[str, Tensor]:
    entries = part.items() if isinstance(part, Mapping) else ()
    return {str(name): value for name, value in entries if isinstance(value, Tensor)}


def bare_tensors(checkpoint: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint's network by their bare names: of ``model``, the whole, if there is one."""
    entries = checkpoint if isinstance(checkpoint, Mapping) else {}
    whole, state, decoder = (_named_tensors(entries.get(key)) for key in ("model", "state_dict", "decoder_state_dict"))
    tensors: dict[str, Tensor] = {}
    for name, tensor in (whole or state | decoder or _named_tensors(entries)).items():
        bare = bare_name(name)
        tensors[name if bare in tensors else bare] = tensor
    return tensors


def _imagenet(network: UNetNetwork) -> dict[str, Tensor]:
    """torchvision's ImageNet weights of the network's ResNet, downloaded once by torch.hub."""
    if not isinstance(network.unet, UNet2d):
        raise UserError(f"--weight {IMAGENET}: those are weights of a 2D network, not of a {network.dims}D one")
    weights = torchvision.models.get_model_weights(network.unet.encoder.backbone).DEFAULT
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:  # no network; a file that is another than it says
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"--weight {IMAGENET}: {weights.url} cannot be downloaded ({reason}); download it elsewhere and give the "
            f"file, --weight FILE"
        ) from None


def _made(checkpoint: Any) -> dict[str, Any]:
    """What a checkpoint of this project tells of its run."""
    entries = checkpoint if isinstance(checkpoint, Mapping) else {}
    kinds = {"opt": Mapping, "run": Mapping, "epoch": int, "step": int, "list_sha256": str}
    return {key: entries[key] for key, kind in kinds.items() if isinstance(entries.get(key), kind)}


def load_weights(network: UNetNetwork, path: str | Path) -> WeightReport:
    """Copy into ``network`` what fits by name and shape. ``path``: a file, or IMAGENET.

    UserError if nothing fits, or the file is of a network of other dimensions or with another encoder.
    """
    checkpoint = _imagenet(network) if path == IMAGENET else torch_file.load(path)
    tensors, made = bare_tensors(checkpoint), _made(checkpoint)
    own = published_state(network)
    full_names = {bare_name(name): name for name in own}
    used: dict[str, Tensor] = {}
    reshaped, unexpected = [], []
    for name, tensor in tensors.items():
        target = full_names.get(name)
        if target is None:
            unexpected.append(name)
        elif own[target].shape != tensor.shape:
            reshaped.append(target)
        else:
            used[target] = tensor
    _check_dims(network, path, tensors)
    if not used:
        raise UserError(
            f"{path}: none of its {len(tensors)} tensors fits this {network.dims}D network by name and shape; give a "
            "checkpoint of pre-training, or the weights of such an encoder"
        )
    _check_encoder(network, path, used, made)
    load_published_state(network, own | used)
    missing = [name for name in own if name not in used and name not in reshaped]
    return WeightReport(list(used), missing, reshaped, unexpected, _unneeded(unexpected, full_names), made)


def _check_dims(network: UNetNetwork, path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """UserError if all convolutions of the file have other dimensions: some of the heads' tensors would fit."""
    found = {tensor.ndim - 2 for tensor in tensors.values()} & {2, 3}
    if found and network.dims not in found:
        raise UserError(
            f"{path}: holds a {min(found)}D network, and this one is {network.dims}D; give a --weight of a "
            f"{network.dims}D pre-training, or the --n of {min(found)}D data"
        )


def _check_encoder(network: UNetNetwork, path: str | Path, used: Collection[str], made: Mapping[str, Any]) -> None:
    """UserError if the file has another encoder; a warning if it may."""
    own = published_state(network)
    backbone = network.unet.encoder.backbone if isinstance(network.unet, UNet2d) else ""
    there = made.get("opt", {}).get("backbone")
    if there and backbone and there != backbone:
        raise UserError(f"{path}: its encoder is a {there}, not a {backbone}; give --backbone {there}")
    convolutions = [name for name, value in own.items() if name.startswith(ENCODER) and value.ndim > 2]
    fitting = sum(name in used for name in convolutions)
    if fitting < ENOUGH * len(convolutions):
        remedy = "give the --backbone of the file" if backbone else "give a file of this U-Net"
        raise UserError(
            f"{path}: only {fitting} of the {len(convolutions)} convolutions of this encoder are in it; {remedy}"
        )
    layers = [name for name in own if name.startswith(ENCODER_LAYER)]
    fitting = sum(name in used for name in layers)
    if fitting < len(layers):
        warn(f"{path}: only {fitting} of {len(layers)} tensors of the encoder's layers fit: another --backbone's?")


def _unneeded(unexpected: Iterable[str], bare_names: Collection[str]) -> list[str]:
    """Those of the decoder and of the heads, if the network of ``bare_names`` has no such part."""
    absent = [part for part in (DECODER, HEADS) if not any(map(part.match, bare_names))]
    return [name for name in unexpected if any(part.match(name) for part in absent)]
