"""Files of weights as others write them: networks by their names and shapes alone, with values of their own."""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor

from models.pcrl import build_network
from models.unet import published_state

Tensors = dict[str, Tensor]
CHILDREN = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


def resnet(name: str = "resnet18", fc: bool = False) -> Tensors:
    state = getattr(torchvision.models, name)().state_dict()
    return {name: tensor for name, tensor in state.items() if fc or not name.startswith("fc.")}


def under(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def other(tensors: Tensors) -> Tensors:
    """The same network with other values."""
    return {name: tensor + 1 for name, tensor in tensors.items()}


def numbered(tensors: Tensors) -> Tensors:
    """The children of a ResNet in a Sequential."""
    return {CHILDREN[name.split(".")[0]] + name[len(name.split(".")[0]) :]: value for name, value in tensors.items()}


def of_other_projects(encoder: Tensors, whole: Tensors) -> dict[str, Any]:
    """Files of a ResNet-18, with its ``fc`` if it is ``whole``, by what writes them so."""
    moco = under("module.encoder_q.", whole) | under("module.encoder_k.", other(whole))
    return {
        "moco_v2": {"arch": "resnet18", "epoch": 200, "state_dict": moco | {"module.queue": torch.rand(128, 8)}},
        "moco_v3": {"state_dict": under("module.base_encoder.", encoder)},
        "lightning": {"state_dict": under("net.", whole), "pytorch-lightning_version": "2.0"},
        "torch_compile": under("_orig_mod.", whole),
        "model_state_dict": {"model_state_dict": whole, "epoch": 3},
        "nested": {"model": {"state_dict": under("backbone.", encoder)}},
        "dino": {
            "teacher": under("backbone.", other(encoder)),
            "student": under("module.backbone.", encoder),
            "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(64, 3, 7, 7)}}},
        },
        "radimagenet": under("backbone.", numbered(encoder)),
        "byol": under("target_encoder.net.", other(encoder)) | under("online_encoder.net.", encoder),
    }


def published_2d() -> dict[str, Any]:
    """A 2D file of the published PCRL: the encoder and the decoder's blocks of the student, all of the teacher.

    ``contrast`` holds the queue's keys and, under ``params``, Z, an integer; nothing tells where the queue stands.
    """
    student, teacher = (published_state(build_network(2, 3, 3, "bn", "none")) for _ in range(2))
    part = {
        name: {key.removeprefix(name): value for key, value in student.items() if key.startswith(name)}
        for name in ("model.encoder.", "model.decoder.")
    }
    return {
        "opt": argparse.Namespace(b=64, epochs=240, n="chest", norm="bn"),
        "state_dict": part["model.encoder."],
        "decoder_state_dict": part["model.decoder."],
        "model_ema": under("module.", teacher),
        "contrast": {"memory": torch.rand(16, 128), "params": torch.tensor([123456])},
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 60,
    }


def pcrlv2(dims: int) -> Tensors:
    """Names and shapes of PCRLv2's network: PCRL's encoder, a decoder without skips, two heads a block."""
    ours = published_state(build_network(dims, *((3, 3) if dims == 2 else (1, 1)), "bn", "none"))
    state = {
        name: torch.rand_like(value) for name, value in ours.items() if value.is_floating_point() and "fc" not in name
    }
    prefix, scales = ("model.decoder.blocks.", range(5)) if dims == 2 else ("up_tr", (256, 128, 64))
    inputs = (512, 256, 128, 64, 32) if dims == 2 else (512, 256, 128)
    first = "conv1.0.weight" if dims == 2 else "ops.0.conv1.weight"
    for scale, channels in zip(scales, inputs, strict=True):
        name = f"{prefix}{scale}.{first}"
        outputs = len(state[name])
        state[name] = torch.rand(outputs, channels, *state[name].shape[2:])
        for norm in ("weight", "bias", "running_mean", "running_var"):
            state[f"{prefix}{scale}.bn.{norm}"] = torch.rand(outputs)
        state[f"{prefix}{scale}.predictor_head.0.weight"] = torch.rand(2 * outputs, outputs)
        state[f"{prefix}{scale}.predictor_head.3.weight"] = torch.rand(outputs, 2 * outputs)
    return state


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """By the format's description: a length, a header, the bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    contents, size = [tensor.numpy().tobytes() for tensor in tensors.values()], 0
    for (name, tensor), content in zip(tensors.items(), contents, strict=True):
        dtype = {torch.float32: "F32", torch.int64: "I64", torch.float16: "F16", torch.bool: "BOOL"}[tensor.dtype]
        place = [size, size := size + len(content)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": place}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(contents))
