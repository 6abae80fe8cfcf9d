"""The training loop. It does not depend on the method (queue, teacher) or on the number of dimensions."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from datasets.loader import Loader
from methods.base import Batch, Method
from training.checkpoint import Position
from training.checkpoint_manager import CheckpointManager
from training.device_clock import EVENT, DeviceClock
from training.distributed import distributed
from training.evaluation import Evaluation
from training.gated import GatedStep, Outcome, Part, Snapshot, StepResult, can_be_gated, has_begun
from training.graph import StepGraph
from training.precision import Native, Precision
from training.reporting.epoch import StepReport
from training.reporting.reporter import NullReporter, Reporter
from training.schedule import cosine_lr, set_lr
from utils.errors import Diverged, UserError
from utils.process_group import SINGLE, ProcessGroup
from utils.seeding import generator
from utils.text import counted

Result = TypeVar("Result")


def micro_batch_sizes(batch_size: int, ranks: int, parts: int) -> list[int]:
    """At most ``parts`` sizes, about equal, that sum to ``batch_size``; each rank's shares of them sum to its share."""
    each, rest = divmod(batch_size, ranks)
    sizes = [ranks * (each // parts + (part < each % parts)) for part in range(min(parts, each))]
    sizes[-1] += rest
    return sizes


class Trainer:
    """Steps of a method. A step whose loss or gradient is not finite leaves no trace but a count.

    All ranks agree on what is finite: the loss that is looked at is the mean over all, and so is the gradient.
    ``accumulate``: number of micro-batches of a step. Each has its own forward and backward pass, and the gradients are
    summed, to save memory. Batch normalisation and mixup use one micro-batch at a time.
    Create the Trainer before the method's state is restored: all ranks then start with the values of the first rank.

    ``gated``: on a GPU the host does not wait for a step (training/gated.py); :meth:`launch` gives what reads it.
    ``graph``: replays the steps of full batches, if it can (training/graph.py); not with ``accumulate``.
    """

    def __init__(
        self,
        method: Method,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        seed: int,
        max_bad_steps: int,
        ranks: ProcessGroup = SINGLE,
        accumulate: int = 1,
        graph: StepGraph | None = None,
    ) -> None:
        self.method, self.optimizer, self.precision = method, optimizer, precision
        self.seed, self.max_bad_steps, self.accumulate = seed, max_bad_steps, accumulate
        self.ranks, self._forward = ranks, distributed(method, ranks)
        self.bad_in_a_row = 0
        self.gated = None
        if isinstance(precision, Native) and can_be_gated(optimizer):
            self.gated = GatedStep(method, self._forward, optimizer, precision)
        self.graph = graph
        self.clock = DeviceClock(EVENT if self.gated and next(method.parameters()).is_cuda else None)
        self._begun = False

    @property
    def steps_behind(self) -> int:
        """How many steps may be launched before the one before them is read."""
        return 1 if self.gated else 0

    def step(self, batch: Batch, number: int, batch_size: int) -> StepResult:
        """Forward, backward and update with this rank's ``batch`` of ``batch_size`` samples over all ranks.

        The step's random numbers depend on the seed and its ``number`` alone. UserError after
        ``max_bad_steps`` bad steps in a row.
        """
        return self.launch(batch, number, batch_size)()

    def launch(self, batch: Batch, number: int, batch_size: int) -> Callable[[], StepResult]:
        """:meth:`step`, whose result is there when it is asked for; in the order of the launches, please."""
        parts = list(self._micro_batches(batch, batch_size, generator(self.seed, "step", number)))
        self._begun = self._begun or has_begun(self.optimizer)
        if not self.gated or not self._begun:
            result = self._ordinary_step(parts)
            self.clock.forget()

            def read() -> StepResult:
                return result

        else:
            read = self._gated_step(self.gated, parts).reading()
            self.clock.end()

        def count() -> StepResult:
            result = read()
            self.bad_in_a_row = 0 if result.good else self.bad_in_a_row + 1
            if self.bad_in_a_row >= self.max_bad_steps:
                raise self._too_many_bad(result.terms, number)
            return result

        return count

    def _gated_step(self, gated: GatedStep, parts: list[Part]) -> Outcome:
        device = next(iter(parts[0].batch.values())).device
        for part in parts:
            part.draws = self.method.device_draws(part.draws, device, gated.precision.computes_in(self.method))
        if self.graph:  # then a step has one part
            return self.graph.step(gated, *parts)
        return gated(parts, self._gradients_stay)

    def beside_graph(self, compute: Callable[[], Result]) -> Result:
        """The result of ``compute``, which leaves the method as it was; if need be, the graph makes room for it."""
        if self.graph and self.gated:
            return self.graph.beside(self.gated, self.method.buffers(), compute)
        return compute()

    def _ordinary_step(self, parts: list[Part]) -> StepResult:
        """The step, at whose loss and gradient the host looks before it goes on."""
        buffers = Snapshot(self.method.buffers())
        self.optimizer.zero_grad(set_to_none=True)
        terms: dict[str, float] = {}
        output = None
        for number, part in enumerate(parts, 1):
            if output:
                self.method.on_micro_batch_end(output)
            with self._gradients_stay(number < len(parts)):
                with self.precision.autocast():
                    output = self._forward(part.batch, part.draws)
                for name, value in output.means(part.shards).items():
                    terms[name] = terms.get(name, 0.0) + part.share * value
                if not math.isfinite(terms["loss"]):
                    break
                self.precision.backward(output.loss * (part.shards.weight * part.share), self.optimizer)
        assert output, "a batch has samples"
        loss = terms.pop("loss")
        good = math.isfinite(loss) and self.precision.update(self.optimizer)
        if good:
            self.method.commit(output)
        else:
            buffers.put_back()  # a batch norm that saw an overflow would never forget it
        return StepResult(loss, terms, good, output.images, output.statistics)

    def _gradients_stay(self, asked: bool) -> AbstractContextManager[None]:
        """With several ranks, and if ``asked``: they sum their gradients up, each its own, and exchange them later."""
        if asked and isinstance(self._forward, DistributedDataParallel):
            return self._forward.no_sync()
        return nullcontext()

    def _micro_batches(self, batch: Batch, batch_size: int, rng: np.random.Generator) -> Iterator[Part]:
        """The micro-batches, with this rank's rows of each."""
        start = 0
        for size in micro_batch_sizes(batch_size, self.ranks.size, self.accumulate):
            shards = self.ranks.shares(size)
            end = start + shards.sizes[self.ranks.rank]
            rows = {name: value[start:end] for name, value in batch.items()}
            yield Part(rows, self.method.draw(size, rng), shards, size / batch_size)
            start = end

    def _too_many_bad(self, terms: dict[str, float], number: int) -> UserError:
        values = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
        return UserError(
            f"{counted(self.bad_in_a_row, 'step')} in a row up to step {number + 1} had a loss or gradient that is not "
            f"finite ({values}; precision {self.precision.name}); the last checkpoint is not affected. Try a smaller "
            f"--lr or --amp off, and check the data with --preview"
        )


def step_report(result: StepResult, **known: Any) -> StepReport:
    """A step's result, and what else is known of it, for the reporter."""
    return StepReport(
        loss=result.loss,
        terms=result.terms,
        good=result.good,
        images=result.images,
        statistics=result.statistics,
        **known,
    )


class _Launched:
    """The steps that were launched and are not reported yet: of some the result is read a step late."""

    def __init__(self, reporter: Reporter | NullReporter) -> None:
        self._reporter = reporter
        self._unread: deque[tuple[Callable[[], StepResult], Callable[..., StepReport]]] = deque()
        self._waits: list[Callable[[], float]] = []  # for batches, in seconds, since a step was read
        self.started = time.perf_counter()  # of the next step that is read

    def add(
        self, result: Callable[[], StepResult], report: Callable[..., StepReport], waited: Callable[[], float]
    ) -> None:
        """A step; ``report``: makes what is reported of it, but for its ``result`` and times.

        ``waited``: the seconds that it waited for its batch, to be asked when the step before it was read.
        """
        self._unread.append((result, report))
        self._waits.append(waited)

    def read(self, but: int = 0) -> None:
        """Report the steps that were launched, all ``but`` the last ones."""
        while len(self._unread) > but:
            result, report = self._unread.popleft()
            found = result()
            finished = time.perf_counter()
            seconds = finished - self.started
            waits, self._waits = self._waits, []  # those that fall in these seconds
            data_seconds = min(sum(waited() for waited in waits), seconds)
            self._reporter.step(report(result=found, seconds=seconds, data_seconds=data_seconds))
            self.started = finished  # to report and to save is part of a step, but no waiting


def train(
    trainer: Trainer,
    loader: Loader,
    reporter: Reporter | NullReporter,
    checkpoints: CheckpointManager,
    *,
    lr: float,
    epochs: int,
    position: Position,
    warmup_epochs: int = 0,
    evaluation: Evaluation | None = None,
    probe: Evaluation | None = None,
    by_probe: bool = False,
) -> None:
    """Train from ``position`` to the end; ``position`` moves along, and ``checkpoints`` saves what it says.

    ``probe`` judges beside ``evaluation``; ``by_probe``: its score chooses the best state.
    """
    trainer.method.train()
    loader.arrived = trainer.clock.begin
    launched = _Launched(reporter)
    checkpoints.before_saving = launched.read

    def judge() -> None:
        """The results of the epoch that is completed, and what is kept by them."""
        try:
            with checkpoints.request.answering("stopping after the results on held-out data, then saving"):
                score = _judge(trainer, reporter, evaluation, position.epoch)
                probed = _probe(trainer, reporter, probe, position.epoch)
        except Diverged:
            raise
        except UserError:
            checkpoints.save_before_an_error(owes_results=True)
            raise
        checkpoints.after_epoch(probed if by_probe else score)

    if position == Position():
        _probe(trainer, reporter, probe, 0)
    if checkpoints.owed_results():
        judge()
    while position.epoch < epochs and not checkpoints.out_of_patience():
        epoch = position.epoch
        epoch_lr = cosine_lr(lr, epoch, epochs, warmup_epochs)
        set_lr(trainer.optimizer, epoch_lr)
        trainer.method.begin(epoch, epochs)
        _train_epoch(trainer, loader, reporter, checkpoints, launched, position, epoch_lr)
        position.epoch, position.step, position.used = epoch + 1, 0, 0
        reporter.epoch_end(epoch)
        judge()


def _train_epoch(
    trainer: Trainer,
    loader: Loader,
    reporter: Reporter | NullReporter,
    checkpoints: CheckpointManager,
    launched: _Launched,
    position: Position,
    lr: float,
) -> None:
    """The steps of the epoch of ``position``, from its step on; all of them are reported in the end."""
    epoch = position.epoch
    launched.started = waiting = time.perf_counter()
    for batch in _batches(loader, position, checkpoints):
        fetched = time.perf_counter()
        reporter.fetched()
        batch_size = loader.batch_sizes[position.step]
        result = trainer.launch(batch, epoch * len(loader) + position.step, batch_size)
        position.step += 1
        position.used += batch_size
        report = partial(
            step_report,
            epoch=epoch,
            step=position.step,
            lr=lr,
            faults=loader.take_faults(),
            samples=batch_size,
        )
        launched.add(result, report, trainer.clock.idle(fetched - waiting))
        launched.read(but=trainer.steps_behind)
        checkpoints.after_step()
        waiting = time.perf_counter()
    launched.read()


def _batches(loader: Loader, position: Position, checkpoints: CheckpointManager) -> Iterator[Batch]:
    """The rest of the batches of the epoch; where the data end the run, what is trained is saved first."""
    try:
        yield from loader.epoch(position.epoch, position.step)
    except UserError:
        checkpoints.save_before_an_error()
        raise


def _judge(
    trainer: Trainer, reporter: Reporter | NullReporter, evaluation: Evaluation | None, epoch: int
) -> float | None:
    """Judge if it is time, ``epoch`` epochs being completed, and report it; -> the score."""
    if evaluation is None or not evaluation.due(epoch):
        return None
    judged = trainer.beside_graph(lambda: evaluation(trainer.method, trainer.precision))
    reporter.validation(epoch - 1, judged)
    return judged.score


def _probe(trainer: Trainer, reporter: Reporter | NullReporter, probe: Evaluation | None, epoch: int) -> float | None:
    """Probe if it is time, ``epoch`` epochs being completed, and report it; -> the score."""
    if probe is None or not probe.due(epoch):
        return None
    started = time.perf_counter()
    result = trainer.beside_graph(lambda: probe(trainer.method, trainer.precision))
    reporter.probe(epoch, result, time.perf_counter() - started)
    return result.score
