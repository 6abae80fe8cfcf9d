"""Options of pre-training."""

from __future__ import annotations

from dataclasses import dataclass

from options.flags import PRETRAINING, flag, positive
from options.training import Training
from utils.errors import UserError

PARTS = frozenset({"contrast", "reconstruction", "mixup", "gate"})  # of the method, that --without may name


@dataclass(frozen=True)
class Pretraining(Training):
    """What pre-training has."""

    augment: str = flag(
        "workers",
        "data",
        "where to augment: workers: in the worker processes; device: the last steps per batch on the training device",
        choices=["workers", "device"],
        phases=PRETRAINING,
    )
    outchannel: int = flag(0, "network", "output channels (default: as inchannel)", type=positive, phases=PRETRAINING)
    final_act: str = flag(
        "",
        "network",
        "activation of the reconstruction (default: sigmoid in 3D, none in 2D)",
        choices=["sigmoid", "none"],
        phases=PRETRAINING,
    )
    loss: str = flag("mse", "optimisation", "reconstruction loss", choices=["mse", "l1"], phases=PRETRAINING)
    without: str = flag(
        "",
        "optimisation",
        "leave out parts of the method, comma-separated, for ablations: contrast, reconstruction, mixup, gate "
        "(default: nothing)",
        metavar="PARTS",
        phases=PRETRAINING,
    )
    moco_t: float = flag(0.2, "optimisation", "temperature T of the contrast", phases=PRETRAINING)
    moco_k: int = flag(
        16384,
        "optimisation",
        "size of the queue (number of keys); use less only for few samples and thousands of steps",
        phases=PRETRAINING,
        at_least=1,
    )
    moco_m: float = flag(
        0.999,
        "optimisation",
        "momentum of the teacher (EMA); with a smaller value the teacher follows too fast, and features may collapse",
        phases=PRETRAINING,
    )
    shuffle_bn: str = flag(
        "full",
        "machine",
        "ShuffleBN with several processes and --norm bn: full: images are shuffled across processes before the "
        "teacher encodes them, so that batch statistics do not reveal positive pairs; off: no exchange, less traffic",
        choices=["full", "off"],
        phases=PRETRAINING,
    )
    preview: int = flag(
        0,
        "output",
        "draw the views of N training samples to views.png in --output and exit, without training",
        type=positive,
        phases=PRETRAINING,
    )
    image_every: int = flag(
        1000,
        "output",
        "steps between pictures of the reconstructions, beside those of numbered checkpoints; 0: none",
        phases=PRETRAINING,
        at_least=0,
    )

    def _check_pretraining(self) -> None:
        if self.phase not in PRETRAINING or not self.outchannel:
            self._set("outchannel", self.inchannel)
        if self.outchannel != self.inchannel:
            raise UserError(
                f"--outchannel {self.outchannel}: the target of the reconstruction is the input's transform, "
                f"so it must equal --inchannel {self.inchannel}"
            )
        if not self.final_act:
            self._set("final_act", "sigmoid" if self.dims == 3 else "none")
        if not self.moco_t > 0:
            raise UserError(f"--moco_t {self.moco_t}: must be above 0")
        if not 0 <= self.moco_m < 1:
            raise UserError(f"--moco_m {self.moco_m}: must be at least 0 and below 1")
        if self.preview and self.phase not in PRETRAINING:
            raise UserError(f"--preview {self.preview}: works only with --phase pretask, not --phase {self.phase}")
        if self.dry_run and self.preview:
            raise UserError("--dry_run and --preview cannot be combined; give one of them")
        unknown = self.left_out - PARTS
        if unknown:
            raise UserError(f"--without {min(unknown)} is not known; choose from {', '.join(sorted(PARTS))}")
        if {"contrast", "reconstruction"} <= self.left_out:
            raise UserError("--without contrast,reconstruction: nothing is left to learn")

    @property
    def left_out(self) -> frozenset[str]:
        """The parts of the method that ``--without`` names."""
        return frozenset(name.strip() for name in self.without.split(",") if name.strip())
