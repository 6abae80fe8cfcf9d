"""One PCRLv2 training step: restoration and siamese comparison at the scales of a U-Net without skips.

Zhou et al., "A Unified Visual Information Preservation Framework for Self-supervised Pre-training in Medical Image
Analysis", TPAMI 2023 (arXiv 2301.00772). One network, no teacher, no queue, no mixup.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import PICTURED, Batch, Method, Panel, StepOutput
from methods.buffers import gather_buffers, restore_buffers
from methods.pcrl_report import spread
from methods.spec import MethodSpec, Settings, Wrap
from models.pcrlv2 import Outputs, PCRLv2Network, Vectors, build_network, enlarge
from models.unet import UNetNetwork, checkpoint_weights, load_published_state
from utils.errors import UserError
from utils.full_precision import full_precision
from utils.process_group import SINGLE, ProcessGroup

MAX_LOCALS = 32  # local views of an image: as many scales are drawn, whether there are so many or not
MIN_SAMPLES = 2  # of a device: the vectors are normalised over the batch


@dataclass(frozen=True)
class PCRLv2Draws:
    """The random numbers of one step, equal on all ranks.

    ``scales``: of the comparison of the views, then for each local view that with view 1 and that with view 2.
    """

    scales: tuple[int, ...]

    @classmethod
    def sample(cls, scales: int, rng: np.random.Generator) -> PCRLv2Draws:
        """Draw uniformly from so many scales, for as many local views as there may be."""
        return cls(tuple(rng.integers(0, scales, 1 + 2 * MAX_LOCALS).tolist()))


def compare(a: Vectors, b: Vectors) -> Tensor:
    """SimSiam's loss of vectors (B, C): minus the mean cosine of each view's prediction with the other's projection.

    Projections are targets: they have no gradient here. The cosine's norms are at least 1e-8.
    """
    towards_b = F.cosine_similarity(a.prediction, b.projection.detach(), dim=1, eps=1e-8).mean()
    towards_a = F.cosine_similarity(b.prediction, a.projection.detach(), dim=1, eps=1e-8).mean()
    return -(towards_b + towards_a) / 2


class PCRLv2(Method):
    """The network and its losses. ``forward`` is one training step.

    ``wrap`` makes the network parallel (DataParallel); it is applied for calls only, so names stay clean.
    ``ranks``: the processes that train together, each with its part of the batch.
    """

    headline = ("restoration", "comparison", "local")
    panels = (
        Panel("restoration", "mean squared error", ("restoration", "deep"), log=True, group="reconstruction"),
        Panel("comparison", "minus the cosine", ("comparison", "local"), group="contrast"),
        Panel("spread of the features", "1: even, 0: collapsed", ("feature_spread",), from_zero=True, group="features"),
    )

    def __init__(
        self,
        network: PCRLv2Network,
        wrap: Callable[[nn.Module], Callable[..., Any]] = lambda module: module,
        ranks: ProcessGroup = SINGLE,
    ) -> None:
        super().__init__()
        self.network = network
        self.ranks = ranks
        self._wrap = wrap
        self.beta = 1.0

    def features(self, image: Tensor) -> Tensor:
        return self.network.unet.pooled(image)

    def begin(self, epoch: int, epochs: int) -> None:
        """The deep restoration fades out: its weight falls from 1 to 0 along a half cosine."""
        self.beta = (1 + math.cos(math.pi * epoch / epochs)) / 2

    def draw(self, batch_size: int, rng: np.random.Generator) -> PCRLv2Draws:
        return PCRLv2Draws.sample(len(self.network.heads), rng)

    def trainable(self) -> Iterable[nn.Parameter]:
        return self.network.parameters()

    def forward(self, batch: Batch, draws: PCRLv2Draws) -> StepOutput:
        """One step on this rank's ``input1 input2 gt1`` (B, C, ...) and ``locals`` (B, L, C, ...).

        The loss is restoration + comparison + local + beta * deep. View 1 alone is restored.
        """
        target, local_views = batch["gt1"], batch["locals"]
        _check_sizes(*local_views.shape[:2])
        scale, *local_scales = draws.scales

        # 1. The network sees view 1, view 2 and all local views, in this order.
        out: Outputs = self._wrap(self.network)(batch["input1"], batch["input2"], local_views, scale)
        with full_precision(target.device):
            view1, view2, locals_ = (_exact(each, target.dtype) for each in (out.view1, out.view2, out.locals))

            # 2. and 3. The views are compared at one scale.
            comparison = compare(view1[scale], view2[scale])

            # 4. Each local view is compared with both views, each time at a scale of its own.
            pairs = [(view, number) for number in range(local_views.shape[1]) for view in (view1, view2)]
            calls = [
                compare(view[at], Vectors(locals_[at].projection[:, number], locals_[at].prediction[:, number]))
                for (view, number), at in zip(pairs, local_scales, strict=False)
            ]
            local = torch.stack(calls).mean()

            # 5. View 1 is restored by the whole network, and from the map of the scale of step 3.
            restored, from_scale = out.restored.to(target.dtype), out.restorations[scale].to(target.dtype)
            restoration = F.mse_loss(restored, target)
            deep = F.mse_loss(enlarge(from_scale, target.shape[2:]), target)

            # 6. The loss. Heads of scales that were not drawn have a gradient of zero: they decay, and no rank waits.
            idle = torch.stack([parameter.sum() for parameter in self.network.heads.parameters()]).sum()
            loss = restoration + comparison + local + self.beta * deep + 0 * idle
        terms = {"restoration": restoration, "comparison": comparison, "local": local, "deep": deep}
        return StepOutput(
            loss=loss,
            terms={name: value.detach() for name, value in terms.items()},
            images=_pictures(batch, out),
            statistics={"feature_spread": spread(F.normalize(view1[0].projection.detach().float(), dim=1))},
        )

    def held_out_score(self, losses: Mapping[str, float]) -> float:
        """The loss with weight 1 for the deep restoration: with the falling beta, later epochs would always win."""
        return losses["loss"] + (1 - self.beta) * losses["deep"]

    def commit(self, output: StepOutput) -> None:
        """Nothing follows the optimizer's step."""

    def export(self) -> dict[str, Any]:
        """The network's weights, as PCRL's.

        Where there are several ranks, ``rank_buffers`` are the running statistics of each, in rank order.
        """
        return checkpoint_weights(self.network) | gather_buffers(dict(self.named_buffers()), self.ranks)

    def restore(self, checkpoint: dict[str, Any]) -> None:
        load_published_state(self.network, checkpoint["model"])
        restore_buffers(dict(self.named_buffers()), self.ranks, checkpoint)


