"""What a run calls its best, what ``best.pt`` holds and what is reported are one, whatever came in between."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from methods.base import Batch, Method, StepOutput
from options import Options
from tests.processes import largest_file
from training.best import read_best, settle_best
from training.checkpoint import BEST, LAST, PREVIOUS, Position, TrainingState, find_resume
from training.checkpoint_manager import CheckpointManager
from training.precision import build_precision
from training.reporting.reporter import NullReporter
from training.schedule import build_optimizer
from utils.errors import UserError
from utils.signals import Stopped, StopRequest

ROOM, FULL = 2**20, 200  # bytes that a file may have


class One(Method):
    """A weight, which tells the epoch that a state is of."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def draw(self, batch_size: int, rng: Any) -> None: ...

    def forward(self, batch: Batch, draws: None) -> StepOutput:
        return StepOutput(self.weight, {})

    def trainable(self) -> Iterator[nn.Parameter]:
        return self.parameters()

    def commit(self, output: StepOutput) -> None: ...

    def export(self) -> dict[str, Any]:
        return {"model": {"weight": self.weight.detach().clone()}}

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        with torch.no_grad():
            self.weight.copy_(checkpoint["model"]["weight"])


class Run:
    """A run in ``output``, as training/run.py makes one, whose epochs are over at once."""

    def __init__(self, output: Path, resume: str = "", **flags: Any) -> None:
        options = Options(data="data", output=str(output), resume=resume, **{"save_every": 1, "epochs": 9} | flags)
        method = One()
        optimizer = build_optimizer("sgd", method.trainable(), 1e-3, 0.9, 0.0)
        self.state = TrainingState(
            method, optimizer, build_precision("off", torch.device("cpu"), method, optimizer), Position()
        )
        self.state.run = {"started": "now"}
        self.output, self.epochs = output, options.epochs
        checkpoint = find_resume(resume, output)
        if checkpoint:
            self.state.restore(checkpoint)
        settle_best(output, self.state, checkpoint)
        self.manager = CheckpointManager(
            self.state, NullReporter(), options, output, "hash", StopRequest(), steps_per_epoch=1
        )

    def epoch(self, score: float | None, weight: float | None = None) -> None:
        self.state.position.epoch += 1
        with torch.no_grad():
            self.state.method.weight.fill_(self.state.position.epoch if weight is None else weight)  # type: ignore[operator]
        self.manager.after_epoch(score)

    def best(self) -> tuple[int, float | None]:
        """The epoch that the run calls its best, and the weight that it would report with."""
        found = read_best(self.output, self.state, self.state.run)
        assert (found is None) == (self.state.best_epoch == 0) == (not (self.output / BEST).exists())
        return self.state.best_epoch, None if found is None else found["model"]["weight"].item()


def test_a_better_epoch_that_cannot_be_kept_is_not_the_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path)
    run.epoch(5.0)
    with largest_file(FULL):
        run.epoch(3.0)
    assert run.best() == (1, 1)
    assert run.state.waited == 1, "for --patience, it is a result that was no better"
    said = capsys.readouterr().err
    assert "training continues; the previous checkpoint is intact and would resume at epoch 2/9, step 1/1" in said
    run.epoch(4.0)  # worse than what was lost, better than what there is
    assert run.best() == (3, 3)


def test_a_run_that_is_stopped_and_cannot_save_does_not_say_that_it_goes_on(tmp_path: Path) -> None:
    """Status 2, not that of the signal: after which a cluster's script would begin the same job again."""
    run = Run(tmp_path, save_every=9)
    run.manager.save_before_an_error()
    assert not (tmp_path / LAST).exists(), "nothing was trained"
    run.epoch(5.0)
    run.state.position.step = 1
    run.manager.request.signum = signal.SIGTERM
    with (
        largest_file(FULL),
        pytest.raises(UserError, match=r"the run ends unsaved; .*would resume at epoch 2/9, step 1"),
    ):
        run.manager.after_step()
    with pytest.raises(Stopped):
        run.manager.after_step()
    assert Run(tmp_path, "auto").state.position == Position(1, 1)


def test_a_damaged_checkpoint_does_not_take_the_place_of_a_whole_one(tmp_path: Path) -> None:
    """A run that goes on from previous.pt has no other whole one until its first save is done."""
    run = Run(tmp_path)
    run.epoch(None)
    run.epoch(None)
    last = tmp_path / LAST
    last.write_bytes(last.read_bytes()[:-200])
    resumed = Run(tmp_path, "auto")
    assert resumed.state.position.epoch == 1
    former = (tmp_path / PREVIOUS).read_bytes()
    resumed.epoch(None)
    assert (tmp_path / PREVIOUS).read_bytes() == former
    resumed.epoch(None)
    assert torch.load(tmp_path / PREVIOUS, weights_only=True)["epoch"] == 2


