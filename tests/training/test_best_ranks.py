"""Several ranks agree on the best epoch and on when patience is out, even where their scores differ in the last bit."""

from __future__ import annotations

from pathlib import Path

import torch

from options import Options
from tests.spawn import run_ranks
from tests.training.test_best import One
from training.checkpoint import BEST, Position, TrainingState
from training.checkpoint_manager import CheckpointManager
from training.precision import build_precision
from training.reporting.reporter import NullReporter
from training.schedule import build_optimizer
from utils.process_group import ProcessGroup
from utils.signals import StopRequest

SCORES = [(3.0, 3.0), (3.0, 2.9999999), (3.0, 3.0)]  # of the first rank and of the second, by epoch


def _train(ranks: ProcessGroup, output: str) -> tuple[int, float, bool]:
    method = One()
    optimizer = build_optimizer("sgd", method.trainable(), 1e-3, 0.9, 0.0)
    precision = build_precision("off", torch.device("cpu"), method, optimizer)
    state = TrainingState(method, optimizer, precision, Position(), ranks)
    options = Options(data="data", output=output, epochs=9, val_every=1, patience=2)
    checkpoints = CheckpointManager(state, NullReporter(), options, Path(output), "hash", StopRequest(), 1)
    for scores in SCORES:
        state.position.epoch += 1
        checkpoints.after_epoch(scores[ranks.rank])
    return state.best_epoch, state.best, checkpoints.out_of_patience()


def test_the_first_rank_s_score_is_all_ranks_score(tmp_path: Path) -> None:
    assert run_ranks(2, _train, str(tmp_path)) == [(1, 3.0, True)] * 2
    assert torch.load(tmp_path / BEST, weights_only=True)["epoch"] == 1
