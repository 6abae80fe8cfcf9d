"""The PCRL training step as plainly as it is stated: the yardstick for speed and the oracle for the numbers.

Networks are functions of a dictionary of tensors under the published names. Upsampling, concatenation, convolution
and both decoder passes are written out one after the other, and so are the losses. Batch normalisation only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
Network = Callable[..., Any]


def batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    """Batch normalisation by the statistics of this batch, which the running ones follow."""
    running = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, *running, state[f"{name}.weight"], state[f"{name}.bias"], training=True)


# ---- 2D: a U-Net on ResNet-18 ----


def basic_block(state: State, name: str, x: Tensor, stride: int) -> Tensor:
    """Two 3x3 convolutions and a shortcut, projected where the shape changes."""
    out = F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)
    out = F.relu(batch_norm(state, f"{name}.bn1", out), inplace=True)
    out = F.conv2d(out, state[f"{name}.conv2.weight"], padding=1)
    out = batch_norm(state, f"{name}.bn2", out)
    if stride != 1:
        x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
        x = batch_norm(state, f"{name}.downsample.1", x)
    out += x
    return F.relu(out, inplace=True)


def encode_2d(state: State, image: Tensor) -> list[Tensor]:
    """Image (B, C, H, W) -> five features, shallow to deep."""
    x = F.conv2d(image, state["model.encoder.conv1.weight"], stride=2, padding=3)
    x = F.relu(batch_norm(state, "model.encoder.bn1", x), inplace=True)
    features = [x]
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for layer, stride in ((1, 1), (2, 2), (3, 2), (4, 2)):
        x = basic_block(state, f"model.encoder.layer{layer}.0", x, stride)
        x = basic_block(state, f"model.encoder.layer{layer}.1", x, 1)
        features.append(x)
    return features


def decoder_block(state: State, name: str, x: Tensor, skip: Tensor | None = None) -> Tensor:
    """Nearest upsampling, joined with the skip, then twice conv3x3 + BN + ReLU."""
    x = F.interpolate(x, scale_factor=2, mode="nearest")
    if skip is not None:
        x = torch.cat([x, skip], dim=1)
    for conv in (f"{name}.conv1", f"{name}.conv2"):
        x = F.conv2d(x, state[f"{conv}.0.weight"], padding=1)
        x = F.relu(batch_norm(state, f"{conv}.1", x), inplace=True)
    return x


def decode_2d(state: State, features: list[Tensor]) -> Tensor:
    """Features shallow to deep -> (B, outchannel, H, W)."""
    x = features[-1]
    skips = [features[3], features[2], features[1], features[0], None]
    for block, skip in enumerate(skips):
        x = decoder_block(state, f"model.decoder.blocks.{block}", x, skip)
    return F.conv2d(x, state["model.segmentation_head.0.weight"], state["model.segmentation_head.0.bias"], padding=1)


# ---- 3D: a U-Net of four levels ----


def two_convs(state: State, name: str, x: Tensor) -> Tensor:
    """Twice conv3x3x3, batch normalisation, ReLU."""
    for op in (f"{name}.ops.0", f"{name}.ops.1"):
        x = F.conv3d(x, state[f"{op}.conv1.weight"], state[f"{op}.conv1.bias"], padding=1)
        x = F.relu(batch_norm(state, f"{op}.bn1", x), inplace=True)
    return x


def encode_3d(state: State, volume: Tensor) -> list[Tensor]:
    """Volume (B, 1, X, Y, Z) -> four features, shallow to deep."""
    features = [two_convs(state, "down_tr64", volume)]
    for name in ("down_tr128", "down_tr256", "down_tr512"):
        features.append(two_convs(state, name, F.max_pool3d(features[-1], 2)))
    return features


def decode_3d(state: State, features: list[Tensor]) -> Tensor:
    """Features shallow to deep -> (B, 1, X, Y, Z)."""
    x = features[3]
    for name, skip in (("up_tr256", features[2]), ("up_tr128", features[1]), ("up_tr64", features[0])):
        x = F.conv_transpose3d(x, state[f"{name}.up_conv.weight"], state[f"{name}.up_conv.bias"], stride=2)
        x = two_convs(state, name, torch.cat([x, skip], dim=1))
    return torch.sigmoid(F.conv3d(x, state["out_tr.final_conv.weight"], state["out_tr.final_conv.bias"]))


# ---- head, gate, contrast ----


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def head(state: State, deepest: Tensor) -> Tensor:
    """Deepest feature (B, 512, ...) -> embedding (B, 128)."""
    pooled = deepest.flatten(2).mean(2)
    return linear(state, "fc2", F.relu(linear(state, "fc1", pooled)))


def gate(state: State, deepest: Tensor, code: Tensor) -> Tensor:
    """The deepest feature, each channel weighed by the spatial-transform code."""
    weights = torch.sigmoid(linear(state, "aug_fc2", F.relu(linear(state, "aug_fc1", code))))
    while weights.dim() < deepest.dim():
        weights = weights.unsqueeze(-1)
    return deepest * weights


def leaves(state: State) -> State:
    """Copies of the tensors, with a gradient where they are parameters."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return {name: tensor.clone().requires_grad_(not name.endswith(statistics)) for name, tensor in state.items()}


