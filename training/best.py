"""Keep ``--output`` consistent: ``best.pt`` holds the state that the run calls its best, or it does not exist.

The states of another run are renamed before a new run begins.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from training.checkpoint import BEST, LAST, PREVIOUS, TrainingState
from training.reporting.curves import HELD_OUT
from utils import torch_file
from utils.console import say, warn
from utils.errors import UserError, reason

FORMER_BEST = "former_best.pt"
FORMER = {LAST: "former_last.pt", PREVIOUS: "former_previous.pt"}


def read_best(output: Path, state: TrainingState, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """What ``best.pt`` holds, if that is the state that ``state`` calls the best of this run; else None.

    ``run``: of the run's checkpoints.
    """
    path = output / BEST
    if not state.best_epoch or not path.exists():
        return None
    try:
        found = torch_file.load(path)
    except UserError as error:
        warn(str(error))
        return None
    if not isinstance(found, dict):
        return None
    place = tuple(found.get(key) for key in ("epoch", "step", "best"))
    began = {started for started in (_started(found), run.get("started")) if started}  # earlier versions do not tell
    return found if place == (state.best_epoch, 0, state.best) and len(began) < 2 else None


def _started(checkpoint: Mapping[str, Any]) -> str | None:
    return checkpoint.get("run", {}).get("started")


def best_in_words(epoch: int, score: float, rows: Iterable[Mapping[str, Any]], by_probe: bool) -> str:
    """Which epoch of a pre-training ``best.pt`` holds, and its result; also whether the untrained network was better.

    ``score``: the lower the better. ``rows``: of metrics.jsonl. ``by_probe``: whether the linear probe chose the epoch;
    it judged the untrained network, epoch 0, too.
    """
    figure = "probe_linear" if by_probe else f"{HELD_OUT}loss"
    found = {row["epoch"]: row[figure] for row in rows if isinstance(row.get(figure), float) and "epoch" in row}
    words = f"{BEST}: epoch {epoch}"
    if (best := found.get(epoch)) is None:
        return words
    words += f", {'probe linear' if by_probe else 'loss on held-out data'} {best:.3f}"
    untrained = found.get(0)
    larger_is_better = score == -best  # as of AUROC; an error is the score itself
    if by_probe and untrained is not None and (untrained > best if larger_is_better else untrained < best):
        words += f"; the untrained network had {untrained:.3f} (docs/LEARNING.md)"
    return words


def settle_best(output: Path, state: TrainingState, checkpoint: dict[str, Any] | None) -> None:
    """Make what ``state`` and ``best.pt`` say the same, before a run begins or goes on from ``checkpoint``.

    They differ if a run was killed between its write of ``last.pt`` and of ``best.pt``, if it goes on from an older
    file than its newest, and if another run was in the folder. For one process alone.
    """
    if checkpoint and state.best_epoch:
        run = checkpoint.get("run", {})
        best = read_best(output, state, run)
        is_best = (state.position.epoch, state.position.step) == (state.best_epoch, 0)  # the checkpoint itself
        if is_best and (best is None or best.get("run", {}) != run):
            best = _write_best(output, checkpoint)
        if best is None:
            warn(
                f"{output / BEST} no longer holds the best state so far (epoch {state.best_epoch}): from now on, the "
                f"best state is chosen only among the epochs that follow"
            )
            state.forget_best()
    if not state.best_epoch and (output / BEST).exists():
        _set_aside(output, BEST, FORMER_BEST, "belongs to another run, or to later epochs of this run")
    if checkpoint is None:  # else a run that is killed before its first save would go on from these
        for name, former in FORMER.items():
            if (output / name).exists():
                _set_aside(output, name, former, "belongs to another run")


def _write_best(output: Path, checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    try:
        torch_file.save(output / BEST, checkpoint)
    except OSError as error:
        warn(f"{output / BEST} cannot be written ({reason(error)})")
        return None
    return checkpoint


def _set_aside(output: Path, name: str, former: str, why: str) -> None:
    """Nobody shall take another run's state for this one's."""
    try:
        os.replace(output / name, output / former)
    except OSError as error:
        raise UserError(f"{output / name} is of another run, and cannot be renamed ({reason(error)})") from None
    say(f"{output / name} {why}; renamed to {former}")
