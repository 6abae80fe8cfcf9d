"""``--phase finetune`` and ``--phase linear``: learning a task from labels; with linear only a new head learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from datasets.registry import list_name
from methods.base import Method
from options import Options
from reports.of_run import report_on
from tasks import TASKS
from tasks.base import Task
from tasks.leftover import with_labelled_list, with_ratio
from training.best import read_best
from training.checkpoint import BEST, TrainingState
from training.devices import Devices
from training.evaluation import EvalResult
from training.precision import Precision
from training.predict import evaluating, write_results
from training.reporting.reporter import NullReporter, Reporter
from training.run import TrainingJob, execute
from utils.console import say, warn
from utils.errors import UserError
from utils.image_grid import Windows
from utils.process_group import ProcessGroup


@dataclass(frozen=True)
class PeriodicEval:
    """The evaluation that chooses the epoch: every so many epochs, and after the last."""

    validate: Callable[[Precision], EvalResult]
    every: int
    epochs: int

    def due(self, epoch: int) -> bool:
        return epoch % self.every == 0 or epoch == self.epochs

    def __call__(self, method: Method, precision: Precision) -> EvalResult:
        with evaluating(method):
            return self.validate(precision)


def finetune(options: Options, devices: Devices, ranks: ProcessGroup) -> None:
    """Train on the task's training part, then report on its test part with the weights of the best epoch."""

    options = with_ratio(with_labelled_list(options), ranks)

    def build() -> TrainingJob:
        if options.phase == "linear" and not (options.weight or options.goes_on):
            warn("--phase linear without --weight: the head is trained on an encoder with random weights")
        task = TASKS[options.n](options, devices, ranks)
        evaluation = PeriodicEval(task.validate, options.val_every, options.epochs)
        finish, shape = partial(_finish, task, options), task.loader.first_sample["image"].shape[1:]
        listed = list_name(options.n, Path(options.data), options.train_list or None)
        facts = {"shape": list(shape), "list": listed, **task.facts, **task.start}
        windows = Windows((0.0, 1.0))
        job = TrainingJob(task.method, task.loader, task.files, windows, evaluation, finish, facts, task.note)
        return replace(job, report=report_on, written=task.written)

    execute(options, devices, ranks, build)


def _finish(
    task: Task, options: Options, output: Path, state: TrainingState, reporter: Reporter | NullReporter
) -> None:
    """Evaluate the best weights on the test part."""
    ranks = state.ranks
    best = ranks.broadcast(read_best(output, state, state.run) if ranks.first else None)
    if best:
        task.method.restore(best)
    else:
        warn(f"this run has no {BEST}: the results below are from the weights of the last epoch")
    epoch = best["epoch"] if best else state.position.epoch
    try:
        with evaluating(task.method):
            results = task.test(state.precision, output)
    except UserError as error:
        raise UserError(
            f"{error}; the training is saved: mend this, then --resume auto evaluates the test part"
        ) from None
    reporter.results(results.scalars)
    with ranks.raise_on_all():
        if ranks.first:
            start = state.run["begun_with"]  # a run that goes on needs no --weight
            run = {"phase": options.phase, "task": options.n, "weight": start, "best_epoch": epoch}
            write_results(output, run | results.values)
    say(f"results on the test part, with the weights of epoch {epoch}:\n{results.table}")
