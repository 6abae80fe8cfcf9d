"""The options of a run: one frozen, typed, validated dataclass.

Each field of :class:`Options` is a flag of ``main.py`` of the same name (command_line.py); ``_flag`` gives its default,
help and group.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, ClassVar

from utils.errors import UserError

MODELS = ("pcrl", "pcrlv2")  # names of the self-supervised methods, in methods/__init__.py
FROM_IMAGENET = ("pcrlv2",)  # those that start from ImageNet weights in 2D unless --weight says otherwise
PARTS = frozenset({"contrast", "reconstruction", "mixup", "gate"})  # of the method, that --without may name
DIMS = {"luna": 3, "chest": 2, "msd": 3, "nodules": 3}  # of each --n
PHASES = {  # and the --n that each can do
    "pretask": ("luna", "chest"),
    "finetune": ("chest", "nodules", "msd"),
    "linear": ("chest", "nodules", "msd"),
    "knn": ("chest", "nodules"),
    "embed": ("luna", "chest"),
}
PRETRAINING, SUPERVISED = ("pretask",), ("finetune", "linear")
TRAINING = PRETRAINING + SUPERVISED
ONLY_IN = {  # phases -> the flags that have a meaning in them alone
    PRETRAINING: (
        *("augment", "outchannel", "final_act", "loss", "without", "moco_t", "moco_k", "moco_m", "shuffle_bn"),
        "image_every",
    ),
    TRAINING: (
        *("model", "on_bad_sample", "epochs", "lr", "optimizer", "momentum", "weight_decay", "patience"),
        *("max_bad_steps", "amp", "resume", "val_every", "save_every", "save_minutes", "log_every"),
        *("accumulate", "warmup_epochs", "channels_last"),
    ),
    (*TRAINING, "knn"): ("ratio",),
}
SEGMENTATION = "msd"
ONLY_SEGMENTATION = (  # the flags that have a meaning with it alone, and those that have none with it
    *("folds", "fold", "split", "train_cases", "patch", "patches", "spacing_mm"),
    *("modality", "hu_min", "hu_max", "mirror", "cache"),
)
NOT_SEGMENTATION = ("ratio", "train_list", "inchannel")
CHANNELS = {2: (1, 3), 3: (1,)}
AS_PHASE = -1  # a default that depends on the phase
PRETRAINING_RATIO = 0.8  # by default
SIZE, SMALLEST_SIZE, SIZE_MULTIPLE = 224, 64, 32  # pixels, in 2D
BACKBONES = ("resnet18", "resnet34", "resnet50")  # of the 2D network, the first by default
NARROW = (1, 2, 4, 8)  # what the network's channels may be divided by
ALIASES = {  # flags as other programs call them -> ours
    "batch_size": "b",
    "learning_rate": "lr",
    "dataset": "n",
    "dims": "d",
    "image_size": "size",
    "num_workers": "workers",
    "output_dir": "output",
    "data_dir": "data",
    "pretrained": "weight",
}
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

    model: str = _flag(
        "pcrl",
        "what to run",
        f"the self-supervised method: {' or '.join(MODELS)}, or a Python file that defines one (CONTRIBUTING.md)",
        metavar="NAME|FILE.py",
    )
    phase: str = _flag(
        "pretask",
        "what to run",
        "pretask: pre-training; with labels: finetune: train all, linear: train a new head alone, knn: look up "
        "neighbours without training; embed: write the encoder's features",
        choices=list(PHASES),
    )
    n: str = _flag(
        "luna",
        "what to run",
        "kind of data: luna: pairs of crops of CT or MR, 3D; chest: X-rays, 2D; with labels also nodules: CT crops, "
        "and msd: segmentation in 3D",
        choices=list(DIMS),
    )
    d: int = _flag(0, "what to run", "spatial dimensions, 2 or 3 (default: the data set's)", type=_positive)
    seed: int = _flag(0, "what to run", "of all randomness")

    data: str = _flag("", "data", "folder of the data (needed)", metavar="FOLDER")
    train_list: str = _flag("", "data", "what to train on; none: all (default: the list in --data)", metavar="FILE")
    ratio: float = _flag(
        float(AS_PHASE),
        "data",
        "pre-training takes this part of the training list, from its beginning; 1: all (default: 0.8). With labels, "
        "the part that pre-training had: the other one is trained on; 1: all (default: all, or what the pre-training "
        "of --weight left of the same list)",
    )
    ratio_by_default: ClassVar[bool] = False  # of an object: whether nobody gave a --ratio
    size: int = _flag(0, "data", "pixels of a side of an X-ray's view, a multiple of 32 (default: 224)")
    b: int = _flag(16, "data", "batch size over all devices")
    workers: int = _flag(4, "data", "processes that load data; 0: the main one")

    augment: str = _flag(
        "workers",
        "data",
        "where views are made: by the workers, or their last steps batched on the training device",
        choices=["workers", "device"],
    )
    prefetch: int = _flag(2, "data", "batches that each worker makes ahead", type=_positive)
    on_bad_sample: str = _flag(
        "stop",
        "data",
        "at an unreadable file: stop, or skip it (another takes its place; above 1 %% of an epoch stop anyway)",
        choices=["stop", "skip"],
    )

    folds: int = _flag(5, "segmentation", "parts of the cases; one is tested on")
    fold: int = _flag(
        0, "segmentation", "the part to test on, from 0; with --split, the entry of the file (default: 0)"
    )
    split: str = _flag(
        "", "segmentation", "splits in place of --folds, as nnU-Net's splits_final.json (default: none)", metavar="FILE"
    )
    train_cases: int = _flag(0, "segmentation", "train on the first so many of the training cases (default: all)")
    patch: str = _flag("64,64,32", "segmentation", "voxels of a patch, multiples of 8", metavar="X,Y,Z")
    patches: int = _flag(4, "segmentation", "patches of each case in an epoch")
    spacing_mm: str = _flag(
        "", "segmentation", "of the voxels (default: median of the training cases)", metavar="X,Y,Z"
    )
    modality: str = _flag(
        "",
        "segmentation",
        "ct: --hu_min .. --hu_max become 0 .. 1; mr: percentiles 0.5 .. 99.5 (default: as dataset.json says, else mr)",
        choices=["ct", "mr"],
    )
    hu_min: int = _flag(-1000, "segmentation", "of CT, what becomes 0, in Hounsfield units")
    hu_max: int = _flag(1000, "segmentation", "of CT, what becomes 1, in Hounsfield units")
    mirror: str = _flag(
        "auto",
        "segmentation",
        "exchange left and right at random; auto: unless the name of a class says left or right",
        choices=["auto", "on", "off"],
    )
    cache: str = _flag(
        "", "segmentation", "for prepared volumes, mapped from there (default: in memory)", metavar="FOLDER"
    )

    inchannel: int = _flag(0, "network", "input channels (default: 3 in 2D, 1 in 3D)", type=_positive)
    outchannel: int = _flag(0, "network", "output channels (default: as inchannel)", type=_positive)
    backbone: str = _flag("", "network", "encoder in 2D (default: resnet18)", choices=list(BACKBONES))
    narrow: int = _flag(
        1,
        "network",
        "divide the channels of all layers by this, for trying things out: a run of 8 is quick, and learns little; "
        f"{', '.join(map(str, NARROW))}",
    )
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
    weight: str = _flag(
        "",
        "network",
        "start from the weights in this file, or imagenet (2D), or none: from random values (default: none, but for "
        "pcrlv2 in 2D imagenet)",
        metavar="FILE",
    )

    epochs: int = _flag(100, "optimisation", "passes over the data")
    lr: float = _flag(1e-3, "optimisation", "base learning rate; it follows a cosine to 0")
    warmup_epochs: int = _flag(
        0,
        "optimisation",
        "epochs in which the learning rate first rises in equal steps to --lr; then the cosine (default: 0)",
    )
    accumulate: int = _flag(
        1,
        "optimisation",
        "take a batch in so many micro-batches, one forward and backward each, then one update, to save memory; batch "
        "normalisation and mixup see a micro-batch alone, and keys join the queue after each",
        type=_positive,
    )
    optimizer: str = _flag("sgd", "optimisation", "optimizer", choices=["sgd", "adam", "adamw"])
    momentum: float = _flag(0.9, "optimisation", "of sgd; the first beta of adam and adamw")
    weight_decay: float = _flag(1e-4, "optimisation", "weight decay, on all parameters")
    loss: str = _flag("mse", "optimisation", "reconstruction loss", choices=["mse", "l1"])
    without: str = _flag(
        "",
        "optimisation",
        "leave out parts of the method, comma-separated, for ablations: contrast, reconstruction, mixup, gate "
        "(default: nothing)",
        metavar="PARTS",
    )
    patience: int = _flag(
        0,
        "optimisation",
        "results on held-out data (--val_every) in a row without a better one after which it stops; in pre-training "
        "they count once the queue is full; 0: never (default: 0)",
    )
    max_bad_steps: int = _flag(10, "optimisation", "steps in a row without a finite loss and gradient before it stops")
    moco_t: float = _flag(0.2, "optimisation", "temperature T of the contrast")
    moco_k: int = _flag(
        16384,
        "optimisation",
        "keys in the queue; fewer only in runs of thousands of steps on few samples",
        type=_positive,
    )
    moco_m: float = _flag(
        0.999, "optimisation", "momentum of the teacher at each step; with less it catches up, and features collapse"
    )

    gpus: str | None = _flag(
        None,
        "machine",
        'GPUs, comma-separated, within CUDA_VISIBLE_DEVICES; "": CPU (default: all)',
        type=str,
        metavar="0,1,..",
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
        "with several processes and --norm bn: full: they exchange the images that the teacher encodes, so that its "
        "batch statistics do not give away which belong together (ShuffleBN); off: they do not, which saves traffic",
        choices=["full", "off"],
    )
    amp: str = _flag(
        "auto",
        "machine",
        "mixed precision; auto: native on CUDA, off on the CPU; without a word: native",
        choices=["auto", "off", "native", "apex"],
        nargs="?",
        const="native",
    )

    channels_last: str = _flag(
        "auto",
        "machine",
        "memory format of the network's maps; auto: on, but off on CUDA with --amp off",
        choices=["auto", "on", "off"],
    )

    output: str = _flag("./pcrl_output", "output", "folder for checkpoints, logs and pictures", metavar="FOLDER")
    val_every: int = _flag(
        AS_PHASE,
        "output",
        "epochs between results on held-out data (subsets 7-9; chest_valid.txt); 0: none (default: 0, with labels 1)",
    )
    resume: str = _flag(
        "",
        "output",
        "go on from a checkpoint: its path, or auto: the newest in --output, if any; none: start anew (default: start "
        "anew, unless --output holds a run)",
        metavar="auto|none|FILE",
    )
    save_every: int = _flag(60, "output", "epochs between numbered checkpoints; the last is always kept")
    save_minutes: float = _flag(30.0, "output", "minutes between writes of last.pt, from which --resume goes on")
    dry_run: bool = _flag(
        False, "output", "build everything, take a few steps in memory, say what a run would do, and write nothing"
    )
    preview: int = _flag(
        0,
        "output",
        "draw what pre-training sees of the first so many samples into views.png in --output, and end",
        type=_positive,
    )
    image_every: int = _flag(
        1000, "output", "steps between pictures of the reconstructions, beside those of numbered checkpoints; 0: none"
    )
    log_every: int = _flag(
        10,
        "output",
        "steps between rows of metrics.jsonl and TensorBoard, beside the first step and the last of each epoch",
    )

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_phase()
        self._check_dims()
        self._check_channels()
        self._settle_weight()
        self._check_ranges()
        self._check_segmentation()
        if not self.data:
            raise UserError("--data is needed: the folder of the data")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # a frozen dataclass fills its own defaults this way

    def _check_phase(self) -> None:
        known = PHASES[self.phase]
        if self.n not in known:
            phases = ", ".join(phase for phase, names in PHASES.items() if self.n in names)
            raise UserError(
                f"--n {self.n} with --phase {self.phase}: it knows --n {', '.join(known)}; for {self.n} give one of "
                f"--phase {phases}"
            )
        supervised = self.phase in SUPERVISED
        if self.val_every == AS_PHASE:
            self._set("val_every", int(supervised))
        if supervised and not self.val_every:
            raise UserError(f"--val_every 0: --phase {self.phase} chooses its epoch on held-out data; give 1 or more")
        if self.patience and not self.val_every:
            raise UserError(f"--patience {self.patience}: it waits for results on held-out data; give a --val_every")
        if self.ratio == AS_PHASE:
            self._set("ratio_by_default", True)
            self._set("ratio", PRETRAINING_RATIO if self.phase in PRETRAINING else 1.0)
        if self.phase == "embed":
            self._set("ratio", 1.0)
        if self.phase not in PRETRAINING:
            self._set("outchannel", 0)

    def _check_dims(self) -> None:
        if not self.d:
            self._set("d", self.dims)
        if self.d != self.dims:
            raise UserError(f"--d {self.d} with --n {self.n}: {self.n} is {self.dims}D, use --d {self.dims}")
        if self.dims == 2 and self.norm != "bn":
            raise UserError(f"--norm {self.norm}: in 2D (a ResNet) only bn")
        if self.dims != 2 and self.backbone:
            raise UserError(f"--backbone {self.backbone}: only in 2D; the 3D network has an encoder of its own")
        if self.dims == 2 and not self.backbone:
            self._set("backbone", BACKBONES[0])
        if self.dims != 2 and self.size:
            raise UserError(f"--size {self.size}: only in 2D; crops of CT and MR have the size they were cut to")
        if self.dims == 2 and not self.size:
            self._set("size", SIZE)
        if self.dims == 2 and (self.size < SMALLEST_SIZE or self.size % SIZE_MULTIPLE):
            raise UserError(f"--size {self.size}: must be a multiple of {SIZE_MULTIPLE}, {SMALLEST_SIZE} or more")
        if self.narrow not in NARROW:
            raise UserError(f"--narrow {self.narrow}: give one of {', '.join(map(str, NARROW))}")
        if self.narrow > 1 and self.weight == "imagenet":
            raise UserError(f"--narrow {self.narrow}: the weights of ImageNet are for --narrow 1")
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

    def _settle_weight(self) -> None:
        """The start that ``--weight`` means: where imagenet is the default "none" stays, elsewhere it is ""."""
        if self.phase in PRETRAINING and self.dims == 2 and self.model in FROM_IMAGENET:
            self._set("weight", self.weight or "imagenet")
        elif self.weight == "none":
            self._set("weight", "")

    def _check_choices(self) -> None:
        for field in dataclasses.fields(self):
            choices = field.metadata["argument"].get("choices")
            value = getattr(self, field.name)
            if choices and value and value not in choices:
                raise UserError(f"--{field.name} {value} is not known; choose from {', '.join(choices)}")
        if self.model not in MODELS and not self.model.endswith(".py"):
            known = ", ".join(MODELS)
            raise UserError(f"--model {self.model} is not known; choose from {known}, or give a Python file")

    def _check_ranges(self) -> None:
        for name in ("b", "epochs", "save_every", "log_every", "max_bad_steps", "accumulate", "prefetch"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be 1 or more")
        for name in (
            "workers",
            "seed",
            "weight_decay",
            "lr",
            "save_minutes",
            "val_every",
            "processes",
            "patience",
            "warmup_epochs",
            "image_every",
        ):
            if not getattr(self, name) >= 0:
                raise UserError(f"--{name} {getattr(self, name)}: must not be negative")
        if self.accumulate > self.b:
            raise UserError(f"--accumulate {self.accumulate}: a batch has only --b {self.b} samples")
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise UserError(f"--warmup_epochs {self.warmup_epochs}: must be below --epochs {self.epochs}")
        if not 0 < self.ratio <= 1:
            raise UserError(f"--ratio {self.ratio}: must be above 0 and at most 1")
        if not 0 <= self.momentum < 1:
            raise UserError(f"--momentum {self.momentum}: must be at least 0 and below 1")
        if not self.moco_t > 0:
            raise UserError(f"--moco_t {self.moco_t}: must be above 0")
        if not 0 <= self.moco_m < 1:
            raise UserError(f"--moco_m {self.moco_m}: must be at least 0 and below 1")
        if self.preview and self.phase != "pretask":
            raise UserError(f"--preview {self.preview}: it shows what pre-training sees, not --phase {self.phase}")
        if self.dry_run and (self.preview or self.phase not in TRAINING):
            what = "--preview" if self.preview else f"--phase {self.phase}"
            raise UserError(f"--dry_run: it rehearses a training, and {what} trains nothing")

        unknown = self.left_out - PARTS
        if unknown:
            raise UserError(f"--without {min(unknown)} is not known; choose from {', '.join(sorted(PARTS))}")
        if {"contrast", "reconstruction"} <= self.left_out:
            raise UserError("--without contrast,reconstruction: nothing is left to learn")

    def _check_segmentation(self) -> None:
        if any(side < 8 or side % 8 for side in self.patch_shape):
            raise UserError(f"--patch {self.patch}: must be three multiples of 8")
        if self.spacing and min(self.spacing) <= 0:
            raise UserError(f"--spacing_mm {self.spacing_mm}: must be above 0")
        for name, smallest in {"folds": 2, "fold": 0, "patches": 1, "train_cases": 0}.items():
            if getattr(self, name) < smallest:
                raise UserError(f"--{name} {getattr(self, name)}: must be {smallest} or more")
        if self.hu_min >= self.hu_max:
            raise UserError(f"--hu_min {self.hu_min} --hu_max {self.hu_max}: they must rise")

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """``--patch`` as numbers: x, y, z."""
        x, y, z = _three(self.patch, "patch", int)
        return x, y, z

    @property
    def spacing(self) -> tuple[float, ...]:
        """``--spacing_mm`` as numbers: x, y, z; empty if it is not given."""
        return tuple(_three(self.spacing_mm, "spacing_mm", float)) if self.spacing_mm else ()

    @property
    def left_out(self) -> frozenset[str]:
        """The parts of the method that ``--without`` names."""
        return frozenset(name.strip() for name in self.without.split(",") if name.strip())

    @property
    def method_name(self) -> str:
        """``--model``, of a file its name without folder and suffix: what checkpoints are named after."""
        return self.model if self.model in MODELS else PurePath(self.model).stem

    @property
    def dims(self) -> int:
        """Spatial dimensions, 2 or 3."""
        return DIMS[self.n]

    def plain(self) -> dict[str, Any]:
        """All options as a plain dict (``opt`` of a checkpoint)."""
        return dataclasses.asdict(self)


def _three(text: str, name: str, number: Callable[[str], Any]) -> list[Any]:
    try:
        x, y, z = (number(word) for word in text.split(","))
    except ValueError:
        raise UserError(f"--{name} {text}: give three numbers, of x, y and z, such as 64,64,32") from None
    return [x, y, z]


def telling(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run's options, by name, that meant something in it: for a record that others read."""
    phase, n = options.get("phase", "pretask"), options.get("n")
    others = {*(NOT_SEGMENTATION if n == SEGMENTATION else ONLY_SEGMENTATION), *without_effect(options, phase)}
    others |= {"preview", "dry_run"} | ({"size", "backbone"} if DIMS.get(str(n)) == 3 else set())
    return {name: value for name, value in options.items() if name not in others}


def without_effect(given: Iterable[str], phase: str) -> list[str]:
    """Those of the flags that mean nothing in this phase."""
    pointless = {name for phases, names in ONLY_IN.items() if phase not in phases for name in names}
    return [name for name in given if name in pointless or name in NO_EFFECT]
