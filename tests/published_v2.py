"""Files as PCRLv2's authors publish them, by a description of their names and shapes, with values of their own."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import torch
import torchvision
from torch import Tensor

Tensors = dict[str, Tensor]


def filled(shapes: dict[str, tuple[int, ...]]) -> Tensors:
    """Each tensor has one value, of its own; a count of batches is a whole number."""
    return {
        name: torch.tensor(number) if name.endswith("num_batches_tracked") else torch.full(shape, 0.001 * number)
        for number, (name, shape) in enumerate(shapes.items(), start=1)
    }


def norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def layer(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A convolution or a linear layer with bias, shape (out, in, ...)."""
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def two_convs(name: str, inputs: int, middle: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for number, (read, written) in enumerate(((inputs, middle), (middle, outputs))):
        yield from layer(f"{name}.ops.{number}.conv1", written, read, 3, 3, 3)
        yield from norm(f"{name}.ops.{number}.bn1", written)


def network_3d() -> Tensors:
    """The whole 3D network: 17,118,823 numbers in 169 tensors."""
    shapes: dict[str, tuple[int, ...]] = {}
    for outputs in (64, 128, 256, 512):
        shapes |= dict(two_convs(f"down_tr{outputs}", 1 if outputs == 64 else outputs // 2, outputs // 2, outputs))
    for c in (256, 128, 64):
        name = f"up_tr{c}"
        shapes |= dict(layer(f"{name}.up_conv", 2 * c, 2 * c, 2, 2, 2))
        shapes |= dict(two_convs(name, 2 * c, c, c)) | dict(norm(f"{name}.bn", c))
        shapes |= dict(layer(f"{name}.predictor_head.0", 2 * c, c)) | dict(norm(f"{name}.predictor_head.1", 2 * c))
        shapes |= dict(layer(f"{name}.predictor_head.3", c, 2 * c))
        shapes |= dict(layer(f"{name}.deep_supervision_head.conv1", 1, c, 3, 3, 3))
        shapes |= dict(norm(f"{name}.deep_supervision_head.bn1", 1))
    return filled(shapes | dict(layer("out_tr.final_conv", 1, 64, 1, 1, 1)))


def encoder_2d() -> Tensors:
    """torchvision's ResNet-18 without its last layer: 11,186,132 numbers in 120 tensors."""
    state = torchvision.models.resnet18().state_dict()
    return filled({name: tuple(value.shape) for name, value in state.items() if not name.startswith("fc.")})


def published_v2(dims: int, prefix: str = "") -> dict[str, Any]:
    """A file of 240 epochs: the encoder alone in 2D, the network in 3D; no heads in 2D, no random states."""
    opt = argparse.Namespace(
        data="/data",
        model="pcrlv2",
        phase="pretask",
        b=32,
        epochs=240,
        lr=1e-3,
        output="out",
        n={2: "chest", 3: "luna"}[dims],
        d=dims,
        workers=4,
        gpus="0,1,2,3",
        ratio=1.0,
        momentum=0.9,
        weight_decay=1e-4,
        seed=42,
        amp=True,
    )
    state = encoder_2d() if dims == 2 else network_3d()
    return {
        "opt": opt,
        "state_dict": {prefix + name: value for name, value in state.items()},
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 240,
    }
