"""The methods, and the batch of PCRLv2, of which the golden figures are, filled by rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from methods.pcrl import PCRL, PCRLConfig
from methods.pcrlv2 import PCRLv2
from models.pcrl import PCRLNetwork
from models.pcrlv2 import build_network as build_network_v2
from models.unet import load_published_state, published_state
from models.unet2d import UNet2d
from models.unet3d import UNet3d
from tests.golden import rules

HERE = Path(__file__).parent


def cases(name: str) -> list[dict[str, Any]]:
    """The cases of a file of figures."""
    return json.loads((HERE / f"{name}_steps.json").read_text())


def pcrl(case: dict[str, Any]) -> PCRL:
    """In float64, as before the first step."""
    unet = UNet2d() if case["dim"] == 2 else UNet3d(norm=case["norm"])
    network = PCRLNetwork(unet).double()
    _fill(network)
    config = PCRLConfig(
        n_data=case["n_data"],
        temperature=case["temperature"],
        queue_size=case["queue_size"],
        ema_momentum=case["ema_momentum"],
    )
    method = PCRL(network, config).double()
    method.queue.memory.copy_(rules.memory(case["queue_size"]))
    return method.train()


def pcrlv2(case: dict[str, Any]) -> PCRLv2:
    """In float64, as before the first step."""
    channels = 3 if case["dim"] == 2 else 1
    network = build_network_v2(case["dim"], channels, channels, "none" if case["dim"] == 2 else "sigmoid").double()
    _fill(network)
    return PCRLv2(network).double().train()


def _fill(network: Any) -> None:
    load_published_state(network, {name: rules.weight(name, t) for name, t in published_state(network).items()})


def pcrlv2_batch(case: dict[str, Any], step: int) -> dict[str, Tensor]:
    """The inputs of a step of PCRLv2, float64."""
    channels = 3 if case["dim"] == 2 else 1
    size, tag = case["batch_size"], f"{case['case']}/{step}"

    def values(key: str, spatial: list[int]) -> np.ndarray:
        r, shape = rules.rng(f"{tag}/{key}"), (size, channels, *spatial)
        return r.random(shape) if key == "gt1" and case["dim"] == 3 else r.standard_normal(shape)

    batch = {key: values(key, case["spatial"]) for key in ("input1", "input2", "gt1")}
    locals_ = [values(f"local{number}", case["local_spatial"]) for number in range(case["local_views"])]
    return {key: torch.from_numpy(value) for key, value in (batch | {"locals": np.stack(locals_, axis=1)}).items()}
