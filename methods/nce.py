"""Noise-contrastive estimation against a queue of keys (the paper's section 3.2; NCE as in Wu et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.queue import QueueState
from utils.full_precision import full_precision
from utils.process_group import BatchShards

EPSILON = 1e-5


@dataclass
class ContrastOutput:
    """``loss``: the NCE term (scalar). ``positive``: mean of P0. ``state``: the queue after the push."""

    loss: Tensor
    positive: Tensor
    state: QueueState


def logits(queries: Tensor, keys: Tensor, memory: Tensor) -> Tensor:
    """Unit queries (B, D), unit keys (B, D), memory (K, D) -> (B, 1 + K): q.k first, then q against the queue."""
    positive = (queries * keys).sum(dim=1, keepdim=True)
    return torch.cat([positive, queries @ memory.T], dim=1)


def nce_loss(probabilities: Tensor, n_data: int) -> Tensor:
    """NCE of unnormalised probabilities P (B, 1 + K), positive first.

    -( sum_b log(P0 / (P0 + m Pn + eps)) + sum_b sum_j log(m Pn / (Pj + m Pn + eps)) ) / B
    with the noise density Pn = 1 / n_data, m = K and eps = 1e-5.
    """
    batch, columns = probabilities.shape
    noise = (columns - 1) / n_data
    positive, negative = probabilities[:, 0], probabilities[:, 1:]
    positive_terms = torch.log(positive / (positive + noise + EPSILON)).sum()
    negative_terms = torch.log(noise / (negative + noise + EPSILON)).sum()
    return -(positive_terms + negative_terms) / batch


def contrast(
    queries: Tensor, keys: Tensor, state: QueueState, temperature: float, n_data: int, shares: BatchShards
) -> ContrastOutput:
    """One contrast call: L2-normalise both (B, D), compare with the queue, then push the keys.

    Z is set once, at the very first call of a run, to the mean of exp(logit / T) times ``n_data``. The mean is over
    the batches of all ranks, and the keys of all ranks are pushed, in rank order; ``loss`` is that of this rank's B.
    Half-precision inputs are computed in the queue's precision, since exp(logit / T) / Z needs it.
    """
    dtype = state.memory.dtype
    with full_precision(queries.device):
        queries = F.normalize(queries.to(dtype), dim=1)
        keys = F.normalize(keys.detach().to(dtype), dim=1)
        similarities = torch.exp(logits(queries, keys, state.memory) / temperature)
        gathered = shares.gather(torch.cat([keys, similarities.detach().mean(dim=1, keepdim=True)], dim=1))
        all_keys, row_means = gathered[:, :-1], gathered[:, -1]
        z = torch.where(state.z == 0, row_means.mean() * n_data, state.z)
        probabilities = similarities / z
        loss = nce_loss(probabilities, n_data)
    pushed = QueueState(state.memory, state.pointer, z).push(all_keys)
    return ContrastOutput(loss, probabilities[:, 0].detach().mean(), pushed)
