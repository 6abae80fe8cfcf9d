"""The command line of ``main.py``: a parser made of the fields of :class:`Options`, and what flags are warned of."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

from options import (
    ALIASES,
    AS_PHASE,
    NO_EFFECT,
    NOT_SEGMENTATION,
    ONLY_SEGMENTATION,
    SEGMENTATION,
    TRAINING,
    Options,
    without_effect,
)
from utils.cli import Parser
from utils.cores import cores_of_process
from utils.errors import UserError

GROUPS = ("what to run", "data", "segmentation", "network", "optimisation", "machine", "output")
METAVARS = {int: "N", float: "X", str: "NAME"}
EXAMPLES = """examples:
  look at what X-rays in my_xrays become, then pre-train on all of them:
    python main.py --data my_xrays --n chest --train_list none --ratio 1.0 --preview 4 --output look
    python main.py --data my_xrays --n chest --train_list none --ratio 1.0 --output my_run
  pre-train on pairs of CT crops from preprocess/luna_pre.py, or go on where that stopped:
    python main.py --data my_pairs --n luna --ratio 1.0 --output my_3d_run --resume auto
"""
SYNONYMS = {  # flags of other programs that have no exact counterpart here
    **dict.fromkeys(("device", "cuda", "gpu"), "GPUs are chosen with --gpus 0,1; --gpus , takes the CPU"),
    **dict.fromkeys(("batch", "bs"), "the batch size is --b"),
    **dict.fromkeys(("name", "run_name", "exp_name", "experiment"), "a run is named by its folder, --output"),
    **dict.fromkeys(("wandb", "tracker", "mlflow"), "runs are logged to metrics.jsonl and TensorBoard in --output"),
    **dict.fromkeys(("checkpoint", "ckpt"), "--resume goes on from a checkpoint, --weight starts from its weights"),
    **dict.fromkeys(("arch", "network", "encoder"), "the encoder in 2D is --backbone"),
    **dict.fromkeys(("fp16", "bf16", "precision", "mixed_precision"), "mixed precision is --amp"),
}
NO_PATHS = {  # but words
    "train_list": ("none",),
    "weight": ("imagenet", "none"),
    "resume": ("auto", "none"),
    "split": (),
}


def _value_type(field: dataclasses.Field[Any]) -> Callable[[str], Any]:
    return field.metadata["argument"].get("type", type(field.default))


def _parser() -> Parser:
    parser = Parser(
        prog="main.py",
        usage="main.py --data FOLDER [flags]",
        description="Self-supervised pre-training of medical-image networks (PCRL, PCRLv2).",
        epilog=EXAMPLES,
        synonyms=SYNONYMS,
    )
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for field in dataclasses.fields(Options):
        text = field.metadata["help"]
        if field.default not in (None, "", 0, AS_PHASE) or field.name == "seed":
            text += f" (default: {field.default})"
        argument, group = field.metadata["argument"], groups[field.metadata["group"]]
        if isinstance(field.default, bool):
            group.add_argument(f"--{field.name}", action="store_true", default=None, help=field.metadata["help"])
            continue
        metavar = argument.get("metavar") or "|".join(argument.get("choices", ())) or METAVARS[type(field.default)]
        more = {key: argument[key] for key in ("nargs", "const") if key in argument}
        group.add_argument(f"--{field.name}", type=_value_type(field), metavar=metavar, help=text, **more)
    fields = {field.name: field for field in dataclasses.fields(Options)}
    for alias, name in ALIASES.items():
        parser.add_argument(f"--{alias}", dest=name, type=_value_type(fields[name]), help=argparse.SUPPRESS)
    for name in NO_EFFECT:
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    return parser


def check_paths(options: Options) -> None:
    """UserError if a folder or file that a flag names is not there: said at once, before anything heavy is imported."""
    if not os.path.isdir(options.data):
        what = "this is not a folder" if os.path.exists(options.data) else "no such folder"
        raise UserError(f"--data {options.data}: {what}")
    for name, words in NO_PATHS.items():
        path = getattr(options, name)
        if path and path not in words and not os.path.exists(path):
            needs_labels = name == "train_list" and options.phase not in ("pretask", "embed")
            others = f"; give a file, or {' or '.join(words)}" if words and not needs_labels else ""
            raise UserError(f"--{name} {path}: no such file{others}")


def parse_options(argv: Sequence[str] | None = None) -> tuple[Options, list[str]]:
    """Command line -> options and warnings: of flags without effect, and of a choice that spoils a run."""
    given = {name: value for name, value in vars(_parser().parse(argv)).items() if value is not None}
    options = Options(**{name: value for name, value in given.items() if name not in NO_EFFECT})
    warnings = [f"--{name} has no effect in {options.phase}" for name in without_effect(given, options.phase)]
    others = NOT_SEGMENTATION if options.n == SEGMENTATION else ONLY_SEGMENTATION
    warnings += [f"--{name} has no effect with --n {options.n}" for name in given if name in others]
    cores = cores_of_process()
    if given.get("workers", 0) > cores:
        warnings.append(f"--workers {options.workers}: it takes {cores}, one for each core here")
    if options.optimizer == "adam" and options.weight_decay and options.phase in TRAINING:
        warnings.append(
            f"--optimizer adam divides --weight_decay {options.weight_decay} by the gradient's size, too: weights of "
            "small gradients, such as the decoder's, vanish; take adamw, or --weight_decay 0"
        )
    return options, warnings
