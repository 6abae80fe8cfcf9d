"""What a file of weights holds: its encoder and the other parts, found by their names, whoever wrote the file.

Projects save the same layers under other keys (``state_dict``, ``model_state_dict``, ``teacher``, ...) and with other
prefixes (``module.encoder_q.``, ``net.``, ``_orig_mod.``, ...). No list of these is kept: the part of a name that a
layer has by itself is recognised, and what stands before it is the prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from models.resnet import BACKBONES
from utils.errors import UserError
from utils.text import counted

_TENSORS = r"(?:weight|bias|running_mean|running_var|num_batches_tracked)"
_BLOCK = r"\d+\.(?:conv\d|bn\d|downsample\.[01])"
_PREFIX = r"(?P<prefix>(?:[^.]+\.)*?)"
# A name with any prefix, which is as short as can be; of the 2D and of the 3D encoder.
ENCODERS = {
    2: re.compile(rf"{_PREFIX}(?P<bare>(?:conv1|bn1|layer[1-4]\.{_BLOCK})\.{_TENSORS})"),
    3: re.compile(rf"{_PREFIX}(?P<bare>down_tr\d+\.ops\.\d\.(?:conv1|bn1)\.{_TENSORS})"),
}
# A ResNet that was taken apart into a Sequential: its children are numbered.
NUMBERED = re.compile(rf"{_PREFIX}(?P<bare>(?:0|1|[4-7]\.{_BLOCK})\.{_TENSORS})")
CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
# The other parts of the networks here, by the names of their tensors.
PARTS = {
    "decoder": r"(?:blocks\.\d+|up_tr\d+)\..+",
    "output layer": r"(?:segmentation_head\.\d+|out_tr\.final_conv)\..+",
    "contrast head": r"fc[12]\.(?:weight|bias)",
    "gate": r"aug_fc[12]\.(?:weight|bias)",
    "classifier": r"fc\.(?:weight|bias)",
}
PART = {part: re.compile(f"{_PREFIX}(?P<bare>{names})") for part, names in PARTS.items()}
# Words in a key or a prefix that stand for the moving average of a network that was trained (``encoder_k``: MoCo's).
AVERAGES = frozenset({"ema", "teacher", "momentum", "target", "k", "key", "averaged", "avg"})
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of a norm, which others do not have
STEM = "conv1.weight"  # of a ResNet: the one tensor that depends on the input's channels
OTHER_RESNETS = ("resnet101", "resnet152", "wide_resnet50_2", "resnext50_32x4d")
DEPTH = 4  # of mappings in mappings


@dataclass(frozen=True)
class Group:
    """Tensors that lie in one mapping of the file, by their names there. ``keys``: the way to it."""

    keys: tuple[str, ...]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Place:
    """The tensors of a part of a network, ``names``: bare name -> name in the ``group``, which begins with ``prefix``.

    ``numbered``: whether the layers have numbers there.
    """

    group: Group
    prefix: str
    names: dict[str, str]
    numbered: bool = False

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By their bare names."""
        return {bare: self.group.tensors[name] for bare, name in self.names.items()}

    @property
    def averaged(self) -> bool:
        """Whether its keys or its prefix say that it is a moving average."""
        return bool(AVERAGES & set(re.split(r"[._]", ".".join((*self.group.keys, self.prefix)).lower())))

    def __str__(self) -> str:
        """Key and prefix, as they are written in the file."""
        return " ".join(filter(None, (f"`{'/'.join(self.group.keys)}`" * bool(self.group.keys), self.prefix)))


def groups(content: Any, keys: tuple[str, ...] = ()) -> Iterator[Group]:
    """All mappings in the file that hold tensors, the outer ones first."""
    if not isinstance(content, Mapping) or len(keys) > DEPTH:
        return
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield Group(keys, tensors)
    for key, value in content.items():
        yield from groups(value, (*keys, str(key)))


def places(group: Group, pattern: re.Pattern[str], numbered: bool = False) -> list[Place]:
    """What matches the pattern in a group, one place a prefix."""
    found: dict[str, dict[str, str]] = {}
    for name in group.tensors:
        if match := pattern.fullmatch(name):
            bare = match["bare"]
            if numbered:
                child, _, rest = bare.partition(".")
                bare = f"{CHILDREN[child]}.{rest}"
            found.setdefault(match["prefix"], {})[bare] = name
    return [Place(group, prefix, names, numbered) for prefix, names in found.items()]


