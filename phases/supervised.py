"""``--phase finetune`` and ``--phase linear``: learning a task from labels; with linear only a new head learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from datasets.registry import list_name
from methods.base import Method
from options import Options
from phases.task import Task
from phases.tasks import TASKS
from training.checkpoint import BEST, TrainingState
from training.devices import Devices
from training.precision import Precision
from training.predict import evaluating, write_results
from training.report import Reporter, Silence
from training.run import Job, execute
from training.validate import Judgement
from utils import torch_file
from utils.console import say, warn
from utils.ranks import Ranks


@dataclass(frozen=True)
class Periodic:
    """The evaluation that chooses the epoch: every so many epochs, and after the last."""

    judge: Callable[[Precision], Judgement]
    every: int
    epochs: int

    def due(self, epoch: int) -> bool:
        return epoch % self.every == 0 or epoch == self.epochs

    def __call__(self, method: Method, precision: Precision) -> Judgement:
        with evaluating(method):
            return self.judge(precision)


def learn(options: Options, devices: Devices, ranks: Ranks) -> None:
    """Train on the task's training part, then report on its test part with the weights of the best epoch."""

    def build() -> Job:
        if options.phase == "linear" and not options.weight:
            warn("--phase linear without --weight: the head learns on an encoder of random values")
        task = TASKS[options.n](options, devices, ranks)
        evaluation = Periodic(task.judge, options.val_every, options.epochs)
        finish, shape = partial(_finish, task, options), task.loader.first_sample["image"].shape[1:]
        listed = list_name(options.n, Path(options.data), options.train_list or None)
        facts = {"shape": list(shape), "list": listed, **task.start}
        return Job(task.method, task.loader, task.files, (0.0, 1.0), evaluation, finish, facts, task.note)

    execute(options, devices, ranks, build)


def _finish(task: Task, options: Options, output: Path, state: TrainingState, reporter: Reporter | Silence) -> None:
    """Evaluate the best weights on the test part."""
    ranks = state.ranks
    with ranks.together():
        best = torch_file.load(output / BEST)["model"] if ranks.first and state.best_epoch else None
    if best := ranks.from_first(best):
        task.method.restore({"model": best})
    epoch = state.best_epoch or state.position.epoch
    with evaluating(task.method):
        results = task.report(state.precision)
    reporter.results(results.scalars)
    with ranks.together():
        if ranks.first:
            start = options.weight or "none"
            run = {"phase": options.phase, "task": options.n, "weight": start, "best_epoch": epoch}
            write_results(output, run | results.values)
    say(f"results on the test part, with the weights of epoch {epoch}:\n{results.table}")
