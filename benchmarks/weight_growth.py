"""How much longer AdamW makes a new network's weights within a few steps: what a learning rate means to it.

    python benchmarks/weight_growth.py [--lr 1e-3 3e-4] [--steps 25]

Where a normalisation follows a convolution, weights that are longer turn more slowly under the same steps: a
pre-trained network with grown weights learns more slowly afterwards than a new one. Inputs are smooth noise, small for
speed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.step import CHANNELS, N_DATA, Case, random_batch
from methods.pcrl import PCRL, PCRLConfig
from models.layers import OPERATORS
from models.pcrl import build_network, published_state

BATCH = 4
SIZES = {2: (64, 64), 3: (16, 16, 16)}
COARSE = 4  # knots of the noise along each side
MODES = {2: "bilinear", 3: "trilinear"}
VIEWS = ("input1", "input2", "mask1", "mask2", "gt1", "gt2")


def smooth_batch(dims: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Inputs of a step, of noise that changes slowly over the image."""
    batch = random_batch(Case("ours", "float32", dims, BATCH, SIZES[dims]), rng)
    for name in VIEWS:
        knots = rng.random((BATCH, CHANNELS[dims], *[COARSE] * dims), dtype=np.float32)
        batch[name] = F.interpolate(torch.from_numpy(knots), size=SIZES[dims], mode=MODES[dims])
    return batch


def growth(dims: int, lr: float, steps: int) -> dict[str, float]:
    """Norm of each convolution's kernel after ``steps``, as a multiple of what it was."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    channels = CHANNELS[dims]
    network = build_network(dims, channels, channels, "bn", "sigmoid" if dims == 3 else "none")
    method = PCRL(network, PCRLConfig(n_data=N_DATA, queue_size=512)).train()
    method.to(memory_format=OPERATORS[dims].channels_last)
    before = {name: value.norm().item() for name, value in published_state(network).items() if value.ndim > 2}
    optimizer = torch.optim.AdamW(list(method.trainable()), lr, weight_decay=1e-4)
    for _ in range(steps):
        optimizer.zero_grad()
        output = method(smooth_batch(dims, rng), method.draw(BATCH, rng))
        output.loss.backward()
        optimizer.step()
        method.commit(output)
    after = published_state(network)
    return {name: after[name].norm().item() / norm for name, norm in before.items()}


def main() -> None:
    """Print a line for each network and learning rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-3, 3e-4], help="learning rates (1e-3 3e-4)")
    parser.add_argument("--steps", type=int, default=25, help="of AdamW (25)")
    options = parser.parse_args()
    for dims in (2, 3):
        for lr in options.lr:
            found = growth(dims, lr, options.steps)
            largest = max(found, key=lambda name: found[name])
            words = f"{np.median(list(found.values())):.2f} in the median, {found[largest]:.2f} at most ({largest})"
            print(f"{dims}D, --lr {lr:g}, {options.steps} steps: norms of kernels become x {words}", flush=True)


if __name__ == "__main__":
    main()
