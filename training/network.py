"""The network that a phase begins with: as the options say, from random values or from ``--weight``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch

from datasets.ct.crop_records import window_in_words
from methods.base import Method
from models.build import build_unet
from models.layers import OPERATORS
from models.unet import UNet, UNetNetwork
from models.weights import load_weights
from options import PRETRAINING, SEGMENTATION, Options
from training.reporting.run_record import origin
from utils import torch_file
from utils.console import say, warn
from utils.errors import UserError

Network = TypeVar("Network", bound=UNetNetwork)


def new_unet(options: Options, shape: Sequence[int]) -> UNet:
    """A U-Net of random values; ``shape``: spatial size of what it will see, which is checked."""
    torch.manual_seed(options.seed)
    unet = build_unet(
        options.dims,
        options.inchannel,
        options.outchannel,
        options.norm,
        options.final_act,
        options.backbone,
        narrow=options.narrow,
    )
    check_size(unet, shape, options.data)
    return unet


def check_size(unet: UNet, shape: Sequence[int], data: str) -> None:
    """UserError if images of this spatial size are none for the U-Net."""
    multiples = unet.size_multiple
    if any(size % multiple for size, multiple in zip(shape, multiples, strict=True)):
        raise UserError(
            f"{data}: images of {tuple(shape)} pixels or voxels; the network needs multiples of {multiples}"
        )


def in_memory_format(network: Network, options: Options, device: torch.device) -> Network:
    """The network with its kernels channels-last if ``--channels_last`` says so; auto: where that is faster."""
    wanted = options.channels_last == "on"
    if options.channels_last == "auto":
        wanted = device.type == "cpu" or options.amp != "off"
    return network.to(memory_format=OPERATORS[network.dims].channels_last) if wanted else network


def start_from_weight(
    options: Options,
    network: UNetNetwork,
    windows: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Copy what ``--weight`` holds into the network, and say what was used; warn if it saw other images.

    Returns what a TrainingJob's ``facts`` tell of the run that made the weights. ``windows``: of the CT crops
    that the network will see, as far as their records tell (datasets/ct/crop_records.py). A network that is not to be
    pre-trained wants such images as the weights saw. Nothing is read where a run goes on from a checkpoint, which has
    all values: ``--weight`` may be gone, or would be downloaded.
    """
    if options.weight in ("", "none") or options.goes_on:
        return {}
    report = load_weights(network, options.weight)
    say(f"weights of {options.weight}: {report}")
    others = differences(report.made, options, windows)
    if options.phase not in PRETRAINING:
        network.z_normalised = report.z_normalised
        if report.z_normalised:
            say(f"images are normalised to mean 0 and deviation 1, as in the pre-training of {options.weight}")
    elif report.made and report.z_normalised != network.z_normalised:
        here = "0 .. 1" if report.z_normalised else "mean 0 and deviation 1"
        there = "mean 0 and deviation 1" if report.z_normalised else "0 .. 1"
        others.append(f"values of {there}, not {here}, which --model {options.method_name} has")
    if others:
        warn(f"{options.weight} was trained on images with other preprocessing: {'; '.join(others)}")
    return origin(options.weight, report.made)


def continue_with(options: Options, method: Method) -> None:
    """Give the method the parts of ``--weight``'s run that ``--continue_with`` names. UserError if they do not fit."""
    if options.goes_on:  # the run's own checkpoint has them
        return
    names = dict.fromkeys(name.strip() for name in options.continue_with.split(",") if name.strip())
    checkpoint = torch_file.load(options.weight) if names else {}
    for name in names:
        what = f"--continue_with {name}"
        if name not in method.continues:
            known = f"it has {', '.join(method.continues)}" if method.continues else "it has nothing to continue"
            raise UserError(f"{what}: --model {options.method_name} has no such part; {known}")
        key = method.continues[name]
        if not isinstance(checkpoint, Mapping) or key not in checkpoint:
            raise UserError(f"{what}: {options.weight} has no `{key}`; give a checkpoint of pre-training")
        try:
            method.adopt(name, checkpoint[key])
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            line = " ".join(str(error).split())[:200]
            raise UserError(
                f"{what}: the {name} of {options.weight} does not fit ({line}); give the same network and --moco_k, or "
                f"remove --continue_with"
            ) from None
        say(f"{name}: taken over from {options.weight}")


def differences(made: Mapping[str, Any], options: Options, windows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What of the images was another in the run that ``made`` the weights, in words, as far as both are known.

    Another size of the crops in 3D is none: the network takes any, and what it sees has the same scale.
    """
    others = []
    size = made.get("opt", {}).get("size")
    if options.dims == 2 and size and size != options.size:
        others.append(f"--size {size}, not {options.size}; give --size {size}")
    recipes = made.get("run", {}).get("recipes", ())
    there, here = ({window_in_words(each) for each in side} - {""} for side in (recipes, windows))
    if there and here and there != here:
        flags = "--modality, --hu_min, --hu_max" if options.n == SEGMENTATION else "--hu_min, --hu_max, --percentiles"
        others.append(
            f"window {' and '.join(sorted(there))}, not {' and '.join(sorted(here))}; take the same one for both "
            f"({flags})"
        )
    return others
