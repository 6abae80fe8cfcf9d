"""Options of every phase: what to run, the data, the network, the machine, the output."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, ClassVar

from options.flags import (
    AS_PHASE,
    DIMS,
    OTHER_THAN_PREDICTION,
    OTHER_THAN_SEGMENTATION,
    PHASES,
    PREDICTION,
    PRETRAINING,
    SEGMENTATION,
    TRAINING,
    flag,
    positive,
)
from utils.errors import UserError

MODELS = ("pcrl", "pcrl_paper", "pcrlv2")  # names of the self-supervised methods, in methods/__init__.py
FROM_IMAGENET = ("pcrlv2",)  # those that start from ImageNet weights in 2D unless --weight says otherwise
CHANNELS = {2: (1, 3), 3: (1,)}
PRETRAINING_RATIO = 0.8  # by default
IN_2D = tuple(name for name, dims in DIMS.items() if dims == 2)
SIZE, SMALLEST_SIZE, SIZE_MULTIPLE = 224, 64, 32  # pixels, in 2D
BACKBONES = ("resnet18", "resnet34", "resnet50")  # of the 2D network, the first by default
NARROW = (1, 2, 4, 8)  # what the network's channels may be divided by

OF_DATA = {"chest": " (X-rays)", "luna": " (CT or MR)", "nodules": " (labelled CT crops)", "msd": " (with masks)"}


@dataclass(frozen=True)
class Common:
    """What every phase has."""

    model: str = flag(
        "pcrl",
        "what to run",
        f"the self-supervised method: {' or '.join(MODELS)}, or a Python file that defines one (CONTRIBUTING.md)",
        metavar="NAME|FILE.py",
        phases=TRAINING,
    )
    phase: str = flag(
        "pretask",
        "what to run",
        "what to do; the end of this help explains each choice",
        choices=list(PHASES),
    )
    n: str = flag(
        "",
        "what to run",
        "kind of data; the end of this help explains each choice (default: luna; predict: that of the checkpoint)",
        choices=list(DIMS),
    )
    d: int = flag(
        0,
        "what to run",
        "spatial dimensions, 2 or 3 (default: the data set's)",
        type=positive,
        phases=OTHER_THAN_PREDICTION,
    )
    seed: int = flag(0, "what to run", "random seed", at_least=0, phases=OTHER_THAN_PREDICTION)

    data: str = flag("", "data", "folder of the data (needed)", metavar="FOLDER")
    train_list: str = flag(
        "",
        "data",
        "list of the images or scans to use; none: all in --data (default: the list in --data, if there is one)",
        metavar="FILE",
        phases=OTHER_THAN_PREDICTION,
        data=OTHER_THAN_SEGMENTATION,
    )
    ratio: float = flag(
        float(AS_PHASE),
        "data",
        "fraction of the training list, from its start, for pre-training (default: 0.8); 1.0: all. With labels: "
        "see docs/FINETUNING.md",
        phases=(*TRAINING, "knn"),
        data=OTHER_THAN_SEGMENTATION,
    )
    ratio_by_default: ClassVar[bool] = False  # of an object: whether nobody gave a --ratio
    size: int = flag(
        0,
        "data",
        "side of an X-ray's view in pixels, a multiple of 32 (default: 224)",
        phases=OTHER_THAN_PREDICTION,
        data=IN_2D,
    )
    b: int = flag(16, "data", "batch size over all devices", at_least=1)
    workers: int = flag(4, "data", "processes that load data; 0: the main one", at_least=0)
    prefetch: int = flag(2, "data", "batches that each worker makes ahead", at_least=1)

    inchannel: int = flag(
        0,
        "network",
        "input channels (default: 3 in 2D, 1 in 3D)",
        type=positive,
        phases=OTHER_THAN_PREDICTION,
        data=OTHER_THAN_SEGMENTATION,
    )
    backbone: str = flag(
        "",
        "network",
        "encoder in 2D (default: resnet18)",
        choices=list(BACKBONES),
        phases=OTHER_THAN_PREDICTION,
        data=IN_2D,
    )
    narrow: int = flag(
        1,
        "network",
        "divide the channels of every layer by 1, 2, 4 or 8, for quick tests (8 learns little); such "
        "networks cannot be exported",
        phases=OTHER_THAN_PREDICTION,
    )
    norm: str = flag(
        "bn",
        "network",
        "normalisation layers: bn (batch), gn (group) or in (instance); gn and in only in 3D",
        choices=["bn", "gn", "in"],
        phases=OTHER_THAN_PREDICTION,
    )
    weight: str = flag(
        "",
        "network",
        "initial weights: FILE, imagenet (2D) or none (default: none; pcrlv2 in 2D: imagenet); predict: "
        "checkpoint, or several with commas",
        metavar="FILE",
    )

    gpus: str | None = flag(
        None,
        "machine",
        'GPUs, comma-separated, within CUDA_VISIBLE_DEVICES; "": CPU (default: all)',
        type=str,
        metavar="0,1,..",
    )
    parallel: str = flag(
        "dp",
        "machine",
        "several GPUs: dp: DataParallel, one process for all GPUs; ddp: DistributedDataParallel, one process per GPU",
        choices=["dp", "ddp"],
    )
    processes: int = flag(
        0, "machine", "number of processes for --parallel ddp (default: one per GPU; required on the CPU)", at_least=0
    )

    output: str = flag("./pcrl_output", "output", "folder for checkpoints, logs and pictures", metavar="FOLDER")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # a frozen dataclass fills its own defaults this way

    def _check_common(self) -> None:
        self._check_choices()
        if not self.n and self.phase != PREDICTION:
            self._set("n", "luna")
        known = PHASES[self.phase]
        if self.n and self.n not in known:
            phases = ", ".join(phase for phase, names in PHASES.items() if self.n in names)
            raise UserError(
                f"--phase {self.phase} does not support --n {self.n}, only --n {', '.join(known)}; --n {self.n} "
                f"supports --phase {phases}"
            )
        if self.ratio == AS_PHASE:
            self._set("ratio_by_default", True)
            self._set("ratio", PRETRAINING_RATIO if self.phase in PRETRAINING else 1.0)
        if self.phase == "embed":
            self._set("ratio", 1.0)
        if not 0 < self.ratio <= 1:
            raise UserError(f"--ratio {self.ratio}: must be above 0 and at most 1")
        if self.n:  # else the checkpoint will say
            self._check_network()
        self._settle_weight()
        if not self.data:
            pretraining = ", as in main.py --data my_xrays --n chest --train_list none --ratio 1.0"
            raise UserError(
                f"--data is needed: the folder of the data{pretraining * (self.phase in PRETRAINING)}; --help has "
                f"{'more ' * (self.phase in PRETRAINING)}examples"
            )

    def _check_choices(self) -> None:
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), field.metadata["at_least"]
            choices = field.metadata["argument"].get("choices")
            if choices and value and value not in choices:
                known = ", ".join(f"{each}{OF_DATA.get(each, '')}" if field.name == "n" else each for each in choices)
                raise UserError(f"--{field.name} {value} is not known; choose from {known}")
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"--{field.name} {value}: must be a finite number")
            if isinstance(value, int) and value >= 2**63:
                raise UserError(f"--{field.name} {value}: must be below {2**63} (2^63)")
            if least is not None and value != field.default and value < least:
                words = "not be negative" if least == 0 else f"be {least} or more"
                raise UserError(f"--{field.name} {value}: must {words}")
        if self.model not in MODELS and not self.model.endswith(".py"):
            known = ", ".join(MODELS)
            raise UserError(f"--model {self.model} is not known; choose from {known}, or give a Python file")

    def _check_network(self) -> None:
        if not self.d:
            self._set("d", self.dims)
        if self.d != self.dims:
            raise UserError(f"--d {self.d} with --n {self.n}: {self.n} is {self.dims}D, use --d {self.dims}")
        if self.dims == 2 and self.norm != "bn":
            raise UserError(f"--norm {self.norm}: 2D networks (ResNets) support only bn")
        if self.dims != 2 and self.backbone:
            raise UserError(f"--backbone {self.backbone}: only for 2D data; the 3D network has a fixed encoder")
        if self.dims == 2 and not self.backbone:
            self._set("backbone", BACKBONES[0])
        if self.dims != 2 and self.size:
            raise UserError(f"--size {self.size}: only for 2D data; preprocess/luna_pre.py sets the size of 3D crops")
        if self.dims == 2 and not self.size:
            self._set("size", SIZE)
        if self.dims == 2 and (self.size < SMALLEST_SIZE or self.size % SIZE_MULTIPLE):
            raise UserError(f"--size {self.size}: must be a multiple of {SIZE_MULTIPLE}, {SMALLEST_SIZE} or more")
        if self.narrow not in NARROW:
            raise UserError(f"--narrow {self.narrow}: give one of {', '.join(map(str, NARROW))}")
        if self.narrow > 1 and self.weight == "imagenet":
            raise UserError(f"--narrow {self.narrow}: ImageNet weights fit only --narrow 1")
        allowed = CHANNELS[self.dims]
        if not self.inchannel:
            self._set("inchannel", allowed[-1])
        if self.inchannel not in allowed:
            words = " or ".join(map(str, allowed))
            if self.n == SEGMENTATION:
                raise UserError(f"--inchannel {self.inchannel}: the channels of --n msd are its files'; leave it out")
            raise UserError(f"--inchannel {self.inchannel}: a {self.dims}D network here reads {words} channel(s)")

    def _settle_weight(self) -> None:
        """The start that ``--weight`` means: where imagenet is the default "none" stays, elsewhere it is ""."""
        if self.phase in PRETRAINING and self.dims == 2 and self.model in FROM_IMAGENET:
            self._set("weight", self.weight or ("imagenet" if self.narrow == 1 else "none"))
        elif self.weight == "none":
            self._set("weight", "")

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
