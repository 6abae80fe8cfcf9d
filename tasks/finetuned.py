"""What a fine-tuned checkpoint tells of itself: all that its network needs to be used on new images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasets.segmentation.msd import Recipe
from models.classifier import Classifier
from models.segmenter import build_segmenter
from models.unet import Z_NORMAL, UNetNetwork, load_published_state
from models.weight_files import check_finite
from options import PRETRAINING, SEGMENTATION, Options
from tasks.base import mirrors
from tasks.outputs import KINDS, SIGMOID, SOFTMAX
from training.checkpoint import BEST
from training.network import new_unet
from utils import torch_file
from utils.console import warn
from utils.errors import UserError, reason

GIVE = f"give the {BEST} of a run of --phase finetune or linear"
SETTINGS = (
    "size",
    "inchannel",
    "backbone",
    "norm",
    "narrow",
)  # of the network, that the options take from a checkpoint
DEFAULTS = {"size": 224, "inchannel": 3, "backbone": "resnet18", "norm": "bn", "narrow": 1}  # of earlier versions
FLIPPED = {"chest": (1,), "nodules": (0, 1, 2)}  # the axes along which training mirrors images: x of a picture is last
OLD = (
    "does not contain {what}: an earlier version of this program wrote it. To add this, run the same main.py command "
    "again with --resume auto and a higher --epochs"
)


@dataclass(frozen=True)
class Finetuned:
    """A checkpoint of a task. ``digest``: SHA-256 of the file. ``n``: the task. ``classes``: without background.

    ``numbers``: how outputs become numbers: ``kind``, and what else tasks/outputs.py takes. ``settings``: SETTINGS, as
    its run had them. ``windows``: of the CT crops of a classifier. ``mirrored``: the axes along which training mirrored
    images, 0 first after the channels. ``shape``: spatial size of a training sample. ``recipe``, ``patch``,
    ``overlap``: of a segmenter. ``state``: the network's tensors.
    """

    path: str
    digest: str
    n: str
    classes: tuple[str, ...]
    numbers: Mapping[str, Any]
    settings: Mapping[str, Any]
    windows: Sequence[Mapping[str, Any]]
    mirrored: tuple[int, ...]
    shape: tuple[int, ...]
    z_normalised: bool
    state: Mapping[str, Any]
    recipe: Recipe | None = None
    patch: tuple[int, int, int] = (0, 0, 0)
    overlap: float = 0.0

    @property
    def channels(self) -> int:
        """That a segmenter reads."""
        return len(self.recipe.windows) if self.recipe else 0

    def options(self, options: Options) -> Options:
        """The options of a command, with what only the checkpoint knows."""
        return replace(options, n=self.n, **self.settings)

    def network(self, options: Options) -> UNetNetwork:
        """The trained network, in evaluation mode; UserError if the tensors are not of the network that it names."""
        settled = self.options(options)
        network: UNetNetwork
        if self.n == SEGMENTATION:
            network = build_segmenter(self.channels, len(self.classes) + 1, settled.norm, 0, settled.narrow)
        else:
            network = Classifier(new_unet(settled, self.shape), len(self.classes))
        try:
            load_published_state(network, dict(self.state))
        except (RuntimeError, KeyError, AttributeError, TypeError):
            raise UserError(
                f"{self.path}: the tensors do not fit the network and the {len(self.classes)} classes that the file "
                f"describes; {GIVE}"
            ) from None
        network.z_normalised = self.z_normalised
        return network.eval()


def read_finetuned(path: str) -> Finetuned:
    """What the file tells; UserError, with the way to a better one, if it is not of fine-tuning or tells too little."""
    checkpoint = torch_file.load(path)
    if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get("opt"), Mapping):
        raise UserError(f"{path}: not a fine-tuning checkpoint of this project; {GIVE}")
    opt, run = checkpoint["opt"], checkpoint.get("run")
    phase, n = opt.get("phase", PRETRAINING[0]), opt.get("n")
    if phase in PRETRAINING:
        raise UserError(
            f"{path}: comes from pre-training, which knows no classes; fine-tune it (--phase finetune --weight {path}) "
            f"and give the {BEST} of that run"
        )
    run = run if isinstance(run, Mapping) else {}
    known = run.get("segmentation", {}) if n == SEGMENTATION else run
    classes = known.get("classes")
    if not classes or not isinstance(checkpoint.get("model"), Mapping):
        raise UserError(f"{path}: {OLD.format(what='its classes')}")
    check_finite(path, checkpoint["model"])
    kind = SOFTMAX if n == SEGMENTATION else known.get("kind", SIGMOID)
    if kind not in KINDS:
        raise UserError(f"{path}: its outputs are of the kind {kind!r}, which this version does not know")
    common: dict[str, Any] = {
        "path": path,
        "digest": _digest(path),
        "n": n,
        "classes": tuple(classes),
        "numbers": {"kind": kind, **{name: float(known[name]) for name in ("mean", "scale") if name in known}},
        "settings": {name: opt[name] for name in SETTINGS if name in opt},
        "windows": run.get("windows", ()),
        "shape": tuple(run.get("shape", ())),
        "z_normalised": checkpoint.get("inputs") == Z_NORMAL,
        "state": checkpoint["model"],
    }
    if n != SEGMENTATION:
        flips = n != "chest" or mirrors(opt.get("mirror", "auto"), classes)
        return Finetuned(**common, mirrored=FLIPPED[str(n)] if flips else ())
    windows = tuple(tuple(window) if window else None for window in known["windows"])
    recipe = Recipe(tuple(known["spacing_mm"]), windows)
    mirrored = (0,) if mirrors(opt.get("mirror", "auto"), classes) else ()
    patch, overlap = tuple(known["patch"]), known["overlap"]
    return Finetuned(**common, mirrored=mirrored, recipe=recipe, patch=patch, overlap=overlap)


def read_folds(paths: Sequence[str], n: str) -> list[Finetuned]:
    """Checkpoints whose predictions are averaged; UserError if they do not agree, or are not of the task ``n``, if any.

    Segmenters may differ in spacing, window and patch, since folds have medians of their own.
    """
    folds = [read_finetuned(path) for path in paths]
    first = folds[0]
    if twice := [fold.path for place, fold in enumerate(folds) if fold.digest in {one.digest for one in folds[:place]}]:
        warn(f"--weight names {twice[0]} again, or a copy of it: it counts as often in the mean")
    if n and n != first.n:
        raise UserError(f"--n {n}: {first.path} was trained with --n {first.n}; remove --n, the checkpoint sets it")
    for fold in folds[1:]:
        for what, one, other in (
            ("--n", first.n, fold.n),
            ("the classes", ", ".join(first.classes), ", ".join(fold.classes)),
            ("outputs of the kind", first.numbers["kind"], fold.numbers["kind"]),
            ("a number of channels of", first.channels, fold.channels),
            *((f"--{name}", first.settings.get(name), fold.settings.get(name)) for name in ("size", "inchannel")),
        ):
            if one != other:
                raise UserError(
                    f"--weight: {fold.path} has {what} {other}, and {first.path} {one}; predictions can be averaged "
                    "only if these are the same"
                )
    return folds


def _digest(path: str) -> str:
    try:
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while part := file.read(2**20):
                digest.update(part)
        return digest.hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {reason(error)}") from None
