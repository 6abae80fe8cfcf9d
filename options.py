"""The flags of ``main.py``: one frozen, typed, validated dataclass, and the parser made from it.

Each field of :class:`Options` is a flag of the same name; ``_flag`` gives its default, help and group.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from utils.cli import Parser
from utils.errors import UserError

GROUPS = ("what to run", "data", "network", "optimisation", "machine", "output")
PARTS = frozenset({"contrast", "reconstruction", "mixup", "gate"})  # of the method, that --without may name
DIMS = {"luna": 3, "chest": 2}
CHANNELS = {2: (1, 3), 3: (1,)}
NO_EFFECT = ("root", "step", "gamma", "lr_decay_epochs", "lr_decay_rate")


def _flag(default: Any, group: str, text: str, **argument: Any) -> Any:
    return dataclasses.field(default=default, metadata={"group": group, "help": text, "argument": argument})


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


@dataclass(frozen=True)
class Options:
    """Everything a run depends on. Constructing one validates it and raises UserError."""

    model: str = _flag("pcrl", "what to run", "the self-supervised method", choices=["pcrl"])
    phase: str = _flag("pretask", "what to run", "pretask: pre-training", choices=["pretask"])
    n: str = _flag("luna", "what to run", "data set: luna (CT, 3D) or chest (X-rays, 2D)", choices=list(DIMS))
    d: int = _flag(0, "what to run", "spatial dimensions, 2 or 3 (default: the data set's)", type=_positive)
    seed: int = _flag(0, "what to run", "of all randomness")

    data: str = _flag("", "data", "folder of the data (needed)")
    train_list: str = _flag("", "data", "file of what to train on; none: all there is (default: see README)")
    ratio: float = _flag(0.8, "data", "part of the training list to use, 0 < ratio <= 1")
    b: int = _flag(16, "data", "batch size over all devices")
    workers: int = _flag(4, "data", "processes that load data; 0: the main one")

    augment: str = _flag(
        "workers",
        "data",
        "where views are made: by the workers, or their last steps batched on the training device",
        choices=["workers", "device"],
    )
    on_bad_sample: str = _flag(
        "stop",
        "data",
        "at an unreadable file: stop, or skip it (another takes its place; above 1 %% of an epoch stop anyway)",
        choices=["stop", "skip"],
    )

    inchannel: int = _flag(0, "network", "input channels (default: 3 in 2D, 1 in 3D)", type=_positive)
    outchannel: int = _flag(0, "network", "output channels (default: as inchannel)", type=_positive)
    norm: str = _flag(
        "bn",
        "network",
        "normalisation: bn batch, gn group, in instance (gn, in: 3D)",
        choices=["bn", "gn", "in"],
    )
    final_act: str = _flag(
        "",
        "network",
        "activation of the reconstruction (default: sigmoid in 3D, none in 2D)",
        choices=["sigmoid", "none"],
    )
    weight: str = _flag("", "network", "start from the weights in this file")

    epochs: int = _flag(100, "optimisation", "passes over the data")
    lr: float = _flag(1e-3, "optimisation", "base learning rate; it follows a cosine to 0")
    optimizer: str = _flag("sgd", "optimisation", "optimizer", choices=["sgd", "adam", "adamw"])
    momentum: float = _flag(0.9, "optimisation", "of sgd; the first beta of adam and adamw")
    weight_decay: float = _flag(1e-4, "optimisation", "weight decay, on all parameters")
    loss: str = _flag("mse", "optimisation", "reconstruction loss", choices=["mse", "l1"])
    without: str = _flag(
        "",
        "optimisation",
        "leave out parts of the method, comma-separated, for ablations: contrast, reconstruction, mixup, gate",
    )
    patience: int = _flag(
        0, "optimisation", "epochs without a better result on held-out data (--val_every) after which it stops; 0: none"
    )
    max_bad_steps: int = _flag(10, "optimisation", "steps in a row without a finite loss and gradient before it stops")
    moco_t: float = _flag(0.2, "optimisation", "temperature T of the contrast")

    gpus: str | None = _flag(
        None,
        "machine",
        'GPUs, comma-separated, within CUDA_VISIBLE_DEVICES; "": CPU (default: all)',
        type=str,
    )
    parallel: str = _flag(
        "dp",
        "machine",
        "several GPUs: dp DataParallel in this process, or ddp a process for each, DistributedDataParallel",
        choices=["dp", "ddp"],
    )
    processes: int = _flag(0, "machine", "of --parallel ddp (default: one for each GPU; needed on the CPU)")
    shuffle_bn: str = _flag(
        "full",
        "machine",
        "with several processes and --norm bn: full: images and teacher's features are exchanged (ShuffleBN); "
        "off: each encodes its own",
        choices=["full", "off"],
    )
    amp: str = _flag(
        "auto",
        "machine",
        "mixed precision; auto: native on CUDA, off on the CPU",
        choices=["auto", "off", "native", "apex"],
    )

    output: str = _flag("./pcrl_output", "output", "folder for checkpoints, logs and pictures")
    val_every: int = _flag(
        0, "output", "epochs between losses on held-out data (subsets 7-9; chest_valid.txt); 0: none"
    )
    resume: str = _flag(
        "", "output", "go on from a checkpoint: its path, or auto: the newest in --output, if any; none: start anew"
    )
    save_every: int = _flag(60, "output", "epochs between numbered checkpoints; the last is always kept")
    save_minutes: float = _flag(30.0, "output", "minutes between writes of last.pt, from which --resume goes on")
    log_every: int = _flag(10, "output", "steps between rows of metrics.jsonl and TensorBoard")

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_dims()
        self._check_channels()
        self._check_ranges()
        if not self.data:
            raise UserError("--data is needed: the folder of the data")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # a frozen dataclass fills its own defaults this way

    def _check_dims(self) -> None:
        if not self.d:
            self._set("d", self.dims)
        if self.d != self.dims:
            raise UserError(f"--d {self.d} with --n {self.n}: {self.n} is {self.dims}D, use --d {self.dims}")
        if self.dims == 2 and self.norm != "bn":
            raise UserError(f"--norm {self.norm}: in 2D (ResNet-18) only bn")
        if not self.final_act:
            self._set("final_act", "sigmoid" if self.dims == 3 else "none")

    def _check_channels(self) -> None:
        allowed = CHANNELS[self.dims]
        if not self.inchannel:
            self._set("inchannel", allowed[-1])
        if self.inchannel not in allowed:
            words = " or ".join(map(str, allowed))
            raise UserError(f"--inchannel {self.inchannel}: a {self.dims}D network here reads {words} channel(s)")
        if not self.outchannel:
            self._set("outchannel", self.inchannel)
        if self.outchannel != self.inchannel:
            raise UserError(
                f"--outchannel {self.outchannel}: the target of the reconstruction is the input's transform, "
                f"so it must equal --inchannel {self.inchannel}"
            )

    def _check_choices(self) -> None:
        for field in dataclasses.fields(self):
            choices = field.metadata["argument"].get("choices")
            value = getattr(self, field.name)
            if choices and value and value not in choices:
                raise UserError(f"--{field.name} {value} is not known; choose from {', '.join(choices)}")

    def _check_ranges(self) -> None:
        for name in ("b", "epochs", "save_every", "log_every", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be 1 or more")
        for name in ("workers", "seed", "weight_decay", "lr", "save_minutes", "val_every", "processes", "patience"):
            if not getattr(self, name) >= 0:
                raise UserError(f"--{name} {getattr(self, name)}: must not be negative")
        if not 0 < self.ratio <= 1:
            raise UserError(f"--ratio {self.ratio}: must be above 0 and at most 1")
        if not 0 <= self.momentum < 1:
            raise UserError(f"--momentum {self.momentum}: must be at least 0 and below 1")
        if not self.moco_t > 0:
            raise UserError(f"--moco_t {self.moco_t}: must be above 0")

        unknown = self.left_out - PARTS
        if unknown:
            raise UserError(f"--without {min(unknown)} is not known; choose from {', '.join(sorted(PARTS))}")
        if {"contrast", "reconstruction"} <= self.left_out:
            raise UserError("--without contrast,reconstruction: nothing is left to learn")

    @property
    def left_out(self) -> frozenset[str]:
        """The parts of the method that ``--without`` names."""
        return frozenset(name.strip() for name in self.without.split(",") if name.strip())

    @property
    def dims(self) -> int:
        """Spatial dimensions, 2 or 3."""
        return DIMS[self.n]

    def plain(self) -> dict[str, Any]:
        """All options as a plain dict (``opt`` of a checkpoint)."""
        return dataclasses.asdict(self)


def _value_type(field: dataclasses.Field[Any]) -> Callable[[str], Any]:
    return field.metadata["argument"].get("type", type(field.default))


def _parser() -> Parser:
    parser = Parser(
        prog="main.py",
        description="Self-supervised pre-training of medical-image networks (PCRL) in 2D and 3D.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=24, width=100),
    )
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for field in dataclasses.fields(Options):
        text = field.metadata["help"]
        if field.default not in (None, "", 0) or field.name == "seed":
            text += f" (default: {field.default})"
        choices = field.metadata["argument"].get("choices")
        metavar = "|".join(choices) if choices else field.name.upper()
        groups[field.metadata["group"]].add_argument(
            f"--{field.name}", type=_value_type(field), metavar=metavar, help=text
        )
    for name in NO_EFFECT:
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    return parser


def parse_options(argv: Sequence[str] | None = None) -> tuple[Options, list[str]]:
    """Command line -> options and warnings (flags of the published code without effect here)."""
    values = vars(_parser().parse(argv))
    ignored = [name for name in NO_EFFECT if values.pop(name) is not None]
    warnings = [f"--{name} has no effect in pre-training" for name in ignored]
    return Options(**{name: value for name, value in values.items() if value is not None}), warnings
