"""What a run shows of PCRL: panels of its curves, pictures of its reconstructions, statistics of its features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import PICTURED, Panel
from models.queue import QueueState

UNIT_NORM_ERROR = 1e-6  # of a key in float32
PICTURES = {  # of the terms: the row that they are drawn in, and what their columns begin with
    "rec": ("view 1", ""),
    "rec_mixed": ("view 1", "mixed "),
    "rec_mixup": ("mixup", ""),
    "rec_mixup_mixed": ("mixup", "mixed "),
    "rec_momentum": ("view 2", ""),  # of --model pcrl_paper, as is the next one
    "rec_hybrid": ("hybrid", ""),
}
CODE = "code: "  # among the pictures, before the name of a row: how its targets were flipped and turned
Targets = Mapping[str, tuple[Tensor | None, Tensor]]  # name of the term -> reconstruction and target


def curve_panels(reconstruction_loss: str) -> tuple[Panel, ...]:
    """Of the terms and statistics, as ``curves.png`` shows them."""
    error = {"mse": "squared error", "l1": "absolute error"}[reconstruction_loss]
    return (
        Panel("loss", "mean over the batch", ("loss", "contrast", "reconstruction")),
        Panel("contrast", "NCE, nats", ("nce", "nce_mixup", "nce_mixed_key", "nce_hybrid")),
        Panel("reconstruction", error, tuple(PICTURES), log=True),
        Panel("spread of the features", "1: even, 0: collapsed", ("feature_spread", "queue_spread"), group="features"),
        Panel("similarity of a query", "cosine", ("similarity_positive", "similarity_queue"), group="features"),
        Panel("positive pair (P0)", "exp(cosine / T) / Z", ("positive",), log=True, group="features"),
        Panel("queue", "share of real keys", ("queue_filled",), from_zero=True, group="features"),
        Panel("gate", "weight, 0 to 1", ("gate_mean", "gate_spread")),
    )


def pictures(views: Mapping[str, Tensor], targets: Targets, codes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the student sees, and each reconstruction beside its target, by ``row: column``: copies of what is drawn.

    ``views``: its input by row. ``codes``: of the spatial transforms between it and its targets, by row.
    """

    def drawn(maps: Tensor) -> Tensor:
        return maps[:PICTURED].detach().clone()

    images = {f"{row}: input": drawn(view) for row, view in views.items()}
    for name, (output, target) in targets.items():
        if output is not None:
            row, words = PICTURES[name]
            images |= {f"{row}: {words}target": drawn(target), f"{row}: {words}reconstruction": drawn(output)}
    return images | {CODE + row: drawn(code) for row, code in codes.items()}


def upright(images: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The pictures for display: targets and reconstructions are turned back to the orientation of their view.

    Mixtures of both views get the orientation of view 1, which has the larger share.
    """
    left = {name: image for name, image in images.items() if not name.startswith(CODE)}
    for name in left:
        row, _, column = name.partition(": ")
        if CODE + row in images and column != "input":
            pairs = zip(left[name], images[CODE + row].tolist(), strict=True)
            left[name] = torch.stack([_turned_back(image, code) for image, code in pairs])
    return left


def _turned_back(image: Tensor, code: Sequence[float]) -> Tensor:
    """(C, ...) before the flips, then quarter turns, of this code (flips, then turns one-hot)."""
    flips, turns = code[:-4], code[-4:]
    back = torch.rot90(image, -turns.index(max(turns)), (1, 2))
    return torch.flip(back, [axis for axis, flip in enumerate(flips, start=1) if flip])


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
