"""How the golden figures' weights, queue and inputs are filled: by rule, from names, so none is stored."""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from torch import Tensor


def rng(tag: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(tag.encode()))


def weight(name: str, like: Tensor) -> Tensor:
    """The golden value of the state-dict entry ``name``."""
    shape = tuple(like.shape)
    if name.endswith(("running_mean", "num_batches_tracked")):
        return torch.zeros_like(like)
    if name.endswith("running_var"):
        return torch.ones_like(like)
    if len(shape) >= 2:
        value = rng(name).standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    elif name.endswith("weight"):
        value = 1 + 0.1 * rng(name).standard_normal(shape)
    else:
        value = 0.1 * rng(name).standard_normal(shape)
    return torch.from_numpy(value)


def memory(size: int, dim: int = 128) -> Tensor:
    bound = 1 / math.sqrt(dim / 3)
    return torch.from_numpy(rng("contrast.memory").random((size, dim)) * 2 * bound - bound)


def batch(case: dict, step: int) -> dict[str, Tensor]:
    """The golden inputs of a step, float64."""
    tag, size, spatial = f"{case['case']}/{step}", case["batch_size"], case["spatial"]
    values = {}
    for key in ("input1", "input2", "mask1", "mask2", "gt1", "gt2"):
        r = rng(f"{tag}/{key}")
        values[key] = r.standard_normal((size, 3, *spatial)) if case["dim"] == 2 else r.random((size, 1, *spatial))
    for key in ("aug1", "aug2"):
        r = rng(f"{tag}/{key}")
        flips = r.integers(0, 2, (size, case["dim"]))
        turns = r.integers(0, 4, size)
        values[key] = np.concatenate([flips, np.eye(4)[turns]], axis=1)
    return {key: torch.from_numpy(np.ascontiguousarray(value, np.float64)) for key, value in values.items()}


def sums(tensor: Tensor) -> list[float]:
    """The three sums that stand for a tensor: plain, absolute, and weighed by cos(arange)."""
    flat = tensor.detach().double().flatten()
    weights = torch.cos(torch.arange(len(flat), dtype=torch.float64))
    return [flat.sum().item(), flat.abs().sum().item(), (flat * weights).sum().item()]
