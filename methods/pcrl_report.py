"""What a run shows of PCRL: panels of its curves, pictures of its reconstructions, statistics of its features."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import PICTURED, Panel
from models.queue import QueueState

UNIT_NORM_ERROR = 1e-6  # of a key in float32
PICTURES = {"rec": "", "rec_mixed": "mixed ", "rec_mixup": "mixup ", "rec_mixup_mixed": "mixed mixup "}  # of the terms
HEADINGS = MappingProxyType(  # of the pictures
    {
        "target": "target: view 1,\nturned or flipped",
        "mixed target": "mixed target: of views\n1 and 2, in shares",
        "mixup target": "mixup target: crops of\ntwo images, in shares",
        "mixed mixup target": "mixed mixup target: of\nboth views' crops as well",
    }
)
Targets = Mapping[str, tuple[Tensor | None, Tensor]]  # name of the term -> reconstruction and target


def curve_panels(reconstruction_loss: str) -> tuple[Panel, ...]:
    """Of the terms and statistics, as ``curves.png`` shows them."""
    error = {"mse": "squared error", "l1": "absolute error"}[reconstruction_loss]
    return (
        Panel("loss", "mean over the batch", ("loss", "contrast", "reconstruction")),
        Panel("contrast", "NCE, nats", ("nce", "nce_mixup", "nce_mixed_key")),
        Panel("reconstruction", error, ("rec", "rec_mixed", "rec_mixup", "rec_mixup_mixed"), log=True),
        Panel("spread of the features", "1: even, 0: collapsed", ("feature_spread", "queue_spread")),
        Panel("similarity of a query", "cosine", ("similarity_positive", "similarity_queue")),
        Panel("positive pair (P0)", "exp(cosine / T) / Z", ("positive",), log=True),
        Panel("queue", "share of real keys", ("queue_filled",), from_zero=True),
        Panel("gate", "weight, 0 to 1", ("gate_mean", "gate_spread")),
    )


def pictures(view: Tensor, targets: Targets) -> dict[str, Tensor]:
    """The first view, and each reconstruction beside its target, by name: copies of the samples that are drawn."""

    def drawn(maps: Tensor) -> Tensor:
        return maps[:PICTURED].detach().clone()

    images = {"view 1": drawn(view)}
    for name, (output, target) in targets.items():
        if output is not None:
            words = PICTURES[name]
            images |= {f"{words}target": drawn(target), f"{words}reconstruction": drawn(output)}
    return images


def spread(features: Tensor) -> Tensor:
    """Of unit features (B, D): the standard deviation over B, times sqrt(D), the mean over D."""
    return features.std(dim=0, correction=0).mean() * features.shape[1] ** 0.5


def filled(memory: Tensor) -> Tensor:
    """The share of a queue's rows (K, D) that are keys: its initial ones are no unit vectors."""
    return ((memory.float().norm(dim=1) - 1).abs() < UNIT_NORM_ERROR).float().mean()


@torch.no_grad()
def feature_statistics(query: Tensor, key: Tensor, state: QueueState) -> dict[str, Tensor]:
    """Of queries and keys (B, D) and of the queue. Nothing of it is part of the loss.

    The spread of unit features is their standard deviation over the samples, times sqrt(D): 1 where they are spread
    evenly, 0 where they have collapsed.
    """
    queries, keys = (F.normalize(value.detach().float(), dim=1) for value in (query, key))
    memory = F.normalize(state.memory.float(), dim=1)
    stats = {
        "similarity_positive": (queries * keys).sum(dim=1).mean(),
        "similarity_queue": (queries @ memory.mean(dim=0)).mean(),
        "queue_spread": spread(memory),
        "queue_filled": filled(state.memory),
    }
    return stats | ({"feature_spread": spread(queries)} if len(queries) > 1 else {})


def gate_statistics(weights: Tensor) -> dict[str, Tensor]:
    """Of the gate's weights (B, C)."""
    return {"gate_mean": weights.float().mean(), "gate_spread": weights.float().std()}
