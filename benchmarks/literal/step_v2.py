"""The PCRLv2 training step as plainly as it is stated: the yardstick for speed and the oracle for the numbers.

The network is a function of a dictionary of tensors under the published names. Each pass computes all that the
published one computes: every head at every scale, restorations enlarged to the view's size.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.literal.step import State, batch_norm, decoder_block, encode_2d, encode_3d, leaves, linear, two_convs

BLOCKS_3D = ("up_tr256", "up_tr128", "up_tr64")


class Pass(NamedTuple):
    """What one pass gives: the restored image, and of each scale projection, prediction and restoration."""

    restored: Tensor
    projections: list[Tensor]
    predictions: list[Tensor]
    restorations: list[Tensor]


def project(state: State, name: str, feature_map: Tensor) -> tuple[Tensor, Tensor]:
    """The projection and the prediction of a block's map."""
    projection = batch_norm(state, f"{name}.bn", feature_map.flatten(2).mean(2))
    hidden = linear(state, f"{name}.predictor_head.0", projection)
    hidden = F.relu(batch_norm(state, f"{name}.predictor_head.1", hidden))
    return projection, linear(state, f"{name}.predictor_head.3", hidden)


def pass_2d(state: State, image: Tensor) -> Pass:
    """Five blocks, each: nearest upsampling, twice conv3x3 + BN + ReLU; its heads."""
    x = encode_2d(state, image)[-1]
    vectors, restorations = [], []
    for block in range(5):
        name = f"model.decoder.blocks.{block}"
        x = decoder_block(state, name, x)
        vectors.append(project(state, name, x))
        head = f"{name}.deep_supervision_head"
        r = F.conv2d(x, state[f"{head}.0.weight"], state[f"{head}.0.bias"], padding=1)
        r = F.relu(batch_norm(state, f"{head}.1", r), inplace=True)
        r = F.conv2d(r, state[f"{head}.3.weight"], state[f"{head}.3.bias"])
        restorations.append(F.interpolate(r, size=image.shape[2:], mode="bilinear", align_corners=False))
    out = "model.segmentation_head.0"
    restored = F.conv2d(x, state[f"{out}.weight"], state[f"{out}.bias"], padding=1)
    return Pass(restored, [p for p, _ in vectors], [q for _, q in vectors], restorations)


def pass_3d(state: State, volume: Tensor) -> Pass:
    """Three blocks, each: transposed convolution, twice conv3x3x3 + BN + ReLU; its heads."""
    x = encode_3d(state, volume)[-1]
    vectors, restorations = [], []
    for name in BLOCKS_3D:
        x = F.conv_transpose3d(x, state[f"{name}.up_conv.weight"], state[f"{name}.up_conv.bias"], stride=2)
        x = two_convs(state, name, x)
        vectors.append(project(state, name, x))
        head = f"{name}.deep_supervision_head"
        r = F.conv3d(x, state[f"{head}.conv1.weight"], state[f"{head}.conv1.bias"], padding=1)
        r = torch.sigmoid(batch_norm(state, f"{head}.bn1", r))
        restorations.append(F.interpolate(r, size=volume.shape[2:], mode="trilinear", align_corners=False))
    restored = torch.sigmoid(F.conv3d(x, state["out_tr.final_conv.weight"], state["out_tr.final_conv.bias"]))
    return Pass(restored, [p for p, _ in vectors], [q for _, q in vectors], restorations)


def half(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean cosine of a prediction with another view's projection, through which no gradient flows."""
    return F.cosine_similarity(prediction, target.detach(), dim=1, eps=1e-8).mean()


class LiteralStepV2:
    """``student``: the network's tensors, leaves with gradient."""

    def __init__(self, dims: int, state: State) -> None:
        self.student = leaves(state)
        self.parameters = [name for name, tensor in self.student.items() if tensor.requires_grad]
        self.run = pass_2d if dims == 2 else pass_3d

    def losses(self, batch: dict[str, Tensor], draws: Any) -> list[Tensor]:
        """Restoration, comparison of the views, mean comparison with the local views, deep restoration."""
        count, size = batch["locals"].shape[1], len(batch["input1"])
        first = self.run(self.student, batch["input1"])
        second = self.run(self.student, batch["input2"])
        third = self.run(self.student, torch.cat([batch["locals"][:, number] for number in range(count)]))

        scale = draws.scales[0]
        one = half(first.predictions[scale], second.projections[scale])
        other = half(second.predictions[scale], first.projections[scale])
        comparison = -(one + other) / 2

        calls, call = [], 1
        for number in range(count):
            rows = slice(number * size, (number + 1) * size)
            for view in (first, second):
                s = draws.scales[call]
                one = half(view.predictions[s], third.projections[s][rows])
                other = half(third.predictions[s][rows], view.projections[s])
                calls.append(-(one + other) / 2)
                call += 1

        target = batch["gt1"]
        restoration = F.mse_loss(first.restored.to(target.dtype), target)
        deep = F.mse_loss(first.restorations[scale].to(target.dtype), target)
        return [restoration, comparison, sum(calls, torch.zeros(())) / len(calls), deep]

    def update_teacher(self) -> None:
        """There is none."""


def total_v2(losses: list[Tensor], epoch: int, epochs: int) -> Tensor:
    """The loss: the deep restoration fades out."""
    restoration, comparison, local, deep = losses
    return restoration + comparison + local + (1 + math.cos(math.pi * epoch / epochs)) / 2 * deep
