"""How a self-supervised method is found and built, and what it says of itself; what it computes is a Method."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from methods.base import Method, Panel
from models.build import build_unet
from models.unet import UNet, UNetNetwork
from utils.errors import UserError
from utils.process_group import ProcessGroup

Settings = Mapping[str, Any]  # the options of a run, by the names of their flags
Wrap = Callable[[nn.Module], Callable[..., Any]]


@dataclass(frozen=True)
class MethodSpec:
    """A method as ``--model`` names it. Each has one, called SPEC, in its own file.

    ``network``: options -> the network with random values from torch's global generator. ``build``: (network,
    options, batches per epoch, what makes a network parallel, ranks) -> the method. ``views``: which views of an
    image a sample holds, a key of ``Source.views`` in datasets/registry.py. ``flags``: the flags that mean
    something with this method and not with every other. ``fixed``: flags that have one value with this method, by
    the number of dimensions; another one is refused. ``citation``, ``training_only``: for model cards: what to cite,
    and what of a checkpoint only the training needs. ``min_samples``: that each device needs of a batch.
    ``cuda_graph``: whether a step does the same operations each time, and can so be captured (training/graph.py).
    For the page of a run: ``panels``: options -> the panels of its curves. ``headline``: the terms beside the loss that
    one looks at first. ``pictures``: what its pictures show.
    """

    name: str
    title: str
    network: Callable[[Settings], UNetNetwork]
    build: Callable[[UNetNetwork, Settings, int, Wrap, ProcessGroup], Method]
    views: str
    citation: str
    training_only: str
    flags: frozenset[str] = frozenset()
    fixed: Mapping[str, Mapping[int, Any]] = field(default_factory=dict)
    min_samples: int = 1
    cuda_graph: bool = False
    panels: Callable[[Settings], Sequence[Panel]] = lambda settings: ()
    headline: tuple[str, ...] = ()
    pictures: str = ""


def unet_of(settings: Settings, skips: bool = True) -> UNet:
    """The U-Net that the flags of a run ask for, with random values from torch's global generator."""
    names = ("d", "inchannel", "outchannel", "norm", "final_act", "backbone")
    dims, channels, outputs, norm, final_act, backbone = (settings[name] for name in names)
    return build_unet(dims, channels, outputs, norm, final_act, backbone, skips, settings["narrow"])


@cache
def spec_in_file(path: Path) -> MethodSpec:
    """The SPEC of a Python file outside the project, which runs once; UserError if the file defines none."""
    module_spec = importlib.util.spec_from_file_location(f"method_{path.stem}", path)
    if not path.is_file() or module_spec is None or module_spec.loader is None:
        raise UserError(f"--model {path}: no such file of Python code")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # where dataclasses look for their own module
    module_spec.loader.exec_module(module)
    spec = getattr(module, "SPEC", None)
    if not isinstance(spec, MethodSpec):
        raise UserError(f"--model {path}: it defines no SPEC, a MethodSpec of methods/spec.py")
    return spec