def test_the_only_better_epoch_cannot_be_kept(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.epoch(None)
    with largest_file(FULL):
        run.epoch(3.0)
    assert run.best() == (0, None)


def test_a_kill_between_the_newest_state_and_the_best_one(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.epoch(5.0)
    former = (tmp_path / BEST).read_bytes()
    run.epoch(3.0)
    (tmp_path / BEST).unlink()
    assert Run(tmp_path, "auto").best() == (2, 2), "of the first best epoch there was no file yet"
    (tmp_path / BEST).unlink()
    (tmp_path / BEST).write_bytes(former)
    assert Run(tmp_path, "auto").best() == (2, 2)


def test_an_older_file_that_is_itself_the_best_so_far(tmp_path: Path) -> None:
    abandoned = Run(tmp_path)
    for score in (5.0, 6.0, 3.0):
        abandoned.epoch(score)
    assert abandoned.best() == (3, 3)
    assert Run(tmp_path, str(tmp_path / "pcrl_luna_pretask_0.8_1.pt")).best() == (1, 1)


def test_an_older_file_whose_best_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    abandoned = Run(tmp_path)
    for score in (5.0, 6.0, 3.0):
        abandoned.epoch(score)
    run = Run(tmp_path, str(tmp_path / "pcrl_luna_pretask_0.8_2.pt"))
    assert run.best() == (0, None)
    captured = capsys.readouterr()
    assert "no longer holds the best state so far (epoch 1)" in captured.err
    assert torch.load(tmp_path / "former_best.pt", weights_only=True)["model"]["weight"] == 3, "nothing is lost"
    run.epoch(7.0, weight=30)
    assert run.best() == (3, 30)


def test_the_best_of_another_run_in_the_folder(tmp_path: Path) -> None:
    Run(tmp_path).epoch(5.0)
    run = Run(tmp_path, "none")
    assert run.best() == (0, None)
    assert (tmp_path / "former_best.pt").exists()


def test_a_tie_does_not_take_the_abandoned_state(tmp_path: Path) -> None:
    """Killed before best.pt was written, where an abandoned run had the same score after the same epoch."""
    run = Run(tmp_path)
    run.epoch(5.0)
    run.epoch(3.0)
    abandoned = (tmp_path / BEST).read_bytes()
    again = Run(tmp_path, str(tmp_path / "pcrl_luna_pretask_0.8_1.pt"))
    again.state.run = {"started": "now", "resumed": ["later"]}
    again.epoch(3.0, weight=20)
    (tmp_path / BEST).unlink()
    (tmp_path / BEST).write_bytes(abandoned)
    assert Run(tmp_path, "auto").best() == (2, 20)


def test_nothing_is_trained_towards_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)
    message = r"^no checkpoint could be written to .*, and nothing of this run has been saved yet; make room"
    with largest_file(FULL), pytest.raises(UserError, match=message):
        run.epoch(3.0)
    assert not list(tmp_path.glob("*.pt"))
    shutil.copy(_saved(tmp_path / "other") / LAST, tmp_path / "other.pt")
    elsewhere = Run(tmp_path, str(tmp_path / "other.pt"))
    with largest_file(FULL), pytest.raises(UserError, match=message):
        elsewhere.epoch(3.0)


def _saved(output: Path) -> Path:
    output.mkdir()
    Run(output).epoch(5.0)
    return output


@pytest.mark.parametrize("resume", ["{}/last.pt", "{}/../out/last.pt", "auto"])
def test_however_the_newest_file_is_named_it_is_what_is_held(
    resume: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = _saved(tmp_path / "out")
    Run(output, resume.format(output)).manager.tell_what_is_there()
    assert "--resume auto goes on at epoch 2/9, step 1/1" in capsys.readouterr().out


def test_patience_counts_results(tmp_path: Path) -> None:
    run = Run(tmp_path, patience=2, val_every=3)
    for score, out in ((None, False), (None, False), (3.0, False), (None, False), (4.0, False), (None, False)):
        run.epoch(score)
        assert run.manager.out_of_patience() is out
    resumed = Run(tmp_path, "auto", patience=2, val_every=3)
    assert not resumed.manager.out_of_patience()
    resumed.epoch(5.0)
    assert resumed.manager.out_of_patience()
    assert resumed.best() == (3, 3)


def test_checkpoints_from_before_results_were_counted(tmp_path: Path) -> None:
    run = Run(tmp_path, patience=2, val_every=2)
    for score in (3.0, None, 4.0, None, 5.0):
        run.epoch(score)
    checkpoint = torch.load(tmp_path / LAST, weights_only=True)
    assert checkpoint.pop("waited") == 2
    torch.save(checkpoint, tmp_path / LAST)
    assert Run(tmp_path, "auto", patience=2, val_every=2).manager.out_of_patience()
