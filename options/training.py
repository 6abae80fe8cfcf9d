"""Options of the phases that train."""

from __future__ import annotations

from dataclasses import dataclass

from options.common import Common
from options.flags import AS_PHASE, PREDICTION, SUPERVISED, TRAINING, flag
from utils.errors import UserError


@dataclass(frozen=True)
class Training(Common):
    """What pre-training and training with labels have."""

    on_bad_sample: str = flag(
        "stop",
        "data",
        "unreadable file: stop: end the run; skip: use another sample instead, and end the run only if more than 1 %% "
        "of an epoch's samples are unreadable",
        choices=["stop", "skip"],
        phases=TRAINING,
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
        "gradient accumulation: split a batch into N micro-batches to save memory; batch normalisation and mixup use "
        "one micro-batch at a time, and its keys join the queue before the next one",
        phases=TRAINING,
        at_least=1,
    )
    optimizer: str = flag("sgd", "optimisation", "optimizer", choices=["sgd", "adam", "adamw"], phases=TRAINING)
    momentum: float = flag(0.9, "optimisation", "momentum of sgd; beta1 of adam and adamw", phases=TRAINING)
    weight_decay: float = flag(1e-4, "optimisation", "weight decay, on all parameters", phases=TRAINING, at_least=0)
    patience: int = flag(
        0,
        "optimisation",
        "early stopping: stop after N held-out results (--val_every) in a row without improvement; --model pcrl "
        "counts results only once its queue is full; 0: never stop early (default: 0)",
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
        "evaluate on held-out data every N epochs (pre-training: subsets 7-9 of luna, chest_valid.txt of chest); 0: "
        "never (default: 0; with labels 1)",
        phases=TRAINING,
        at_least=0,
    )
    resume: str = flag(
        "",
        "output",
        "auto: continue from the newest checkpoint in --output, if any; FILE: continue from this checkpoint; none: new "
        "run (default: new run; an error if --output already holds one)",
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
        "steps between rows of metrics.jsonl and TensorBoard; the first step of the run and the last step of each "
        "epoch also get a row",
        phases=TRAINING,
        at_least=1,
    )
    tracker: str = flag(
        "",
        "output",
        "also send the rows of metrics.jsonl to Weights & Biases or MLflow; requirements.txt does not include their "
        "packages (default: no tracker)",
        choices=["wandb", "mlflow"],
        phases=TRAINING,
    )

    report: bool = flag(
        False,
        "output",
        "write report.html at the end: curves, pictures, data, options, versions and a model card in one page; "
        "scripts/report.py makes it later, too",
        phases=TRAINING,
    )

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
