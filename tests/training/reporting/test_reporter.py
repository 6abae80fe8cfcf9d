"""metrics.jsonl: which steps have a row."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.functional import mse_loss

from methods.supervised import Supervised
from models.build import build_unet
from models.unet import UNetNetwork
from tests.conftest import rows
from training.reporting.epoch import StepReport
from training.reporting.reporter import Reporter


def take(reporter: Reporter, epoch: int, steps: int) -> None:
    for step in range(1, steps + 1):
        reporter.step(
            StepReport(
                epoch=epoch,
                step=step,
                lr=1e-3,
                loss=float(10 * epoch + step),
                terms={},
                good=True,
                images={},
                statistics={},
                faults=[],
                samples=2,
                seconds=0.1,
                data_seconds=0.0,
            )
        )
    reporter.epoch_end(epoch)


def test_the_first_step_of_a_run_and_the_last_of_an_epoch_have_rows(tmp_path: Path) -> None:
    method = Supervised(UNetNetwork(build_unet(3, 1, 1, "bn", "sigmoid")), mse_loss)
    arguments = (tmp_path, 2, 8, 5, (0.0, 1.0), torch.device("cpu"), method)
    reporter = Reporter(*arguments)
    take(reporter, 0, 8)
    reporter.close()
    resumed = Reporter(*arguments, done=8)
    take(resumed, 1, 8)
    resumed.close()
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [(1, 1), (5, 5), (8, 8), (13, 15), (16, 18)]
    means = {row["step"]: row["means"] for row in rows(tmp_path) if "means" in row}
    assert means == {8: {"loss": 4.5}, 16: {"loss": 14.5}}, "of all steps, those without a row of their own too"
