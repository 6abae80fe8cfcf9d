"""The interface between the training loop and a self-supervised method."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from utils.process_group import BatchShards

Batch = dict[str, Tensor]
PICTURED = 3  # samples of a batch, the first ones, that a step gives pictures of


class Panel(NamedTuple):
    """A panel of ``curves.png``: its title, what its y axis is, and the names of terms or statistics drawn there.

    ``log``: logarithmic, where the values span a decade. ``from_zero``: the axis begins at 0. ``most``: what no value
    can exceed. ``group``: of its names in TensorBoard; "": the title.
    """

    title: str
    axis: str
    names: tuple[str, ...]
    log: bool = False
    from_zero: bool = False
    most: float = math.inf
    group: str = ""


@dataclass
class StepOutput:
    """The result of one forward pass of a method.

    ``loss``: the scalar to minimise. ``terms``: its named parts (scalars, detached), for the logs. Both are means over
    the samples of this rank. ``images``: pictures of the first samples of the batch (PICTURED, C, ...), named
    ``row: column`` (position on the sheet) or ``column``. They are detached copies, because a slice would keep the map
    of the whole batch in memory until the next step. ``state``: the new state of the method, the same on all ranks.
    :meth:`Method.commit` writes it if loss and gradient were finite; until then, the state of the method does not
    change. ``statistics``: named scalars (detached) of this rank's batch, only for the logs.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    images: dict[str, Tensor] = field(default_factory=dict)
    state: Any = None
    statistics: dict[str, Tensor] = field(default_factory=dict)

    def means(self, shares: BatchShards) -> dict[str, float]:
        """``loss`` and the terms as means over the samples of all ranks, equal on all. All ranks must call."""
        return dict(zip(self.names(), shares.mean(self.values()).tolist(), strict=True))

    def names(self) -> list[str]:
        """``loss``, and the names of the terms."""
        return ["loss", *self.terms]

    def values(self) -> Tensor:
        """What :meth:`names` names, of this rank's samples, as one tensor."""
        return torch.stack([value.detach().to(self.loss.dtype) for value in (self.loss, *self.terms.values())])


class Method(nn.Module, ABC):
    """What is trained and how: ``forward(batch, draws)`` is a training step (the paper's) and returns a StepOutput.

    ``headline``: names of the terms and held-out results that the run shows beside the loss. ``panels``: the panels of
    ``curves.png`` for terms and statistics. ``continues``: names of the parts that :meth:`adopt` can take over from a
    former run, each with its key in the checkpoint.

    Random numbers of the step are drawn by :meth:`draw` and passed in, so a step can be repeated exactly. Where several
    processes train together, ``batch`` is this rank's part and ``draws`` are those of the whole batch.
    """

    headline: tuple[str, ...] = ()
    panels: Sequence[Panel] = ()
    continues: Mapping[str, str] = MappingProxyType({})

    def begin(self, epoch: int, epochs: int) -> None:
        """Called before an epoch (the first is 0), also where a run goes on within it: set what follows a schedule."""

    @abstractmethod
    def draw(self, batch_size: int, rng: np.random.Generator) -> Any:
        """Draw all random numbers of one step; ``batch_size``: the samples of all ranks."""

    def device_draws(self, draws: Any, device: torch.device, dtype: torch.dtype) -> Any:
        """``draws`` converted to tensors on ``device``, for a step that is computed in ``dtype``.

        A step can be captured (``MethodSpec.cuda_graph``) only if all draws are a dataclass of such tensors, and their
        shapes do not change.
        """
        return draws

    def committed(self) -> Iterable[Tensor]:
        """What :meth:`commit` writes beside buffers."""
        return ()

    @abstractmethod
    def trainable(self) -> Iterable[nn.Parameter]:
        """The parameters that the optimizer updates."""

    @abstractmethod
    def commit(self, output: StepOutput) -> None:
        """Called after the optimizer's step: write ``output.state``, update moving averages."""

    def drawn(self, images: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The ``images`` of a step, prepared for display; called only when a picture is drawn."""
        return images

    def features(self, image: Tensor) -> Tensor:
        """The encoder's deepest map of images (B, C, ...), averaged over space: (B, channels), for --probe_every."""
        raise NotImplementedError(f"{type(self).__name__} has no features")

    def warming(self) -> str:
        """The reason why results on held-out data do not count yet; "" if they count. The same on all ranks."""
        return ""

    def held_out_score(self, losses: Mapping[str, float]) -> float:
        """The score on held-out data, the lower the better, from the means of the loss and of its terms."""
        return losses["loss"]

    def on_micro_batch_end(self, output: StepOutput) -> None:
        """Called between the micro-batches of a step (--accumulate): write the state that the next one needs."""

    @abstractmethod
    def export(self) -> dict[str, Any]:
        """The entries of a checkpoint that users load elsewhere, and all that :meth:`restore` needs.

        All ranks must call.
        """

    def adopt(self, part: str, entry: Any) -> None:
        """Begin with this part of another run, from its checkpoint's entry; an error of torch's if it does not fit."""
        raise NotImplementedError(f"{type(self).__name__} takes over no {part}")

    @abstractmethod
    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Put the method back into the state that :meth:`export` saved."""
