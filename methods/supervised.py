"""Learning from labels: a network on a U-Net and a loss, as a method that the training loop runs like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from methods.base import Batch, Method, Panel, StepOutput
from models.unet import Z_NORMAL, UNetNetwork, checkpoint_weights, load_published_state
from utils.process_group import SINGLE, ProcessGroup

Loss = Callable[[Tensor, Tensor], Tensor]


class Supervised(Method):
    """Trains ``network`` on batches of ``image`` (B, C, ...) and ``label`` (B, ...).

    ``loss``: (outputs in float32, labels) -> the mean over the samples. ``frozen``: parts of the network that keep
    their values, and whose batch normalisations use their running statistics. ``headline``: as in Method.
    ``wrap``: makes a network parallel (DataParallel). ``ranks``: the processes that train together; the running
    statistics of all are their mean.
    """

    panels = (
        Panel("results on held-out data", "score, 0 to 1", ("auroc", "balanced_accuracy", "dice"), most=1.0),
        Panel("error on held-out data", "mean absolute error", ("mae",), from_zero=True),
    )

    def __init__(
        self,
        network: UNetNetwork,
        loss: Loss,
        frozen: Sequence[nn.Module] = (),
        headline: tuple[str, ...] = (),
        wrap: Callable[[nn.Module], Callable[..., Any]] = lambda module: module,
        ranks: ProcessGroup = SINGLE,
    ) -> None:
        super().__init__()
        self.network = network
        self.headline = headline
        self.ranks = ranks
        self._loss, self._frozen, self._wrap = loss, tuple(frozen), wrap
        for module in self._frozen:
            module.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Supervised:
        """What is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def draw(self, batch_size: int, rng: np.random.Generator) -> None:
        """Nothing of a step is random: augmentation belongs to the samples."""

    def trainable(self) -> Iterable[nn.Parameter]:
        return (parameter for parameter in self.network.parameters() if parameter.requires_grad)

    def predict(self, image: Tensor) -> Tensor:
        """The network's outputs for (B, C, ...), in float32."""
        return self._wrap(self.network)(image).float()

    def forward(self, batch: Batch, draws: None = None) -> StepOutput:
        return StepOutput(self._loss(self.predict(batch["image"]), batch["label"]), terms={})

    @torch.no_grad()
    def commit(self, output: StepOutput) -> None:
        """With several ranks: the running statistics become their mean, so that all ranks evaluate one network."""
        statistics = [buffer for buffer in self.buffers() if buffer.is_floating_point()]
        if self.ranks.size == 1 or not statistics:
            return
        flat = torch.cat([buffer.flatten() for buffer in statistics])
        mean = self.ranks.shares(self.ranks.size).mean(flat)
        for buffer, values in zip(statistics, mean.split([b.numel() for b in statistics]), strict=True):
            buffer.copy_(values.view_as(buffer))

    def export(self) -> dict[str, Any]:
        """``model``: the network. ``state_dict``, and ``decoder_state_dict`` if it has one: as PCRL's."""
        return checkpoint_weights(self.network)

    def restore(self, checkpoint: dict[str, Any]) -> None:
        load_published_state(self.network, checkpoint["model"])
        self.network.z_normalised = checkpoint.get("inputs") == Z_NORMAL
