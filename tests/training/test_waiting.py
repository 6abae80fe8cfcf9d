"""``data_seconds`` is the time that a run waits for data, and nothing else."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from training.checkpoint import Position
from training.evaluation import EvalResult
from training.gated import StepResult
from training.loop import train
from training.reporting.epoch import StepReport
from training.reporting.reporter import NullReporter

BATCH, STEP, SAVE, REPORT = 0.03, 0.02, 0.5, 0.4  # seconds that each takes


class Slow(NullReporter):
    """Whatever a step is followed by takes long; the data do not."""

    def __init__(self) -> None:
        self.steps: list[StepReport] = []
        self.ranks = self.precision = None
        self.method = SimpleNamespace(train=lambda: None, begin=lambda epoch, epochs: None)
        self.optimizer = SimpleNamespace(param_groups=[])
        self.batch_sizes = [1, 1, 1]
        self.steps_behind = 0

    def epoch(self, epoch: int, first: int) -> Any:
        for _ in self.batch_sizes:
            time.sleep(BATCH)
            yield {}

    def __len__(self) -> int:
        return len(self.batch_sizes)

    def take_faults(self) -> list[str]:
        return []

    def step(self, *arguments: Any) -> Any:
        time.sleep(REPORT)
        self.steps.append(arguments[0])

    def launch(self, *arguments: Any) -> Any:
        time.sleep(STEP)
        return lambda: StepResult(1.0, {}, True, {}, {})

    def after_step(self) -> None:
        time.sleep(SAVE)

    def after_epoch(self, score: float | None) -> None: ...

    def out_of_patience(self) -> bool:
        return False

    def validation(self, epoch: int, result: EvalResult) -> None: ...


def test_saving_and_drawing_are_no_waiting() -> None:
    run: Any = Slow()
    train(run, run, run, run, lr=1e-3, epochs=1, position=Position())
    for step in run.steps:
        assert BATCH <= step.data_seconds < REPORT
    for step in run.steps[1:]:
        assert step.seconds >= BATCH + STEP + SAVE + REPORT, "but the run's pace is that of all"
