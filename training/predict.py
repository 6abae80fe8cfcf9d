"""A network's outputs for all samples of a loader, and the figures of a finished phase in ``metrics.json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datasets.loader import Loader
from training.precision import Precision
from utils.errors import Diverged, UserError, reason
from utils.files import write_text
from utils.progress import SHORT_S, progress

RESULTS = "metrics.json"


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode, and afterwards in training mode again."""
    network.eval()
    try:
        yield
    finally:
        network.train()


@torch.no_grad()
def predict(
    network: Callable[[Tensor], Tensor], loader: Loader, precision: Precision
) -> tuple[np.ndarray, np.ndarray | None]:
    """Outputs (N, ...) for the ``image`` of each sample, and the ``label`` of each (N, ...), if samples have one.

    The rows are those of all ranks in the order of ``loader``, which is not shuffled, and the same on all ranks.
    UserError if outputs are not finite.
    """
    outputs: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    with progress(sum(loader.batch_sizes), "image", delay_s=SHORT_S) as steps:
        for size, batch in zip(loader.batch_sizes, loader.epoch(0), strict=True):
            shares = loader.ranks.shares(size)
            with precision.autocast():
                output = network(batch["image"])
            outputs.append(shares.gather(output.float()).cpu().numpy())
            if "label" in batch:
                labels.append(shares.gather(batch["label"]).cpu().numpy())
            steps.update(size)
    rows = np.concatenate(outputs)
    if not np.isfinite(rows).all():
        raise Diverged("the network's outputs are not finite: its weights have grown without bounds; lower --lr")
    return rows, np.concatenate(labels) if labels else None


def write_results(output: Path, values: Mapping[str, Any]) -> None:
    """Write ``metrics.json``; UserError if that cannot be."""
    try:
        write_text(output / RESULTS, json.dumps(values, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"--output {output}: {RESULTS} cannot be written: {reason(error)}") from None
