"""Starting from existing weights: our checkpoints, the published code's and its kin's, or an encoder alone."""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Size, Tensor, nn

from models.resnet import BACKBONES
from models.unet import Z_NORMAL, UNetNetwork, load_published_state, published_state
from models.unet2d import UNet2d
from models.weight_files import (
    ENCODERS,
    PART,
    STATISTICS,
    Place,
    check_finite,
    contents,
    encoders,
    groups,
    part_of,
    part_pattern,
    part_places,
    resnet_name,
    some,
)
from models.weight_report import WeightReport, bare_name
from utils import safetensors, torch_file
from utils.console import warn
from utils.errors import UserError

IMAGENET = "imagenet"  # --weight imagenet: torchvision's ResNet
ENOUGH = 0.5  # of the encoder's convolutions: a file with fewer of them is another encoder's
PRETRAINED = ("decoder", "output layer", "contrast head", "gate")  # parts that tasks may do without
PLAIN_KEYS = {(), ("model",), ("state_dict",)}  # where weights lie as a rule: nothing that has to be said
PLAIN_PREFIXES = {"", "module.", "model.encoder.", "module.model.encoder."}


def bare_tensors(checkpoint: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint's network by their bare names: its encoder, and the parts that go with it.

    Empty if there is no encoder. Nothing is taken from a moving average for a network that is none.
    """
    found = {dims: encoders(checkpoint, dims) for dims in ENCODERS}
    dims = max(found, key=lambda dims: len(found[dims][0].names) if found[dims] else 0)
    if not found[dims]:
        return {}
    encoder = found[dims][0]
    tensors = encoder.tensors
    for part in PART:
        for place in part_places(checkpoint, encoder, part_pattern(part))[:1]:
            tensors |= place.tensors if place.averaged == encoder.averaged else {}
    return tensors


def _imagenet(network: UNetNetwork) -> dict[str, Tensor]:
    """torchvision's ImageNet weights of the network's ResNet, downloaded once by torch.hub."""
    if not isinstance(network.unet, UNet2d):
        raise UserError(f"--weight {IMAGENET}: those are weights of a 2D network, not of a {network.dims}D one")
    import torchvision  # late: it takes a second to import

    weights = torchvision.models.get_model_weights(network.unet.encoder.backbone).DEFAULT
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:  # no network; a file that is another than it says
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"--weight {IMAGENET}: {weights.url} cannot be downloaded ({reason}); download it elsewhere and give the "
            f"file, --weight FILE, or start from random values, --weight none"
        ) from None


def checkpoint_options(checkpoint: Any) -> dict[str, Any]:
    """The options of a run, from ``opt``: a dict in our files, an argparse.Namespace in the published code's."""
    options = checkpoint.get("opt") if isinstance(checkpoint, Mapping) else None
    if isinstance(options, Namespace):
        options = vars(options)
    return dict(options) if isinstance(options, Mapping) else {}


def _made(checkpoint: Any) -> dict[str, Any]:
    """What a checkpoint of this project tells of its run."""
    entries = checkpoint if isinstance(checkpoint, Mapping) else {}
    kinds = {"opt": Mapping, "run": Mapping, "epoch": int, "step": int, "list_sha256": str}
    return {key: entries[key] for key, kind in kinds.items() if isinstance(entries.get(key), kind)}


def is_z_normalised(checkpoint: Any, dims: int) -> bool:
    """Whether its network reads images of mean 0 and deviation 1: it says so, or is PCRLv2's published one."""
    options = checkpoint_options(checkpoint)
    if isinstance(checkpoint, Mapping) and "inputs" in checkpoint:
        return checkpoint["inputs"] == Z_NORMAL
    return dims == 3 and options.get("model") == "pcrlv2" and options.get("phase", "pretask") == "pretask"


def _is_exported_so(path: str | Path) -> bool:
    """Whether export.py wrote so beside the plain tensors, which say nothing of themselves."""
    beside = Path(path).with_suffix(".safetensors")
    return path != IMAGENET and safetensors.metadata(beside).get("inputs") == Z_NORMAL


def load_weights(network: UNetNetwork, path: str | Path) -> WeightReport:
    """Copy into ``network`` what fits by name and shape. ``path``: a file, or IMAGENET.

    Of the encoder each tensor that fits is taken; another part (decoder, output layer, heads) wholly or not at all. A
    first convolution of one channel is repeated over the network's, and divided by their number.
    UserError if nothing fits, or the file is of a network of other dimensions or with another encoder.
    """
    checkpoint = _imagenet(network) if path == IMAGENET else torch_file.load(path)
    own = published_state(network)
    names = {bare_name(name): name for name in own}
    shapes = {bare: own[name].shape for bare, name in names.items()}
    found = encoders(checkpoint, network.dims, {b: s for b, s in shapes.items() if part_of(b) == "encoder"})
    _check_dims(network, path, checkpoint)
    _check_made(network, path, _made(checkpoint))
    if not found:
        raise _nothing_fits(network, path, checkpoint, shapes)
    encoder = found[0]
    _check_encoder(network, path, encoder, checkpoint, shapes)
    z_normalised = is_z_normalised(checkpoint, network.dims) or _is_exported_so(path)
    report = WeightReport(made=_made(checkpoint), notes=_source(found, shapes), z_normalised=z_normalised)
    taken = _take_encoder(encoder, shapes, report) | _take_parts(checkpoint, encoder, shapes, report)
    check_finite(path, taken)
    load_published_state(network, own | {names[bare]: tensor for bare, tensor in taken.items()})
    report.used = [names[bare] for bare in taken]
    report.reshaped, report.left = ([names[bare] for bare in some_of] for some_of in (report.reshaped, report.left))
    here = {*report.used, *report.reshaped, *report.left}
    report.missing = [name for name in own if name not in here]
    report.unneeded = [name for name in report.unexpected if _is_unneeded(name, shapes)]
    _check_norm(network, path, encoder, checkpoint)
    return report


def _take_encoder(encoder: Place, shapes: Mapping[str, Size], report: WeightReport) -> dict[str, Tensor]:
    """Each tensor of the encoder that fits, by its bare name."""
    taken = {}
    for bare, tensor in encoder.tensors.items():
        if bare in shapes and shapes[bare] == tensor.shape:
            taken[bare] = tensor
        elif bare in shapes and _for_channels(tensor.shape, shapes[bare]):
            channels = shapes[bare][1]
            taken[bare] = tensor.expand(shapes[bare]) / channels
            report.notes.append(f"the first convolution repeated over {channels} channels and divided by {channels}")
        elif bare in shapes:
            report.reshaped.append(bare)
    return taken


def _for_channels(there: Size, wanted: Size) -> bool:
    """Whether a first convolution of one input channel can serve several: a constant image then gives the same map."""
    return len(there) > 2 and there[1] == 1 < wanted[1] and (there[0], *there[2:]) == (wanted[0], *wanted[2:])


def _take_parts(checkpoint: Any, encoder: Place, shapes: Mapping[str, Size], report: WeightReport) -> dict[str, Tensor]:
    """The other parts of the network, each from the nearest place that has the whole of it; by their bare names.

    An output layer belongs to its decoder. What lies beside the used tensors is unexpected.
    """
    taken: dict[str, Tensor] = {}
    looked_at = {encoder.group.keys: encoder.group}
    known = {(encoder.group.keys, name) for bare, name in encoder.names.items() if bare in shapes}
    averages: dict[str, list[str]] = {}
    for part in dict.fromkeys((*PART, *map(part_of, shapes))):
        wanted = {bare: shape for bare, shape in shapes.items() if part_of(bare) == part}
        candidates = part_places(checkpoint, encoder, part_pattern(part)) if wanted and part != "encoder" else []
        place = next((place for place in candidates if _is_whole(place, wanted)), None)
        if part == "output layer" and not any(part_of(bare) == "decoder" for bare in taken):
            place = None
        nearest = place or (candidates[0] if candidates else None)
        if nearest is None:
            continue
        known |= {(nearest.group.keys, name) for bare, name in nearest.names.items() if bare in wanted}
        if nearest.averaged == encoder.averaged:
            looked_at[nearest.group.keys] = nearest.group
        if place:
            taken |= {bare: tensor for bare, tensor in place.tensors.items() if bare in wanted}
            if place.averaged and not encoder.averaged:
                averages.setdefault(str(place.group.keys[-1] if place.group.keys else place.prefix), []).append(part)
        else:
            there = {bare: tensor.shape for bare, tensor in nearest.tensors.items() if bare in wanted}
            report.reshaped += [bare for bare, shape in there.items() if shape != wanted[bare]]
            report.left += [bare for bare, shape in there.items() if shape == wanted[bare]]
    report.notes += [
        f"{' and '.join(parts)} taken from `{key}`, the moving average, because the file has no other copy"
        for key, parts in averages.items()
    ]
    report.unexpected = [
        name.removeprefix("module.")
        for group in looked_at.values()
        for name in group.tensors
        if (group.keys, name) not in known
    ]
    return taken


def _is_whole(place: Place, wanted: Mapping[str, Size]) -> bool:
    """Whether this is the part that is wanted: all its tensors, and no others, but for the statistics of norms."""

    def telling(tensors: Mapping[str, Any]) -> set[str]:
        return {bare for bare in tensors if not bare.endswith(STATISTICS)}

    tensors = place.tensors
    return telling(tensors) == telling(wanted) and all(
        tensor.shape == wanted[bare] for bare, tensor in tensors.items() if bare in wanted
    )


def _is_unneeded(name: str, shapes: Mapping[str, Size]) -> bool:
    """Whether it is of a part of pre-training that the network of these bare names does not have."""
    part = part_of(name)
    return part in PRETRAINED and not any(part_of(bare) == part for bare in shapes)


def _source(found: list[Place], shapes: Mapping[str, Size]) -> list[str]:
    """Where the encoder lay in the file, and which other one there was: unless it is where it lies as a rule."""
    encoder, *others = found
    notes = []
    if encoder.group.keys not in PLAIN_KEYS or encoder.prefix not in PLAIN_PREFIXES or encoder.numbered:
        numbers = " by the numbers of a Sequential" if encoder.numbered else ""
        notes.append(f"taken from {encoder}{numbers}".rstrip())
    if encoder.group.keys == ("model",):  # a checkpoint of ours: its keys are documented
        return notes
    whole = set(encoder.names)
    rest = [place for place in others if set(place.names) == whole and not _same(place, encoder)]
    if rest:
        notes.append(f"the file also has {' and '.join(map(str, rest))}, not used")
    return notes


def _same(place: Place, other: Place) -> bool:
    return all(tensor.equal(other.tensors[bare]) for bare, tensor in place.tensors.items())


def _nothing_fits(
    network: UNetNetwork, path: str | Path, checkpoint: Any, shapes: Mapping[str, Size], convolutions: str = ""
) -> UserError:
    first = [f"{bare} {tuple(shape)}" for bare, shape in shapes.items()]
    count = sum(len(group.tensors) for group in groups(checkpoint))
    return UserError(
        f"{path}: {convolutions or f'none of its {count} tensors fits the encoder of this {network.dims}D network'}; "
        f"{contents(checkpoint)}; wanted, with any prefix: {some(first, 2)}; give a checkpoint of pre-training, or the "
        "weights of such an encoder"
    )


def _check_made(network: UNetNetwork, path: str | Path, made: Mapping[str, Any]) -> None:
    """UserError if the run that made the file had another --narrow, or in 2D another --backbone."""
    narrow, own = made.get("opt", {}).get("narrow", 1), network.unet.narrow
    if made and narrow != own:
        raise UserError(f"{path}: its network has --narrow {narrow}, not {own}; give --narrow {narrow}")
    if isinstance(network.unet, UNet2d):
        own_backbone = network.unet.encoder.backbone
        backbone = made.get("opt", {}).get("backbone") or own_backbone
        if backbone != own_backbone:
            raise UserError(
                f"{path}: its network has --backbone {backbone}, not {own_backbone}; give --backbone {backbone}"
            )


def _check_dims(network: UNetNetwork, path: str | Path, checkpoint: Any) -> None:
    """UserError if all convolutions of the file have other dimensions: some of the heads' tensors would fit."""
    found = {tensor.ndim - 2 for group in groups(checkpoint) for tensor in group.tensors.values()} & {2, 3}
    if found and network.dims not in found:
        raise UserError(
            f"{path}: holds a {min(found)}D network, and this one is {network.dims}D; give a --weight of a "
            f"{network.dims}D pre-training, or the --n of {min(found)}D data"
        )


def _check_encoder(
    network: UNetNetwork, path: str | Path, encoder: Place, checkpoint: Any, shapes: Mapping[str, Size]
) -> None:
    """UserError if the file has another encoder; a warning if it may."""
    if isinstance(network.unet, UNet2d):
        own, there = network.unet.encoder.backbone, resnet_name(encoder.tensors)
        if there not in (None, own):
            remedy = f"give --backbone {there}" if there in BACKBONES else f"--backbone has {', '.join(BACKBONES)}"
            raise UserError(f"{path}: its encoder is a {there}, not a {own}; {remedy}")
    fitting = {
        bare
        for bare, tensor in encoder.tensors.items()
        if bare in shapes and (shapes[bare] == tensor.shape or _for_channels(tensor.shape, shapes[bare]))
    }
    wanted = [bare for bare in shapes if part_of(bare) == "encoder"]
    convolutions = [bare for bare in wanted if len(shapes[bare]) > 2]
    count = len(fitting & set(convolutions))
    if not fitting or count < ENOUGH * len(convolutions):
        few = f"only {count} of the {len(convolutions)} convolutions of this encoder are in it"
        raise _nothing_fits(network, path, checkpoint, shapes, few * bool(fitting))
    lost = [bare for bare in convolutions if bare not in fitting]
    if lost:
        first, own_first = encoder.tensors.get(convolutions[0]), shapes[convolutions[0]]
        channels = first.shape[1] if first is not None and first.ndim == len(own_first) else own_first[1]
        give = (
            f"; give --inchannel {channels} to take the first one"
            if network.dims == 2 and convolutions[0] in lost and channels in {1, 3} - {own_first[1]}
            else ""
        )
        warn(
            f"{path}: {len(lost)} of the {len(convolutions)} convolutions of the encoder are not in it or have another "
            f"shape ({some(lost, 3)}): they are initialised randomly{give}"
        )


def _check_norm(network: UNetNetwork, path: str | Path, encoder: Place, checkpoint: Any) -> None:
    """A warning if the file's layers were normalised otherwise: the tensors of norms fit all the same."""
    kinds = {nn.GroupNorm: "gn", nn.InstanceNorm3d: "in", nn.BatchNorm3d: "bn", nn.BatchNorm2d: "bn"}
    here = next(kind for module in network.modules() for norm, kind in kinds.items() if isinstance(module, norm))
    if any(name.endswith("running_mean") for name in encoder.names):
        there = "bn"
    else:
        there = checkpoint_options(checkpoint).get("norm", "gn or in")
    if here not in there:
        give = f"; give --norm {there} to have the same" if there in kinds.values() and network.dims == 3 else ""
        warn(f"{path}: the encoder was trained with --norm {there}, not {here}: its features will differ here{give}")
