"""One PCRL training step: three contrast terms and four reconstruction terms.

Zhou et al., "Preservational Learning Improves Self-supervised Medical Image Models by Reconstructing
Diverse Contexts", ICCV 2021. The numbered comments are the steps of docs/METHOD.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import Batch, Method, Panel, StepOutput
from methods.buffers import gather_buffers, restore_buffers
from methods.mixing import blend, larger
from methods.nce import contrast
from methods.pcrl_config import PARTS, PCRLConfig, config_of
from methods.pcrl_report import Targets, curve_panels, feature_statistics, filled, gate_statistics, pictures, upright
from methods.spec import MethodSpec, Settings, Wrap
from models.ema import make_teacher, teacher_mode, update_teacher
from models.layers import BATCH_NORMS
from models.pcrl import EMBEDDING_SIZE, Context, PCRLNetwork, build_network
from models.queue import KeyQueue, QueueState
from models.shared import Part, sharing
from models.unet import UNetNetwork, checkpoint_weights, load_published_state, published_state
from utils.console import warn
from utils.process_group import SINGLE, BatchShards, ProcessGroup
from utils.transfer import to_device

FEATURES_MB = {2: 5, 3: 45}  # of a sample of 224 x 224 or 64 x 64 x 32, in float32
NETWORK_OPTIONS = ("d", "inchannel", "outchannel", "norm", "final_act", "backbone", "narrow")
ENCODER_USES, DECODER_USES = 2, 4  # of a weight of the student in a step
FULL_QUEUE = 0.99  # keys whose norm is a little off are keys, too
RECONSTRUCTION_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": F.mse_loss, "l1": F.l1_loss}


@dataclass(frozen=True)
class PCRLDraws:
    """The random numbers of one step, equal on all ranks.

    ``alpha1``, ``lam``, ``alpha2``: draws of Beta(1, 1), before max(v, 1 - v). ``shuffle``: the teacher's permutation
    of the batches of all ranks, one after the other. ``index``: the mixup's, which leaves each sample in its rank.
    """

    alpha1: float | Tensor
    lam: float | Tensor
    alpha2: float | Tensor
    shuffle: Tensor
    index: Tensor

    @classmethod
    def sample(cls, shares: BatchShards, rng: np.random.Generator) -> PCRLDraws:
        """Draw them all for a batch dealt so."""
        alpha1, lam, alpha2 = rng.beta(1, 1, size=3).tolist()
        shuffle = rng.permutation(shares.total)
        index = np.concatenate([part.start + rng.permutation(part.stop - part.start) for part in shares.slices])
        return cls(alpha1, lam, alpha2, torch.from_numpy(shuffle), torch.from_numpy(index))


class PCRL(Method):
    """The student, its teacher and the queue. ``forward`` is one training step.

    ``wrap`` makes a network parallel (DataParallel); it is applied for calls only, so names stay clean. ``ranks``: the
    processes that train together, each with its part of the batch; keys and Z are those of all.
    """

    headline = ("contrast", "reconstruction")
    continues = MappingProxyType({"teacher": "model_ema", "queue": "contrast"})

    def __init__(
        self,
        network: PCRLNetwork,
        config: PCRLConfig,
        wrap: Wrap = lambda module: module,
        ranks: ProcessGroup = SINGLE,
    ) -> None:
        super().__init__()
        self.config = config
        self.panels = curve_panels(config.reconstruction_loss)
        self.student = network
        self.teacher = make_teacher(network)
        self.queue = KeyQueue(config.queue_size, EMBEDDING_SIZE)
        self._wrap = wrap
        self.ranks = ranks
        self._on_one_device = ranks.size == 1 and wrap(self.teacher) is self.teacher
        self.parts = PARTS - config.without
        # DistributedDataParallel waits for the gradient of each parameter that requires one.
        for parameter in self._unused_parameters():
            parameter.requires_grad_(False)
        # Between ranks, features of other ranks' images travel: a waste where no norm looks at other samples.
        sees_batch = any(isinstance(module, BATCH_NORMS) for module in network.modules())
        self._shuffles = config.shuffle_bn and (sees_batch or ranks.size == 1)
        if self._shuffles and "reconstruction" in self.parts and ranks.on_several_machines:
            warn(
                f"--shuffle_bn full sends the teacher's features between machines, about "
                f"{FEATURES_MB[network.dims]} MB per sample and teacher call (docs/GPUS.md); with off it sends none"
            )

    def features(self, image: Tensor) -> Tensor:
        """The student's."""
        return self.student.unet.pooled(image)

    def _unused_parameters(self) -> Iterator[nn.Parameter]:
        """The student's parameters that no part uses."""
        student = self.student
        if "contrast" not in self.parts:
            yield from (*student.fc1.parameters(), *student.fc2.parameters())
        if "reconstruction" not in self.parts:
            yield from student.unet.decoder_parameters()
        if not {"reconstruction", "gate"} <= self.parts:
            yield from (*student.aug_fc1.parameters(), *student.aug_fc2.parameters())

    def train(self, mode: bool = True) -> PCRL:
        """The student follows ``mode``; the teacher has a mode of its own."""
        super().train(mode)
        teacher_mode(self.teacher)
        return self

    def draw(self, batch_size: int, rng: np.random.Generator) -> PCRLDraws:
        return PCRLDraws.sample(self.ranks.shares(batch_size), rng)

    def device_draws(self, draws: PCRLDraws, device: torch.device, dtype: torch.dtype) -> PCRLDraws:
        """As tensors where one device has the whole batch; in half precision, shares as exact as the maps they mix."""
        if not self._on_one_device:  # DataParallel hands on numbers alone
            return replace(draws, index=to_device(draws.index, device))
        shares = torch.tensor([larger(share) for share in (draws.alpha1, draws.lam, draws.alpha2)], dtype=torch.float64)
        if dtype.itemsize == 2:
            shares = shares.to(dtype).double()
        alpha1, lam, alpha2 = to_device(shares, device).unbind()
        return PCRLDraws(alpha1, lam, alpha2, draws.shuffle, to_device(draws.index, device))

    def committed(self) -> Iterable[Tensor]:
        return self.teacher.parameters()

    def trainable(self) -> Iterable[nn.Parameter]:
        return (parameter for parameter in self.student.parameters() if parameter.requires_grad)

    def _teacher_orders(self, shuffle: Tensor, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """The teacher's order and its inverse; None on one GPU, whose statistics do not see it."""
        if not self._shuffles or (device.type == "cuda" and self._on_one_device):
            return None
        here = torch.device("cpu") if self.ranks.size > 1 else device
        return to_device(shuffle, here), to_device(torch.argsort(shuffle), here)

    @torch.no_grad()
    def _encode_keys(
        self, view: Tensor, orders: tuple[Tensor, Tensor] | None, shares: BatchShards
    ) -> tuple[Tensor, list[Tensor]]:
        """The teacher's key and features of a view, encoded in shuffled order (MoCo's ShuffleBN)."""
        teacher = self._wrap(self.teacher)
        needed = None if "reconstruction" in self.parts else 1  # without it the key alone
        if orders:
            shuffle, inverse = orders
            outputs = teacher(shares.permute(view, shuffle))[:needed]
            key, *features = (shares.permute(output, inverse) for output in outputs)
        else:
            key, *features = teacher(view)[:needed]
        return key, features

    def forward(self, batch: Batch, draws: PCRLDraws) -> StepOutput:
        """One step; where one device has the whole batch, its passes share their weights (models/shared.py)."""
        if self._wrap(self.student) is not self.student:
            return self.step(batch, draws)
        (encoder, decoder), (of_teacher, _) = self.student.parts(), self.teacher.parts()
        parts = [Part(of_teacher, 1), Part(encoder, ENCODER_USES)]
        if "reconstruction" in self.parts:
            parts.append(Part(decoder, DECODER_USES))
        with sharing(batch["input1"].device, *parts):
            return self.step(batch, draws)

    def step(self, batch: Batch, draws: PCRLDraws) -> StepOutput:
        """One step on this rank's ``input1 input2 mask1 mask2 gt1 gt2`` (B, C, ...) and ``aug1 aug2`` (B, 6 or 7).

        The loss is the mean of the three NCE terms plus the mean of the four reconstruction terms.
        """
        x1, x2, mask1, mask2 = (batch[name] for name in ("input1", "input2", "mask1", "mask2"))
        alpha1, lam, alpha2 = larger(draws.alpha1), larger(draws.lam), larger(draws.alpha2)
        shares = self.ranks.shares(len(draws.shuffle))
        index = to_device(draws.index[shares.own] - shares.own.start, x1.device)
        shuffle = self._teacher_orders(draws.shuffle, x2.device)

        # 1. The teacher encodes view 2.
        k, teacher = self._encode_keys(x2, shuffle, shares)

        # 2. The student encodes view 1 and decodes twice, gated: its own features, and those mixed with the teacher's.
        q, plain, mixed = self._student_pass(x1, teacher, alpha1, batch["aug1"], batch["aug2"])
        pairs, views = {"nce": (q, k)}, {"view 1": x1}
        targets = {"rec": (plain, mask1), "rec_mixed": (mixed, blend(alpha1, mask1, mask2))}

        if "mixup" in self.parts:
            # 3. Mixup of views, keys and uncorrupted crops, all with one share and one permutation.
            mixup_x1, mixup_x2, mixup_k, gt1, gt2 = (
                blend(lam, value, value[index]) for value in (x1, x2, k, batch["gt1"], batch["gt2"])
            )

            # 4. The same on the mixed-up views, without the gate; the targets are the mixed-up crops.
            k_of_mixup, teacher = self._encode_keys(mixup_x2, shuffle, shares)
            q_of_mixup, plain, mixed = self._student_pass(mixup_x1, teacher, alpha2)
            views["mixup"] = mixup_x1
            pairs |= {"nce_mixup": (q_of_mixup, k_of_mixup), "nce_mixed_key": (q_of_mixup, mixup_k)}
            targets |= {"rec_mixup": (plain, gt1), "rec_mixup_mixed": (mixed, blend(alpha2, gt1, gt2))}

        # 5. The contrast calls; each pushes its keys, and the next one sees them.
        nce, positive, state = self._contrast(pairs, shares)

        # 6. The loss: the mean of the three NCE terms plus the mean of the four reconstruction terms.
        rec = self._reconstruction(targets)
        means = {
            name: torch.stack(list(terms.values())).mean()
            for name, terms in (("contrast", nce), ("reconstruction", rec))
            if terms
        }
        return StepOutput(
            loss=torch.stack(list(means.values())).sum(),
            terms={name: value.detach() for name, value in (nce | rec | means | positive).items()},
            images=pictures(views, targets, {"view 1": batch["aug1"]}),
            state=state,
            statistics=feature_statistics(q, k, state) | self._gate_statistics(batch["aug1"]),
        )

    def _student_pass(
        self, view: Tensor, teacher: list[Tensor], alpha: float | Tensor, *codes: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """A view -> its embedding (B, 128), and its plain and its mixed reconstruction (B, C, ...).

        ``teacher``: the teacher's features, ``alpha``: the student's share of the mixed ones. ``codes``: of the spatial
        transforms of both views, for the gate. The reconstructions are None where they are left out.
        """
        student = self._wrap(self.student)
        if "reconstruction" not in self.parts:
            return student(view)[0], None, None
        embedding, plain, mixed = student(view, Context(teacher, alpha), *(codes if "gate" in self.parts else ()))
        return embedding, plain, mixed

    def _contrast(
        self, pairs: Mapping[str, tuple[Tensor, Tensor]], shares: BatchShards
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], QueueState]:
        """Queries and keys (B, 128) by name -> NCE terms by name, P0 of the first as ``positive``, the new queue."""
        state = self.queue.read()
        if "contrast" not in self.parts:
            return {}, {}, state
        queries, keys = zip(*pairs.values(), strict=True)
        calls = contrast(queries, keys, state, self.config.temperature, self.config.n_data, shares)
        return dict(zip(pairs, calls.losses.unbind(), strict=True)), {"positive": calls.positive}, calls.state

    def _reconstruction(self, targets: Targets) -> dict[str, Tensor]:
        """Outputs and targets by name -> reconstruction terms by name."""
        distance = RECONSTRUCTION_LOSSES[self.config.reconstruction_loss]
        return {
            name: distance(output.to(target.dtype), target)
            for name, (output, target) in targets.items()
            if output is not None
        }

    @torch.no_grad()
    def _gate_statistics(self, code: Tensor) -> dict[str, Tensor]:
        return gate_statistics(self.student.gate_weights(code)) if "gate" in self.parts else {}

    def drawn(self, images: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return upright(images)

    def warming(self) -> str:
        """The random initial rows of the queue make the contrast easy, so results count only once the queue is full."""
        if "contrast" not in self.parts:
            return ""
        share = filled(self.queue.memory).item()
        return "" if share >= FULL_QUEUE else f"the queue is {100 * share:.0f} % full"

    def on_micro_batch_end(self, output: StepOutput) -> None:
        """Write the queue: each micro-batch is compared with the keys of those before it."""
        self.queue.write(output.state)

    def commit(self, output: StepOutput) -> None:
        """7. Write the queue; teacher <- m teacher + (1 - m) student, m = 0.999."""
        self.queue.write(output.state)
        update_teacher(self.teacher, self.student, self.config.ema_momentum)

    def _statistics(self) -> dict[str, Tensor]:
        """What each rank has of its own: the running statistics of the batch normalisations, of its own batches."""
        return {name: buffer for name, buffer in self.named_buffers() if not name.startswith("queue.")}

    def export(self) -> dict[str, Any]:
        """The published keys, under the published names, and the whole student as ``model``.

        Running statistics are the first rank's, as DataParallel keeps the first device's; where there are more ranks,
        ``rank_buffers`` has those of each, in rank order.
        """
        return {
            **checkpoint_weights(self.student),
            "model_ema": published_state(self.teacher),
            "contrast": self.queue.state_dict(),
            **gather_buffers(self._statistics(), self.ranks),
        }

    def adopt(self, part: str, entry: Any) -> None:
        if part == "teacher":
            load_published_state(self.teacher, entry)
        else:  # but for Z, which this run's own batches per epoch are part of
            self.queue.load_state_dict({**entry, "z": torch.zeros(())})

    def restore(self, checkpoint: dict[str, Any]) -> None:
        load_published_state(self.student, checkpoint["model"])
        load_published_state(self.teacher, checkpoint["model_ema"])
        self.queue.load_state_dict(checkpoint["contrast"])
        restore_buffers(self._statistics(), self.ranks, checkpoint)


def _network(settings: Settings) -> PCRLNetwork:
    return build_network(*(settings[name] for name in NETWORK_OPTIONS))


def _build(network: UNetNetwork, settings: Settings, n_data: int, wrap: Wrap, ranks: ProcessGroup) -> PCRL:
    assert isinstance(network, PCRLNetwork)
    return PCRL(network, config_of(settings, n_data), wrap, ranks)


def _panels(settings: Settings) -> tuple[Panel, ...]:
    loss = settings.get("loss")
    return curve_panels(loss if loss in ("mse", "l1") else "mse")


SPEC = MethodSpec(
    name="pcrl",
    title="PCRL",
    network=_network,
    build=_build,
    views="pcrl",
    citation='Zhou et al., "Preservational Learning Improves Self-supervised Medical Image Models by Reconstructing '
    'Diverse Contexts", ICCV 2021, arXiv 2109.04379',
    training_only="contrast head, gate, queue, optimizer",
    flags=frozenset({"loss", "without", "moco_t", "moco_k", "moco_m", "shuffle_bn"}),
    cuda_graph=True,
    panels=_panels,
    headline=PCRL.headline,
    pictures="Two rows of each sample: view 1, and mixup, a blend of two images. A target is what has to be "
    "reconstructed, shown upright; that of a blend has no holes. Mixed: from the features of student and teacher "
    "together, towards the mix of both views' targets. Early in a run a reconstruction may look turned: the network "
    "has not yet learnt to follow the flip or turn that it is told, and that is undone here.",
)
