"""Going on with another number of processes than a checkpoint's: its state stays, each batch is dealt anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets.loader import Loader
from training.checkpoint import Position
from utils.console import warn
from utils.text import counted

CHANGES = "changes"  # in a checkpoint's ``run``: where the number of processes became another one


def deal_anew(loader: Loader, position: Position, checkpoint: Mapping[str, Any]) -> list[dict[str, int]]:
    """Have the run go on from ``position`` with its batches dealt to the loader's ranks, and say what that changes.

    -> all changes of the number of processes until now, as checkpoints tell them. UserError if the rest of the epoch
    under way cannot be dealt to so many.
    """
    former, now, run = checkpoint.get("world_size", 1), loader.ranks.size, checkpoint.get("run", {})
    changes: list[dict[str, int]] = list(run.get(CHANGES, []))
    used = checkpoint.get("samples_used")  # earlier versions told what it follows from
    position.used = loader.used(position.step, former, run.get("gpus", loader.gpus)) if used is None else used
    loader.take_over(position.epoch, position.step, position.used, former)
    if former == now:
        return changes
    warn(
        f"that run had {counted(former, 'process')}, and goes on with {now}: the state is the same, each batch is "
        "dealt anew. From here on the numbers are not those that it would have had: sums are taken in another order, "
        "and batch normalisation and mixup stay within a process"
    )
    return [*changes, {"epoch": position.epoch, "step": position.step, "from": former, "to": now}]
