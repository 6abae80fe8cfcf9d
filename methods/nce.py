"""Noise-contrastive estimation against a queue of keys (the paper's section 3.2; NCE as in Wu et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from models.queue import QueueState
from utils.full_precision import full_precision
from utils.process_group import BatchShards

EPSILON = 1e-5


@dataclass
class ContrastOutput:
    """``losses``: the NCE terms (N). ``positive``: mean of P0 in the first call. ``state``: the queue after it all."""

    losses: Tensor
    positive: Tensor
    state: QueueState


def nce_loss(positive: Tensor, negative: Tensor, n_data: int) -> Tensor:
    """NCE of unnormalised probabilities P0 (..., B) and Pj (..., B, K).

    -( sum_b log(P0 / (P0 + m Pn + eps)) + sum_b sum_j log(m Pn / (Pj + m Pn + eps)) ) / B
    with the noise density Pn = 1 / n_data, m = K and eps = 1e-5.
    """
    batch, keys = negative.shape[-2:]
    noise = keys / n_data
    positive_terms = torch.log(positive / (positive + (noise + EPSILON))).sum(-1)
    negative_terms = torch.log(noise / (negative + (noise + EPSILON))).sum((-2, -1))
    return -(positive_terms + negative_terms) / batch


def contrast(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    state: QueueState,
    temperature: float,
    n_data: int,
    shares: BatchShards,
) -> ContrastOutput:
    """N contrast calls in turn, of L2-normalised queries and keys, (B, D) each.

    Each call compares its queries with its keys and the queue, then pushes its keys, so that the next one sees them.
    Z is set once, at the very first call of a run, to the mean of exp(logit / T) times ``n_data``. The mean is over
    the batches of all ranks, and the keys of all ranks are pushed, in rank order; the losses are those of this rank's
    B. Half-precision inputs are computed in the queue's precision, since exp(logit / T) / Z needs it.
    """
    dtype, z = state.memory.dtype, state.z
    with full_precision(queries[0].device):
        own_queries = F.normalize(torch.stack(list(queries)).to(dtype), dim=-1)
        own_keys = F.normalize(torch.stack(list(keys)).detach().to(dtype), dim=-1)
        memories = []
        for pushed in shares.gather(own_keys.transpose(0, 1)).unbind(1):
            memories.append(state.memory)
            state = state.push(pushed)
        positive = torch.exp((own_queries * own_keys).sum(dim=-1) / temperature)
        cosines = torch.stack([rows @ memory.T for rows, memory in zip(own_queries.unbind(), memories, strict=True)])
        negative = torch.exp(cosines / temperature)
        with torch.no_grad():
            row_means = (positive[0] + negative[0].sum(dim=1)) / (1 + negative.shape[-1])
            z = torch.where(z == 0, shares.gather(row_means).mean() * n_data, z)
        positive = positive / z
        losses = nce_loss(positive, negative / z, n_data)
    return ContrastOutput(losses, positive[0].detach().mean(), replace(state, z=z))
