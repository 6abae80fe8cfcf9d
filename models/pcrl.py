"""The PCRL network: one class for 2D and 3D. encode -> features; head; gate; decode.

Paper: Zhou et al., "Preservational Learning Improves Self-supervised Medical Image Models by
Reconstructing Diverse Contexts", ICCV 2021 (arXiv 2109.04379).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.build import build_unet
from models.shared import shared
from models.unet import UNet, UNetNetwork

EMBEDDING_SIZE = 128
GATE_HIDDEN = 256
FLIPS = {2: 2, 3: 3}
QUARTER_TURNS = 4


class Context(NamedTuple):
    """What the mixed decoder pass takes from the teacher (the paper's cross-model mixup).

    ``features``: the teacher's, shallow to deep, without gradient. ``alpha``: the student's share.
    A named tuple, since DataParallel scatters tuples over the devices and knows no other record.
    """

    features: list[Tensor]
    alpha: float | Tensor


class PCRLNetwork(UNetNetwork):
    """A U-Net with a contrast head and a gate (transformation-conditioned attention).

    ``unet`` has ``encode``, ``decode``, ``dims`` and ``feature_channels``.
    """

    def __init__(self, unet: UNet) -> None:
        super().__init__(unet)
        deepest = unet.feature_channels[-1]
        self.fc1 = nn.Linear(deepest, EMBEDDING_SIZE)
        self.fc2 = nn.Linear(EMBEDDING_SIZE, EMBEDDING_SIZE)
        self.aug_fc1 = nn.Linear(FLIPS[self.dims] + QUARTER_TURNS, GATE_HIDDEN)
        self.aug_fc2 = nn.Linear(GATE_HIDDEN, deepest)

    def head(self, deepest: Tensor) -> Tensor:
        """Deepest feature (B, C, ...) -> embedding (B, 128), not normalised."""
        return _linear(self.fc2, F.relu(_linear(self.fc1, deepest.flatten(2).mean(-1))))

    def gate(self, deepest: Tensor, code: Tensor) -> Tensor:
        """Weigh the channels of (B, C, ...) by the spatial-transform code (B, 6) in 2D, (B, 7) in 3D.

        The paper's outer product is replaced by this channel-wise product, for stability.
        """
        weights = self.gate_weights(code)
        return deepest * weights.reshape(*weights.shape, *[1] * self.dims)

    def gate_weights(self, code: Tensor) -> Tensor:
        """Spatial-transform code -> a weight in 0..1 for each channel of the deepest feature, (B, C).

        This calls no module, so it can be used outside ``forward``, also where DataParallel wraps the network.
        """
        return torch.sigmoid(_linear(self.aug_fc2, F.relu(_linear(self.aug_fc1, code))))

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """The modules of encoder and heads, and those of the decoder."""
        roots = [*self.unet.up_blocks(), self.unet.output_layer()]
        decoder = [module for root in roots for module in root.modules()]
        of_decoder = set(decoder)
        return [module for module in self.modules() if module not in of_decoder], decoder

    def forward(
        self,
        images: Tensor,
        context: Context | None = None,
        code: Tensor | None = None,
        context_code: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Teacher's call (no ``context``): images -> (embedding, *features), shallow to deep.

        Student's call: images, the teacher's context, and the codes of both views or none (no gate) ->
        (embedding, plain reconstruction, mixed reconstruction). All of a student's work on a batch is
        one forward, since DataParallel splits nothing else.
        """
        *skips, deepest = self.unet.encode(images)
        embedding = self.head(deepest)
        if context is None:
            return (embedding, *skips, deepest)
        *context_skips, context_deepest = context.features
        if code is not None and context_code is not None:
            deepest = self.gate(deepest, code)
            context_deepest = self.gate(context_deepest, context_code)

        own, others = [*skips, deepest], [*context_skips, context_deepest]
        plain, mixed = self.unet.decode_both(own, others, context.alpha)
        return embedding, plain, mixed


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """A layer with weights that may be shared (models/shared.py)."""
    return F.linear(x, shared(layer.weight), shared(layer.bias))


def build_network(
    dims: int,
    in_channels: int,
    out_channels: int,
    norm: str,
    final_act: str,
    backbone: str = "resnet18",
    narrow: int = 1,
) -> PCRLNetwork:
    """The 2D (ResNet U-Net) or 3D (U-Net) PCRL network, with initial values from torch's global generator.

    ``norm`` counts in 3D alone, ``backbone`` in 2D. ``narrow``: what the U-Net's channels are divided by.
    """
    return PCRLNetwork(build_unet(dims, in_channels, out_channels, norm, final_act, backbone, narrow=narrow))
