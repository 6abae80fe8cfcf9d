"""The network that a phase begins with: as the options say, from random values or from ``--weight``."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from models.pcrl import PCRLNetwork, build_network
from models.unet import UNet, UNetNetwork
from models.weights import load_weights
from options import Options
from utils.console import say
from utils.errors import UserError


def new_network(options: Options, shape: Sequence[int]) -> PCRLNetwork:
    """The network of random values; ``shape``: spatial size of what it will see, which is checked."""
    torch.manual_seed(options.seed)
    network = build_network(
        options.dims, options.inchannel, options.outchannel, options.norm, options.final_act, options.backbone
    )
    check_size(network.unet, shape, options.data)
    return network


def check_size(unet: UNet, shape: Sequence[int], data: str) -> None:
    """UserError if images of this spatial size are none for the U-Net."""
    multiples = unet.size_multiple
    if any(size % multiple for size, multiple in zip(shape, multiples, strict=True)):
        raise UserError(
            f"{data}: images of {tuple(shape)} pixels or voxels; the network needs multiples of {multiples}"
        )


def start_from_weight(options: Options, network: UNetNetwork) -> None:
    """Copy what ``--weight`` holds into the network, and say what was used."""
    if options.weight:
        say(f"weights of {options.weight}: {load_weights(network, options.weight)}")
