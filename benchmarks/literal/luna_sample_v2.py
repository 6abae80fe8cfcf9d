"""A LUNA16 sample of PCRLv2 as plainly as it can be stated: TorchIO's transforms, one after the other.

The yardstick for the speed of ``datasets.ct.luna_v2``, and a second statement of what it computes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torchio

spatial = torchio.Compose([torchio.RandomFlip(axes=0), torchio.RandomAffine()])
intensity = torchio.Compose([torchio.RandomBlur(), torchio.RandomNoise(), torchio.RandomGamma()])
swap = torchio.RandomSwap(patch_size=(8, 4, 4))
normalise = torchio.ZNormalization()


def sample(path: Path) -> dict[str, torch.Tensor]:
    """The two views of one file, the target of the first one, and the local crops."""
    pair = torch.from_numpy(np.load(path).astype(np.float32))
    crops = torch.from_numpy(np.load(path.with_name(path.name.replace("_global_", "_local_"))).astype(np.float32))
    tensors: dict[str, torch.Tensor] = {}
    for view, crop in enumerate(pair, start=1):
        target = spatial(crop[None])
        tensors[f"input{view}"] = normalise(swap(intensity(target)))
        tensors[f"gt{view}"] = target
    tensors["locals"] = torch.stack([normalise(intensity(spatial(crop[None]))) for crop in crops])
    return tensors
