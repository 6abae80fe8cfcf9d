"""The training loop: it has never heard of queues, teachers, 2D or 3D."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from datasets.loader import Loader
from methods.base import Batch, Method
from training.checkpoint import Position
from training.checkpoint_manager import CheckpointManager
from training.distributed import distributed
from training.evaluation import Evaluation
from training.precision import Precision
from training.reporting.reporter import NullReporter, Reporter, StepReport
from training.schedule import cosine_lr, set_lr
from utils.errors import UserError
from utils.process_group import SINGLE, ProcessGroup
from utils.seeding import generator
from utils.text import counted


@dataclass
class StepResult:
    """``loss``, ``terms``: means over the batch of all ranks. ``good``: the update took place."""

    loss: float
    terms: dict[str, float]
    good: bool
    images: dict[str, Tensor]
    statistics: dict[str, Tensor]


def micro_batch_sizes(batch_size: int, ranks: int, parts: int) -> list[int]:
    """At most ``parts`` sizes, about equal, that sum to ``batch_size``; each rank's shares of them sum to its share."""
    each, rest = divmod(batch_size, ranks)
    sizes = [ranks * (each // parts + (part < each % parts)) for part in range(min(parts, each))]
    sizes[-1] += rest
    return sizes


class Trainer:
    """Steps of a method. A step whose loss or gradient is not finite leaves no trace but a count.

    All ranks agree on what is finite: the loss that is looked at is the mean over all, and so is the gradient.
    ``accumulate``: the micro-batches that a step's batch is taken in, one forward and backward each and their gradients
    summed, to save memory. Batch normalisation and what mixes samples see a micro-batch alone.
    Make it before the method's state is restored: all ranks then start with the first one's values.
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
    ) -> None:
        self.method, self.optimizer, self.precision = method, optimizer, precision
        self.seed, self.max_bad_steps, self.accumulate = seed, max_bad_steps, accumulate
        self.ranks, self._forward = ranks, distributed(method, ranks)
        self.bad_in_a_row = 0

    def step(self, batch: Batch, number: int, batch_size: int) -> StepResult:
        """Forward, backward and update with this rank's ``batch`` of ``batch_size`` samples over all ranks.

        The step's random numbers depend on the seed and its ``number`` alone. UserError after
        ``max_bad_steps`` bad steps in a row.
        """
        rng = generator(self.seed, "step", number)
        buffers = [(buffer, buffer.clone()) for buffer in self.method.buffers()]
        self.optimizer.zero_grad(set_to_none=True)
        terms: dict[str, float] = {}
        output = None
        parts = list(self._micro_batches(batch, batch_size))
        for number_of_part, (part, size) in enumerate(parts, 1):
            if output:
                self.method.on_micro_batch_end(output)
            draws, shares, share = self.method.draw(size, rng), self.ranks.shares(size), size / batch_size
            with self._gradients_stay(number_of_part < len(parts)):
                with self.precision.autocast():
                    output = self._forward(part, draws)
                for name, value in output.means(shares).items():
                    terms[name] = terms.get(name, 0.0) + share * value
                if not math.isfinite(terms["loss"]):
                    break
                self.precision.backward(output.loss * (shares.weight * share), self.optimizer)
        assert output, "a batch has samples"
        loss = terms.pop("loss")
        good = math.isfinite(loss) and self.precision.update(self.optimizer)
        if good:
            self.method.commit(output)
            self.bad_in_a_row = 0
        else:
            with torch.no_grad():
                for buffer, former in buffers:  # a batch norm that saw an overflow would never forget it
                    buffer.copy_(former)
            self._count_bad(terms, number)
        return StepResult(loss, terms, good, output.images, output.statistics)

    def _gradients_stay(self, asked: bool) -> AbstractContextManager[None]:
        """With several ranks, and if ``asked``: they sum their gradients up, each its own, and exchange them later."""
        if asked and isinstance(self._forward, DistributedDataParallel):
            return self._forward.no_sync()
        return nullcontext()

    def _micro_batches(self, batch: Batch, batch_size: int) -> Iterator[tuple[Batch, int]]:
        """This rank's rows of each micro-batch, and its size over all ranks."""
        start = 0
        for size in micro_batch_sizes(batch_size, self.ranks.size, self.accumulate):
            end = start + self.ranks.shares(size).sizes[self.ranks.rank]
            yield {name: value[start:end] for name, value in batch.items()}, size
            start = end

    def _count_bad(self, terms: dict[str, float], number: int) -> None:
        self.bad_in_a_row += 1
        if self.bad_in_a_row < self.max_bad_steps:
            return
        values = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
        raise UserError(
            f"{counted(self.bad_in_a_row, 'step')} in a row up to step {number + 1} had a loss or gradient that is not "
            f"finite ({values}; precision {self.precision.name}); the last checkpoint is from before. "
            f"Try a smaller --lr, --amp off, and look at the data"
        )


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
    if position == Position():
        _probe(trainer, reporter, probe, 0)
    while position.epoch < epochs and not checkpoints.out_of_patience():
        epoch = position.epoch
        epoch_lr = cosine_lr(lr, epoch, epochs, warmup_epochs)
        set_lr(trainer.optimizer, epoch_lr)
        trainer.method.begin(epoch, epochs)
        started = waiting = time.perf_counter()
        for batch in loader.epoch(epoch, position.step):
            fetched = time.perf_counter()
            reporter.fetched()
            batch_size = loader.batch_sizes[position.step]
            result = trainer.step(batch, epoch * len(loader) + position.step, batch_size)
            finished = time.perf_counter()
            position.step += 1
            reporter.step(
                StepReport(
                    epoch=epoch,
                    step=position.step,
                    lr=epoch_lr,
                    loss=result.loss,
                    terms=result.terms,
                    good=result.good,
                    images=result.images,
                    statistics=result.statistics,
                    faults=loader.take_faults(),
                    samples=batch_size,
                    seconds=finished - started,
                    data_seconds=fetched - waiting,
                )
            )
            checkpoints.after_step()
            started, waiting = finished, time.perf_counter()  # to report and to save is part of a step, but no waiting
        position.epoch, position.step = epoch + 1, 0
        reporter.epoch_end(epoch)
        score = _judge(trainer, reporter, evaluation, position.epoch)
        probed = _probe(trainer, reporter, probe, position.epoch)
        checkpoints.after_epoch(probed if by_probe else score)


def _judge(
    trainer: Trainer, reporter: Reporter | NullReporter, evaluation: Evaluation | None, epoch: int
) -> float | None:
    """Judge if it is time, ``epoch`` epochs being completed, and report it; -> the score."""
    if evaluation is None or not evaluation.due(epoch):
        return None
    judged = evaluation(trainer.method, trainer.precision)
    reporter.validation(epoch - 1, judged)
    return judged.score


def _probe(trainer: Trainer, reporter: Reporter | NullReporter, probe: Evaluation | None, epoch: int) -> float | None:
    """Probe if it is time, ``epoch`` epochs being completed, and report it; -> the score."""
    if probe is None or not probe.due(epoch):
        return None
    started = time.perf_counter()
    result = probe(trainer.method, trainer.precision)
    reporter.probe(epoch, result, time.perf_counter() - started)
    return result.score