class LiteralStep:
    """``student``: leaves with gradient; ``teacher``: its moving average; ``memory``: the queue (K, 128)."""

    def __init__(self, dims: int, state: State, memory: Tensor, n_data: int, temperature: float = 0.2) -> None:
        self.student = leaves(state)
        self.teacher = {name: tensor.clone() for name, tensor in state.items()}
        self.parameters = [name for name, tensor in self.student.items() if tensor.requires_grad]
        self.encode = encode_2d if dims == 2 else encode_3d
        self.decode = decode_2d if dims == 2 else decode_3d
        self.memory, self.pointer = memory.clone(), 0
        self.z: float | None = None
        self.n_data, self.temperature = n_data, temperature

    def teach(self, view: Tensor, shuffle: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The teacher's keys and features, from the shuffled batch, back in order."""
        with torch.no_grad():
            inverse = torch.argsort(shuffle)
            features = self.encode(self.teacher, view[shuffle])
            key = head(self.teacher, features[-1])
            return key[inverse], [feature[inverse] for feature in features]

    def contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        """One NCE call, then the push of its keys."""
        queries = F.normalize(queries.to(self.memory.dtype), dim=1)
        keys = F.normalize(keys.to(self.memory.dtype), dim=1)
        positive = (queries * keys).sum(dim=1, keepdim=True)
        negative = queries @ self.memory.clone().T
        exponentials = torch.exp(torch.cat([positive, negative], dim=1) / self.temperature)
        if self.z is None:
            self.z = exponentials.mean().item() * self.n_data
        probabilities = exponentials / self.z
        size = len(self.memory)
        noise = size / self.n_data
        positive_term = torch.log(probabilities[:, 0] / (probabilities[:, 0] + noise + 1e-5)).sum()
        negative_term = torch.log(noise / (probabilities[:, 1:] + noise + 1e-5)).sum()
        for key in keys:
            self.memory[self.pointer] = key
            self.pointer = (self.pointer + 1) % size
        return -(positive_term + negative_term) / len(queries)

    def losses(self, batch: dict[str, Tensor], draws: Any) -> list[Tensor]:
        """Three NCE terms, then the MSE terms: plain, plain of the mixup, mixed, mixed of the mixup."""
        student = self.student
        alpha1, lam, alpha2 = (max(value, 1 - value) for value in (draws.alpha1, draws.lam, draws.alpha2))
        index = draws.index

        key, teacher_features = self.teach(batch["input2"], draws.shuffle)
        features = self.encode(student, batch["input1"])
        query = head(student, features[-1])
        gated = gate(student, features[-1], batch["aug1"])
        teacher_gated = gate(student, teacher_features[-1], batch["aug2"])
        plain = self.decode(student, [*features[:-1], gated])
        mixed_features = [alpha1 * s + (1 - alpha1) * t for s, t in zip(features[:-1], teacher_features, strict=False)]
        mixed = self.decode(student, [*mixed_features, alpha1 * gated + (1 - alpha1) * teacher_gated])
        mse_plain = F.mse_loss(plain.to(batch["mask1"].dtype), batch["mask1"])
        mixed_target = alpha1 * batch["mask1"] + (1 - alpha1) * batch["mask2"]
        mse_mixed = F.mse_loss(mixed.to(mixed_target.dtype), mixed_target)

        view1 = lam * batch["input1"] + (1 - lam) * batch["input1"][index]
        view2 = lam * batch["input2"] + (1 - lam) * batch["input2"][index]
        mixup_key = lam * key + (1 - lam) * key[index]
        gt1 = lam * batch["gt1"] + (1 - lam) * batch["gt1"][index]
        gt2 = lam * batch["gt2"] + (1 - lam) * batch["gt2"][index]

        key_of_mixup, teacher_features = self.teach(view2, draws.shuffle)
        features = self.encode(student, view1)
        query_of_mixup = head(student, features[-1])
        plain = self.decode(student, features)
        mixed_features = [alpha2 * s + (1 - alpha2) * t for s, t in zip(features, teacher_features, strict=True)]
        mixed = self.decode(student, mixed_features)
        mse_mixup_plain = F.mse_loss(plain.to(gt1.dtype), gt1)
        gt_mixed = alpha2 * gt1 + (1 - alpha2) * gt2
        mse_mixup_mixed = F.mse_loss(mixed.to(gt_mixed.dtype), gt_mixed)

        nce = self.contrast(query, key)
        nce_mixup = self.contrast(query_of_mixup, key_of_mixup)
        nce_mixed_key = self.contrast(query_of_mixup, mixup_key)
        return [nce, nce_mixup, nce_mixed_key, mse_plain, mse_mixup_plain, mse_mixed, mse_mixup_mixed]

    @torch.no_grad()
    def update_teacher(self, momentum: float = 0.999) -> None:
        """teacher <- momentum * teacher + (1 - momentum) * student, parameters only."""
        for name in self.parameters:
            self.teacher[name] = momentum * self.teacher[name] + (1 - momentum) * self.student[name].detach()


def total(losses: list[Tensor]) -> Tensor:
    """The loss: the mean of the three NCE terms plus the mean of the four MSE terms."""
    assert all(math.isfinite(loss.item()) for loss in losses)
    return sum(losses[:3], torch.zeros(())) / 3 + sum(losses[3:], torch.zeros(())) / 4
