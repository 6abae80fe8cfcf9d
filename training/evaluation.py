"""Judging a method between epochs: by its training losses on held-out data, or as a phase says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from datasets.loader import Loader
from methods.base import Method
from training.precision import Precision
from utils.seeding import generator


class EvalResult(NamedTuple):
    """``score``: the lower the better; the state with the lowest is kept. ``values``: all figures, for the logs.

    ``over``: what a figure is the mean of, for people: ``{"auroc": "3 of 14 classes"}``. ``score`` None: this result
    does not count, and ``why_not`` says why.
    """

    score: float | None
    values: dict[str, float]
    over: Mapping[str, str] = {}  # never changed
    why_not: str = ""


class Evaluation(Protocol):
    """How a method is judged between epochs. It leaves every parameter and buffer as it was."""

    def due(self, epoch: int) -> bool:
        """Whether it is time, ``epoch`` epochs being completed."""

    def __call__(self, method: Method, precision: Precision) -> EvalResult: ...


@dataclass(frozen=True)
class ValidationLoss:
    """By the method's score of its losses on held-out data, every so many epochs. It counts once the method is warm."""

    loader: Loader
    every: int
    seed: int

    def due(self, epoch: int) -> bool:
        return epoch % self.every == 0

    def __call__(self, method: Method, precision: Precision) -> EvalResult:
        losses = validate(method, self.loader, precision, self.seed)
        why_not = method.warming()
        return EvalResult(None if why_not else method.held_out_score(losses), losses, why_not=why_not)


@torch.no_grad()
def validate(method: Method, loader: Loader, precision: Precision, seed: int) -> dict[str, float]:
    """Means of the loss and of its terms over ``loader``'s samples, as the method trains now.

    Each batch is a training step without its end: batch normalisation uses the batch, as in training, and
    keys are pushed into a copy of the queue that is dropped. Views and draws are the same at every call.
    Every parameter and buffer has the same bits afterwards.
    """
    former = [(buffer, buffer.clone()) for buffer in method.buffers()]
    sums: dict[str, float] = {}
    samples = 0
    for number, batch in enumerate(loader.epoch(0)):
        size = loader.batch_sizes[number]
        draws = method.draw(size, generator(seed, "validation", number))
        with precision.autocast():
            output = method(batch, draws)
        for name, value in output.means(loader.ranks.shares(size)).items():
            sums[name] = sums.get(name, 0.0) + size * value
        samples += size
    for buffer, value in former:
        buffer.copy_(value)
    return {name: value / samples for name, value in sums.items()}
