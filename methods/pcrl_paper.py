"""PCRL as its paper describes it, where the published code does otherwise (docs/METHOD_PAPER.md).

Zhou et al., "Preservational Learning Improves Self-supervised Medical Image Models by Reconstructing Diverse Contexts",
ICCV 2021. Student (the ordinary encoder), teacher (its moving average) and the hybrid of both share a decoder.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from methods.base import Batch, StepOutput
from methods.mixing import larger
from methods.pcrl import PCRL, PCRLDraws, config_of
from methods.pcrl import SPEC as OF_CODE
from methods.pcrl_report import feature_statistics, pictures
from methods.spec import Settings, Wrap, unet_of
from models.pcrl import PCRLNetwork
from models.unet import UNetNetwork
from utils.process_group import ProcessGroup


class Codes(NamedTuple):
    """Of the spatial transforms of the three targets, (B, 6) or (B, 7) each: T_o, T_m, T_h of the paper."""

    ordinary: Tensor
    momentum: Tensor
    hybrid: Tensor


class PaperNetwork(PCRLNetwork):
    """PCRL's network, whose decoder restores the features of three encoders, each gated by its own code."""

    def forward(self, images: Tensor, *more: Any) -> tuple[Tensor, ...]:
        """Teacher's call (nothing ``more``): as PCRL's. Student's call: images, the teacher's features, shallow to
        deep, its own share of the hybrid's, and the Codes -> (embedding, hybrid's embedding, and the reconstructions
        of student, teacher and hybrid).
        """
        if not more:
            return super().forward(images)
        teacher, share, codes = more
        own = self.unet.encode(images)
        hybrid = [share * of_own + (1 - share) * other for of_own, other in zip(own, teacher, strict=True)]
        restored = (
            self.unet.decode([*features[:-1], self.gate(features[-1], code)])
            for features, code in zip((own, teacher, hybrid), codes, strict=True)
        )
        return self.head(own[-1]), self.head(hybrid[-1]), *restored


class PCRLPaper(PCRL):
    """The step of the paper; teacher, queue, schedule and checkpoints are PCRL's."""

    def step(self, batch: Batch, draws: PCRLDraws) -> StepOutput:
        """One step on this rank's ``input1 input2 mask1 mask2 mask3`` (B, C, ...) and ``aug1 aug2 aug3`` (B, 6 or 7).

        The loss is the mean of the two NCE terms plus the mean of the three reconstruction terms.
        """
        x1, x2, alpha = batch["input1"], batch["input2"], larger(draws.alpha1)
        shares = self.ranks.shares(len(draws.shuffle))

        # 1. The teacher encodes view 2, the student view 1; the hybrid's features are a mixture of theirs.
        k, teacher = self._encode_keys(x2, self._teacher_orders(draws.shuffle, x2.device), shares)
        codes = Codes(batch["aug1"], batch["aug2"], batch["aug3"])
        q, h, ordinary, momentum, hybrid = self._wrap(self.student)(x1, teacher, alpha, codes)

        # 2. The contrast of the query with the teacher's and with the hybrid's embedding, as keys.
        nce, positive, state = self._contrast({"nce": (q, k), "nce_hybrid": (q, h)}, shares)

        # 3. Each encoder's features restore a target of their own; what the teacher's cost trains the decoder alone.
        targets = {
            "rec": (ordinary, batch["mask1"]),
            "rec_momentum": (momentum, batch["mask2"]),
            "rec_hybrid": (hybrid, batch["mask3"]),
        }
        rec = self._reconstruction(targets)
        rows = dict(zip(("view 1", "view 2", "hybrid"), codes, strict=True))  # of the pictures

        # 4. The loss.
        means = {
            "contrast": torch.stack(list(nce.values())).mean(),
            "reconstruction": torch.stack(list(rec.values())).mean(),
        }
        return StepOutput(
            loss=means["contrast"] + means["reconstruction"],
            terms={name: value.detach() for name, value in (nce | rec | means | positive).items()},
            images=pictures({"view 1": x1, "view 2": x2, "hybrid": x1}, targets, rows),
            state=state,
            statistics=feature_statistics(q, k, state) | self._gate_statistics(batch["aug1"]),
        )


def _network(settings: Settings) -> PaperNetwork:
    return PaperNetwork(unet_of(settings))


def _build(network: UNetNetwork, settings: Settings, n_data: int, wrap: Wrap, ranks: ProcessGroup) -> PCRLPaper:
    assert isinstance(network, PaperNetwork)
    return PCRLPaper(network, replace(config_of(settings, n_data), without=frozenset()), wrap, ranks)


SPEC = replace(
    OF_CODE,
    name="pcrl_paper",
    title="PCRL (as in the paper)",
    network=_network,
    build=_build,
    views="pcrl_paper",
    flags=OF_CODE.flags - {"without"},
    pictures="Three rows of each sample, one for each encoder: what it sees, what has to be reconstructed from its "
    "features, and what the decoder makes of them; targets and reconstructions upright.",
)
