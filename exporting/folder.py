"""The files of an export but its card: weights twice, what defines the network, and the encoder as ONNX."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from exporting import nnunet, standalone_nnunet, standalone_unet3d
from exporting.portable import NNUNET, Portable
from models.unet import Z_NORMAL
from utils import torch_file
from utils.files import write_text

DEFINITION, PLANS = "unet3d.py", "plans.json"


def write_weights(portable: Portable, folder: Path, z_normalised: bool) -> None:
    """As ``.pt``, and the same tensors as ``.safetensors``, which also says if images are ``z_normalised``."""
    torch_file.save(folder / portable.file, portable.content)
    tensors = {name: tensor.contiguous() for name, tensor in portable.state.items()}
    safe = (folder / portable.file).with_suffix(".safetensors")
    inputs = {"inputs": Z_NORMAL} if z_normalised else {}
    safe.write_bytes(safetensors.torch.save(tensors, {"format": "pt", **inputs}))


def write_definitions(
    portable: Portable, folder: Path, options: Mapping[str, Any], run: Mapping[str, Any], z_normalised: bool
) -> None:
    """Python files of a network that no library has; for nnU-Net also what its plans need.

    ``options`` and ``run`` are the checkpoint's; ``z_normalised`` whether its images are normalised to mean 0 and
    deviation 1.
    """
    if portable.dims == 3:
        write_text(folder / DEFINITION, inspect.getsource(standalone_unet3d))
    if portable.target == NNUNET:
        write_text(folder / f"{nnunet.MODULE}.py", nnunet.definition(inspect.getsource(standalone_nnunet)))
        plans = nnunet.plans_fragment(portable.in_channels, portable.norm, options, run, z_normalised)
        write_text(folder / PLANS, json.dumps(plans, indent=4) + "\n")
