"""What pre-training made of an encoder: how many directions its features have, and how long its kernels became.

    python benchmarks/feature_rank.py --data FOLDER --n luna CHECKPOINT [CHECKPOINT ...]

Prints, for an encoder of random values and for each checkpoint of pre-training, the effective rank of the features of
each stage: the exponential of the entropy of the normalised eigenvalues of their covariance over images and places
(Roy and Vetterli 2007). Features that have collapsed have few. Then the norms of the kernels, as multiples of those
of the encoder of random values: where a normalisation follows, kernels that are longer turn more slowly under the same
steps. ``--data``: pairs of crops (luna) or X-rays (chest); the first ``--images`` are seen.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.pcrl import PCRLNetwork, build_network
from models.weights import load_weights
from phases.features import IMAGES

DIMS = {"chest": 2, "luna": 3}
CHANNELS = {2: 3, 3: 1}
PLACES = 4000  # of a feature map that are looked at, at most


def effective_rank(feature: Tensor) -> float:
    """Of a feature map (B, C, ...): 1 if all places have the same direction, at most C."""
    columns = feature.transpose(0, 1).flatten(1)
    columns = columns[:, :: -(-columns.shape[1] // PLACES)].double()
    eigenvalues = torch.linalg.svdvals(columns - columns.mean(dim=1, keepdim=True)) ** 2
    shares = eigenvalues / eigenvalues.sum()
    return torch.special.entr(shares).sum().exp().item()


def network(dims: int, checkpoint: Path | None) -> PCRLNetwork:
    """Of random values, or with a checkpoint's."""
    torch.manual_seed(0)
    channels = CHANNELS[dims]
    made = build_network(dims, channels, channels, "bn", "sigmoid" if dims == 3 else "none")
    if checkpoint:
        load_weights(made, checkpoint)
    return made


def norms(part: nn.Module) -> np.ndarray:
    """Of the kernels, one a convolution."""
    return np.array([value.detach().norm().item() for value in part.parameters() if value.ndim > 2])


@torch.no_grad()
def ranks(made: PCRLNetwork, images: Tensor) -> list[float]:
    """Of the features of each stage, shallow to deep, with the batch's own statistics, as in training."""
    return [effective_rank(feature) for feature in made.unet.train().encode(images)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="*", metavar="CHECKPOINT", help="of pre-training")
    parser.add_argument("--data", type=Path, required=True, help="pairs of crops, or X-rays")
    parser.add_argument("--n", choices=DIMS, required=True, help="what --data holds")
    parser.add_argument("--size", type=int, default=64, help="of an X-ray (64)")
    parser.add_argument("--images", type=int, default=16, help="that are seen (16)")
    options = parser.parse_args()
    dims, kind = DIMS[options.n], IMAGES[options.n]
    samples = kind.samples(kind.find(options.data, "none" if dims == 2 else None), CHANNELS[dims], options.size)
    images = torch.stack([samples[0, index]["image"] for index in range(options.images)])
    random = network(dims, None)
    for checkpoint in (None, *options.checkpoints):
        made = network(dims, checkpoint)
        grown = norms(made.unet) / norms(random.unet)
        shown = " ".join(f"{rank:6.1f}" for rank in ranks(made, images))
        print(f"{checkpoint or 'random values'}")
        print(f"  rank of each stage {shown}; kernels x {np.median(grown):.2f} (at most {grown.max():.2f})", flush=True)


if __name__ == "__main__":
    main()
