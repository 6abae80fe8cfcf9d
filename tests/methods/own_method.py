"""A method of a user's own, outside of the project's registry: the crop is reconstructed from its view, no more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import Batch, Method, Panel, StepOutput
from methods.spec import MethodSpec, Settings, Wrap, unet_of
from models.unet import UNetNetwork, checkpoint_weights, load_published_state
from utils.process_group import ProcessGroup


class Autoencoder(UNetNetwork):
    """Encode and decode."""

    def forward(self, image: Tensor) -> Tensor:
        return self.unet.decode(self.unet.encode(image))


class Reconstruction(Method):
    """The mean absolute difference of the decoded view and the crop, with a little noise on the view."""

    headline = ("error",)
    panels = (Panel("error", "absolute", ("error",), log=True),)

    def __init__(self, network: UNetNetwork, wrap: Wrap) -> None:
        super().__init__()
        self.network, self._wrap = network, wrap

    def draw(self, batch_size: int, rng: np.random.Generator) -> float:
        return float(rng.uniform(0, 0.1))

    def trainable(self) -> Iterable[nn.Parameter]:
        return self.network.parameters()

    def forward(self, batch: Batch, draws: float) -> StepOutput:
        output = self._wrap(self.network)(batch["input1"] + draws)
        error = F.l1_loss(output.to(batch["gt1"].dtype), batch["gt1"])
        images = {"view": batch["input1"], "crop": batch["gt1"], "output": output.detach()}
        return StepOutput(error, {"error": error.detach()}, images)

    def commit(self, output: StepOutput) -> None:
        """Nothing but the parameters changes."""

    def export(self) -> dict[str, Any]:
        return checkpoint_weights(self.network)

    def restore(self, checkpoint: dict[str, Any]) -> None:
        load_published_state(self.network, checkpoint["model"])


def _network(settings: Settings) -> Autoencoder:
    return Autoencoder(unet_of(settings))


def _build(network: UNetNetwork, settings: Settings, n_data: int, wrap: Wrap, ranks: ProcessGroup) -> Reconstruction:
    return Reconstruction(network, wrap)


SPEC = MethodSpec("own", "Reconstruction alone", _network, _build, "pcrl", "nobody", "the optimizer")