def _check_sizes(samples: int, locals_: int) -> None:
    if samples < MIN_SAMPLES:
        raise UserError(
            "pcrlv2 normalises over the batch: a device got 1 sample of a step, and needs 2; give a larger --b, or "
            "fewer devices or --accumulate parts"
        )
    if not 1 <= locals_ <= MAX_LOCALS:
        raise UserError(f"pcrlv2 needs 1 to {MAX_LOCALS} local views an image, not {locals_}")


def _exact(scales: list[Vectors], dtype: torch.dtype) -> list[Vectors]:
    """The vectors in full precision, whatever the network computed in."""
    return [Vectors(*(vector.to(dtype) for vector in vectors)) for vectors in scales]


@torch.no_grad()
def _pictures(batch: Batch, out: Outputs) -> dict[str, Tensor]:
    """Of the first samples: view 1, its target, its restoration and those at each scale."""
    target = batch["gt1"]
    images = {"view 1": batch["input1"], "target": target, "restored": out.restored}
    images = {name: image[:PICTURED].detach().clone() for name, image in images.items()}
    for number, restoration in enumerate(out.restorations):
        first = restoration[:PICTURED].detach().to(target.dtype, copy=True)
        images[f"scale {number}"] = enlarge(first, target.shape[2:])
    return images


def _network(settings: Settings) -> PCRLv2Network:
    names = ("d", "inchannel", "outchannel", "final_act", "backbone", "narrow")
    return build_network(*(settings[name] for name in names))


def _build(network: UNetNetwork, settings: Settings, n_data: int, wrap: Wrap, ranks: ProcessGroup) -> PCRLv2:
    assert isinstance(network, PCRLv2Network)
    return PCRLv2(network, wrap, ranks)


SPEC = MethodSpec(
    name="pcrlv2",
    title="PCRLv2",
    network=_network,
    build=_build,
    views="pcrlv2",
    citation='Zhou et al., "A Unified Visual Information Preservation Framework for Self-supervised Pre-training in '
    'Medical Image Analysis", TPAMI 2023, arXiv 2301.00772',
    training_only="heads of the decoder's blocks, optimizer",
    fixed={
        "inchannel": {2: 3, 3: 1},
        "outchannel": {2: 3, 3: 1},
        "norm": {2: "bn", 3: "bn"},
        "final_act": {2: "none", 3: "sigmoid"},
        "loss": {2: "mse", 3: "mse"},
    },
    min_samples=MIN_SAMPLES,
    panels=lambda settings: PCRLv2.panels,
    headline=PCRLv2.headline,
    pictures="View 1, what it was before its corruption, and what the network and each of its scales restore, deep to "
    "shallow.",
)
