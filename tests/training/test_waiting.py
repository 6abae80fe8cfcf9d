"""``data_seconds`` is the time in which a run waits for data and nothing else, by a clock that only the parts move."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from training import loop
from training.checkpoint import Position
from training.device_clock import DeviceClock
from training.evaluation import EvalResult
from training.gated import StepResult
from training.loop import train
from training.reporting.epoch import StepReport
from training.reporting.reporter import NullReporter
from utils.signals import StopRequest

STEP, AUGMENT, SAVE, REPORT = 0.080, 0.020, 0.5, 0.4  # seconds that each takes


class Machine:
    """The time, and until when the GPU is busy with what was launched."""

    def __init__(self) -> None:
        self.now = self.busy = 0.0

    def event(self) -> Any:
        """As ``torch.cuda.Event``: it is reached once all that was launched before it is done."""
        event = SimpleNamespace(at=0.0)
        event.record = lambda: setattr(event, "at", max(self.now, self.busy))
        event.synchronize = lambda: setattr(self, "now", max(self.now, event.at))
        event.elapsed_time = lambda other: 1000 * (other.at - event.at)
        return event


class Parts(NullReporter):
    """All that a training is made of. ``batches``: how long each is waited for, if nobody has waited before."""

    def __init__(self, machine: Machine, batches: list[float], behind: int, save: float, report: float) -> None:
        self.machine, self.steps_behind, self._save, self._report = machine, behind, save, report
        self._batches, self._ready = batches, 0.0
        self.steps: list[StepReport] = []
        self.ranks = self.precision = None
        self.method = SimpleNamespace(train=lambda: None, begin=lambda epoch, epochs: None)
        self.optimizer = SimpleNamespace(param_groups=[])
        self.batch_sizes = [1] * len(batches)
        self.clock = DeviceClock(machine.event if behind else None)
        self.arrived: Callable[[], None] = lambda: None
        self.request = StopRequest()

    def epoch(self, epoch: int, first: int) -> Any:
        """A worker makes one batch after the other, whatever the others do."""
        for seconds in self._batches:
            self._ready += seconds
            self.machine.now = max(self.machine.now, self._ready)
            self.arrived()
            if self.steps_behind:  # what the device does with the batch before the step
                self.machine.busy = max(self.machine.now, self.machine.busy) + AUGMENT
            yield {}

    def __len__(self) -> int:
        return len(self.batch_sizes)

    def take_faults(self) -> list[str]:
        return []

    def step(self, *arguments: Any) -> Any:
        self.machine.now += self._report
        self.steps.append(arguments[0])

    def launch(self, *arguments: Any) -> Callable[[], StepResult]:
        machine = self.machine
        done = machine.busy = max(machine.now, machine.busy) + STEP
        self.clock.end()
        if not self.steps_behind:
            machine.now = done

        def read() -> StepResult:
            machine.now = max(machine.now, done)
            return StepResult(1.0, {}, True, {}, {})

        return read

    def after_step(self) -> None:
        self.machine.now += self._save

    def after_epoch(self, score: float | None) -> None: ...

    def out_of_patience(self) -> bool:
        return False

    def owed_results(self) -> bool:
        return False

    def validation(self, epoch: int, result: EvalResult) -> None: ...


def trained(
    monkeypatch: pytest.MonkeyPatch, batches: list[float], behind: int, save: float = 0.0, report: float = 0.0
) -> list[StepReport]:
    machine = Machine()
    monkeypatch.setattr(loop.time, "perf_counter", lambda: machine.now)
    run: Any = Parts(machine, batches, behind, save, report)
    train(run, run, run, run, lr=1e-3, epochs=1, position=Position())
    return run.steps


def test_saving_and_drawing_are_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = trained(monkeypatch, [0.03] * 3, 0, SAVE, REPORT)
    assert [step.data_seconds for step in steps] == pytest.approx([0.03, 0, 0]), "the other batches are there by then"
    assert [step.seconds for step in steps[1:]] == pytest.approx([STEP + SAVE + REPORT] * 2), "the pace is that of all"


def test_a_loader_that_is_a_tenth_too_slow_keeps_a_gpu_waiting_a_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host waits for the next batch while the GPU computes the step before: that time is not lost."""
    steps = trained(monkeypatch, [0.110] * 40, 1)
    share = sum(step.data_seconds for step in steps[1:]) / sum(step.seconds for step in steps[1:])
    assert share == pytest.approx(0.010 / 0.110, rel=0.05)
    fast = trained(monkeypatch, [0.090] * 40, 1)
    assert sum(step.data_seconds for step in fast[1:]) == pytest.approx(0)


@pytest.mark.parametrize("behind", [0, 1])
def test_a_stall_is_told_of_the_step_whose_time_it_takes(behind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [0.090] * 10
    batches[5] = 1.0
    steps = trained(monkeypatch, batches, behind)
    assert all(step.data_seconds <= step.seconds for step in steps)
    (stalled,) = [step for step in steps[1:] if step.seconds > 0.5]
    assert stalled.data_seconds > 0.7 * stalled.seconds
