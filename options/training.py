"""Options of the phases that train."""

from __future__ import annotations

import os
from dataclasses import dataclass

from options.common import Common
from options.flags import AS_PHASE, OTHER_THAN_SEGMENTATION, PREDICTION, SUPERVISED, TRAINING, flag
from utils.errors import UserError

CHECKPOINTS = ("last.pt", "previous.pt")  # the newest state of a run, and the one before


@dataclass(frozen=True)
class Training(Common):
    """What pre-training and training with labels have."""

    on_bad_sample: str = flag(
        "stop",
        "data",
        "unreadable file: end the run, or take another one (up to 1 %% of an epoch's samples; more end the run)",
        choices=["stop", "skip"],
        phases=TRAINING,
        data=OTHER_THAN_SEGMENTATION,  # whose volumes are all read first
    )
    epochs: int = flag(100, "optimisation", "passes over the data", phases=TRAINING, at_least=1)
    lr: float = flag(1e-3, "optimisation", "base learning rate; it follows a cosine to 0", phases=TRAINING, at_least=0)
    warmup_epochs: int = flag(
        0,
        "optimisation",
        "epochs in which the learning rate first rises in equal steps to --lr; then the cosine (default: 0)",
        phases=TRAINING,
        at_least=0,
    )
    accumulate: int = flag(
        1,
        "optimisation",
        "split each batch into N micro-batches to save memory; batch norm and mixup see one at a time (docs/METHOD.md)",
        phases=TRAINING,
        at_least=1,
    )
    optimizer: str = flag("sgd", "optimisation", "optimizer", choices=["sgd", "adam", "adamw"], phases=TRAINING)
    momentum: float = flag(0.9, "optimisation", "momentum of sgd; beta1 of adam and adamw", phases=TRAINING)
    weight_decay: float = flag(1e-4, "optimisation", "weight decay, on all parameters", phases=TRAINING, at_least=0)
    patience: int = flag(
        0,
        "optimisation",
        "stop after N results on held-out data (--val_every) without improvement; 0: never (default: 0; see "
        "docs/LEARNING.md)",
        phases=TRAINING,
        at_least=0,
    )
    max_bad_steps: int = flag(
        10,
        "optimisation",
        "stop the run after N steps in a row whose loss or gradient is not finite",
        phases=TRAINING,
        at_least=1,
    )
    amp: str = flag(
        "auto",
        "machine",
        "mixed precision; auto: native on CUDA, off on the CPU; --amp without a value: native",
        choices=["auto", "off", "native", "apex"],
        nargs="?",
        const="native",
        phases=(*TRAINING, PREDICTION),
    )
    channels_last: str = flag(
        "auto",
        "machine",
        "memory format of the network's maps; auto: on, but off on CUDA with --amp off",
        choices=["auto", "on", "off"],
        phases=(*TRAINING, PREDICTION),
    )

    val_every: int = flag(
        AS_PHASE,
        "output",
        "evaluate on held-out data (luna: subsets 7-9; chest: chest_valid.txt) every N epochs (default: 0, never; "
        "with labels 1)",
        phases=TRAINING,
        at_least=0,
    )
    resume: str = flag(
        "",
        "output",
        "go on from the newest checkpoint in --output (auto) or from FILE; none: start anew there (default: refuse "
        "a used --output)",
        metavar="auto|none|FILE",
        phases=TRAINING,
    )
    save_every: int = flag(
        60, "output", "epochs between numbered checkpoints; the last is always kept", phases=TRAINING, at_least=1
    )
    save_minutes: float = flag(
        30.0, "output", "minutes between writes of last.pt, from which --resume goes on", phases=TRAINING, at_least=0
    )
    dry_run: bool = flag(
        False,
        "output",
        "build everything, run a few training steps in memory, report what a run would do, and write nothing to disk",
        phases=TRAINING,
    )
    log_every: int = flag(
        10,
        "output",
        "steps between rows of metrics.jsonl and TensorBoard; the first step and the last of each epoch are rows, too",
        phases=TRAINING,
        at_least=1,
    )
    tracker: str = flag(
        "",
        "output",
        "also send the rows of metrics.jsonl to Weights & Biases or MLflow; install its package yourself (default: "
        "no tracker)",
        choices=["wandb", "mlflow"],
        phases=TRAINING,
    )

    report: bool = flag(
        False,
        "output",
        "also write report.html at the end: curves, pictures, options and a model card; scripts/report.py makes it "
        "later",
        phases=TRAINING,
    )

    @property
    def goes_on(self) -> bool:
        """Whether ``--resume`` finds a checkpoint that a training goes on from."""
        if self.phase not in TRAINING:
            return False
        last = self.resume == "auto" and any(os.path.exists(os.path.join(self.output, name)) for name in CHECKPOINTS)
        return last or self.resume not in ("", "auto", "none")

    def _check_training(self) -> None:
        if self.val_every == AS_PHASE:
            self._set("val_every", int(self.phase in SUPERVISED))
        if self.phase in SUPERVISED and not self.val_every:
            raise UserError(f"--val_every 0: --phase {self.phase} selects its epoch on held-out data; give 1 or more")
        if self.accumulate > self.b:
            raise UserError(f"--accumulate {self.accumulate}: a batch has only --b {self.b} samples")
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise UserError(f"--warmup_epochs {self.warmup_epochs}: must be below --epochs {self.epochs}")
        if not 0 <= self.momentum < 1:
            raise UserError(f"--momentum {self.momentum}: must be at least 0 and below 1")
        if self.dry_run and self.phase not in TRAINING:
            raise UserError(f"--dry_run: works only with phases that train, not --phase {self.phase}; leave it out")