def encoders(content: Any, dims: int, shapes: Mapping[str, torch.Size] | None = None) -> list[Place]:
    """The encoders of these dimensions in a file, the best one first; a part of one counts as well.

    Best is, in this order: the one with the most tensors that have the ``shapes`` of the network, by bare names; the
    one with the most tensors; the network that was trained before its moving average; the one with the most parts
    beside it.
    """
    patterns = [(ENCODERS[dims], False), *([(NUMBERED, True)] if dims == 2 else [])]
    found = [place for group in groups(content) for pattern in patterns for place in places(group, *pattern)]
    found = [place for place in found if any(name.startswith(("layer", "down_tr")) for name in place.names)]
    wanted = shapes or {}

    def rank(place: Place) -> tuple[int, int, bool, int]:
        fitting = sum(wanted.get(bare) == tensor.shape for bare, tensor in place.tensors.items())
        return fitting, len(place.names), not place.averaged, len(place.group.tensors)

    return sorted(found, key=rank, reverse=True)


def part_places(content: Any, encoder: Place, pattern: re.Pattern[str]) -> list[Place]:
    """Where a part lies that goes with this encoder, nearest first: beside it, in another mapping, in an average."""
    found = [place for group in groups(content) for place in places(group, pattern)]

    def distance(place: Place) -> tuple[bool, bool, int]:
        common = 0
        for here, there in zip(place.prefix.split("."), encoder.prefix.split("."), strict=False):
            if here != there:
                break
            common += 1
        return place.averaged != encoder.averaged, place.group.keys != encoder.group.keys, -common

    return sorted(found, key=distance)


def part_of(name: str) -> str:
    """The part that a tensor of this name belongs to, whatever its prefix.

    Of names that are not known, such as those of a method of one's own, the first word is the part.
    """
    known = next((part for part, pattern in PART.items() if pattern.fullmatch(name)), None)
    encoder = any(pattern.fullmatch(name) for pattern in ENCODERS.values())
    return known or ("encoder" if encoder else name.partition(".")[0])


def part_pattern(part: str) -> re.Pattern[str]:
    """What the names of a part's tensors look like, with any prefix."""
    return PART.get(part) or re.compile(rf"{_PREFIX}(?P<bare>{re.escape(part)}\..+)")


def shapes_of(encoder: Mapping[str, Tensor]) -> dict[str, torch.Size | None]:
    """The shapes that tell a ResNet from others: not the stem's, nor of what old versions of torch did not save."""
    return {
        name: None if name == STEM else tensor.shape
        for name, tensor in encoder.items()
        if not name.endswith("num_batches_tracked")
    }


@cache
def _resnet_shapes(name: str) -> dict[str, torch.Size | None]:
    import torchvision  # late: it takes a second to import

    with torch.device("meta"):
        state = getattr(torchvision.models, name)().state_dict()
    return shapes_of({name: tensor for name, tensor in state.items() if not name.startswith("fc.")})


def resnet_name(encoder: Mapping[str, Tensor]) -> str | None:
    """Which of torchvision's ResNets this is, by bare names and shapes; the stem may have other input channels."""
    own = shapes_of(encoder)
    return next((name for name in (*BACKBONES, *OTHER_RESNETS) if _resnet_shapes(name) == own), None)


def check_finite(path: object, tensors: Mapping[str, Any]) -> None:
    """UserError if some of these tensors of a file have values that are no numbers: all that is computed would be."""
    bad = [
        name
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if bad:
        raise UserError(
            f"{path}: {counted(len(bad), 'tensor')} of its network hold values that are not finite numbers "
            f"({some(bad, 3)}): that training had failed; give an earlier checkpoint"
        )


def contents(content: Any) -> str:
    """What a file holds, in a few words: its keys, and the first tensors of its largest group with their shapes."""
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}, no tensors by name"
    keys = [str(key) for key in content if not isinstance(content[key], Tensor)]
    said = [f"its keys: {some(keys, 8)}"] if keys else []
    largest = max(groups(content), key=lambda group: len(group.tensors), default=None)
    if largest is None:
        return "; ".join([*said, "it holds no tensors"])
    first = [f"{name} {tuple(tensor.shape)}" for name, tensor in largest.tensors.items()]
    where = f" of `{'/'.join(largest.keys)}`" if largest.keys else ""
    return "; ".join([*said, f"tensors{where}: {some(first, 3)}"])


def some(words: list[str], most: int) -> str:
    """The first ones, with commas, and dots for the rest."""
    return ", ".join(words[:most]) + (", ..." if len(words) > most else "")
