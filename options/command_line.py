"""The command line of ``main.py``: a parser made of the fields of :class:`Options`, and what flags are warned of."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

from options import ALIASES, NO_EFFECT, PREDICTION, TRAINING, Options, without_effect
from options.config import flags_of_file
from options.flags import AS_PHASE, DIMS, PHASES, PRETRAINING, SEGMENTATION, means_something
from options.help_texts import description, epilog, help_of_kind
from utils.cli import Parser
from utils.cores import cores_of_process
from utils.errors import UserError

GROUPS = ("what to run", "data", "labels", "segmentation", "network", "optimisation", "prediction", "machine", "output")
METAVARS = {int: "N", float: "X", str: "NAME"}
SYNONYMS = {  # flags of other programs that have no exact counterpart here
    **dict.fromkeys(("device", "cuda", "gpu"), "choose GPUs with --gpus 0,1, or the CPU with --gpus ''"),
    **dict.fromkeys(("batch", "bs"), "the batch size is --b"),
    **dict.fromkeys(("name", "run_name", "exp_name", "experiment"), "a run is named by its folder, --output"),
    **dict.fromkeys(("wandb", "mlflow"), "runs are sent there with --tracker wandb or --tracker mlflow"),
    **dict.fromkeys(("checkpoint", "ckpt"), "--resume goes on from a checkpoint, --weight starts from its weights"),
    **dict.fromkeys(("arch", "network", "encoder"), "the encoder in 2D is --backbone"),
    **dict.fromkeys(("labels", "label_file", "csv", "annotations"), "a list or table of labels is --train_list"),
    **dict.fromkeys(("fp16", "bf16", "precision", "mixed_precision"), "mixed precision is --amp"),
}
INSTEAD = {  # of a flag without effect in a phase
    ("pretask", "valid_list"): ": with --val_every, held-out images are those of chest_valid.txt in --data",
}
NO_PATHS = {  # but words
    "train_list": ("none",),
    "weight": ("imagenet", "none"),
    "resume": ("auto", "none"),
    "valid_list": (),
    "test_list": (),
    "split": (),
    "probe_list": (),
    "probe_data": (),
}


def _value_type(field: dataclasses.Field[Any]) -> Callable[[str], Any]:
    return field.metadata["argument"].get("type", type(field.default))


def _parser(phase: str | None = None, n: str | None = None) -> Parser:
    """The parser of all flags; ``--help`` shows those that mean something with this ``--phase`` and ``--n``."""
    parser = Parser(
        prog="main.py",
        usage="main.py --data FOLDER [flags]",
        description=description(phase),
        epilog=epilog(phase),
        synonyms=SYNONYMS,
    )
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for field in dataclasses.fields(Options):
        text = field.metadata["help"]
        shown = means_something(field.metadata, phase, n)
        if field.default not in (None, "", 0, AS_PHASE) or field.name == "seed":
            text += f" (default: {field.default})"
        argument, group = dict(field.metadata["argument"]), groups[field.metadata["group"]]
        if isinstance(field.default, bool):
            group.add_argument(
                f"--{field.name}", action="store_true", default=None, help=text if shown else argparse.SUPPRESS
            )
            continue
        if field.name == "n" and phase:
            text, argument = help_of_kind(phase), {"choices": PHASES[phase]}
        metavar = argument.get("metavar") or "|".join(argument.get("choices", ())) or METAVARS[type(field.default)]
        more = {key: argument[key] for key in ("nargs", "const") if key in argument}
        group.add_argument(
            f"--{field.name}",
            type=_value_type(field),
            metavar=metavar,
            help=text if shown else argparse.SUPPRESS,
            **more,
        )
    groups["what to run"].add_argument(
        "--config",
        metavar="FILE",
        help="flags from this file, YAML or run.json of a former run; those on the command line win",
    )
    fields = {field.name: field for field in dataclasses.fields(Options)}
    for alias, name in ALIASES.items():
        parser.add_argument(f"--{alias}", dest=name, type=_value_type(fields[name]), help=argparse.SUPPRESS)
    for name in NO_EFFECT:
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    return parser


def _value_after(argv: Sequence[str], flag: str, known: Collection[str]) -> str | None:
    """The value of this flag; None if it is not given. UserError if it is not known: ``--help`` would hide that."""
    words = [word for given in argv for word in given.split("=", 1)]
    values = [value for name, value in pairwise(words) if name == flag and not value.startswith("-")]
    if values and values[-1] and values[-1] not in known:
        raise UserError(f"{flag} {values[-1]} is not known; choose from {', '.join(known)}")
    return values[-1] if values else None


def _given(argv: Sequence[str]) -> tuple[dict[str, Any], set[str]]:
    """The flags of the command line and of its --config; and the names of those that someone wrote for this command.

    A ``run.json`` has the flags of all phases.
    """
    parser = _parser(_value_after(argv, "--phase", PHASES), _value_after(argv, "--n", DIMS))
    typed = {name: value for name, value in vars(parser.parse(argv)).items() if value is not None}
    for field in dataclasses.fields(Options):
        if field.default == AS_PHASE and typed.get(field.name) == AS_PHASE:  # which stands for a flag that is not given
            raise UserError(f"--{field.name} {typed[field.name]}: must not be negative")
    path = typed.pop("config", None)
    if sum(word.split("=")[0] == "--config" for word in argv) > 1:
        raise UserError("--config is given twice; give one file")
    if path is None:
        return typed, set(typed)

    def defaults(options: Mapping[str, Any]) -> Mapping[str, Any]:
        return Options(**{name: options[name] for name in ("phase", "n", "model", "data") if name in options}).plain()

    try:
        of_file = vars(parser.parse(flags_of_file(path, defaults)))
    except UserError as error:
        line = str(error)
        raise UserError(line if line.startswith("--config") else f"--config {path}: {line}") from None
    if of_file.pop("config", None):
        raise UserError(f"--config {path}: the file contains --config itself; remove that line")
    of_file = {name: value for name, value in of_file.items() if value is not None}
    return {**of_file, **typed}, set(typed) if path.endswith(".json") else {*of_file, *typed}


def check_paths(options: Options) -> None:
    """UserError if a folder or file that a flag names is not there: said at once, before anything heavy is imported."""
    if not os.path.isdir(options.data):
        what = "this is not a folder" if os.path.exists(options.data) else "no such folder"
        raise UserError(f"--data {options.data}: {what}")
    for name, words in NO_PATHS.items():
        path = getattr(options, name)
        if name == "weight" and options.phase == PREDICTION:
            path, words = next((file for file in options.weights if not os.path.exists(file)), ""), ()
        if name == "weight" and options.goes_on:
            continue  # the checkpoint has all values
        if path and path not in words and not (name == "split" and options.shares) and not os.path.exists(path):
            needs_labels = name == "train_list" and options.phase not in ("pretask", "embed")
            others = f"; give a file, or {' or '.join(words)}" if words and not needs_labels else ""
            raise UserError(f"--{name} {path}: no such file{others}")
    if options.tracker and find_spec(options.tracker) is None:
        raise UserError(f"--tracker {options.tracker}: not installed here; pip install {options.tracker}")


def never_judged(options: Options) -> list[str]:
    """Warnings of evaluations for which the run is too short."""
    found = {"val_every": options.val_every, "probe_every": options.probe_every}
    if options.phase not in PRETRAINING:
        return []
    short = [name for name, every in found.items() if every > options.epochs]
    return [
        f"--{name} {found[name]}: the run has only --epochs {options.epochs}, so "
        + ("held-out data are never used" if name == "val_every" else "only the untrained network is probed")
        for name in short
    ]


def parse_options(argv: Sequence[str] | None = None) -> tuple[Options, list[str]]:
    """Command line -> options and warnings: of flags without effect, and of a choice that spoils a run."""
    given, typed = _given(sys.argv[1:] if argv is None else argv)
    options = Options(**{name: value for name, value in given.items() if name not in NO_EFFECT})
    pointless = without_effect(typed, options.phase, None)
    warnings = [
        f"--{name} has no effect in {options.phase}{INSTEAD.get((options.phase, name), '')}"
        for name in given
        if name in pointless
    ]
    pointless = without_effect(typed.difference(NO_EFFECT), None, options.n or None)
    warnings += [f"--{name} has no effect with --n {options.n}" for name in given if name in pointless]
    cores = cores_of_process()
    if given.get("workers", 0) > cores:
        warnings.append(f"--workers {options.workers}: only {cores} are used, one per available core")
    if options.report and (options.preview or options.dry_run):
        warnings.append(f"--report has no effect with --{'preview' if options.preview else 'dry_run'}")
    if options.split and options.n == SEGMENTATION and "folds" in typed:
        warnings.append("--folds has no effect with --split, whose file has the folds")
    warnings += never_judged(options)
    if options.patience and options.phase in PRETRAINING and options.keep == "best-loss" and not options.val_every:
        warnings.append(
            f"--patience {options.patience} has no effect without results on held-out data; give --val_every N, or use "
            "the probe with --keep best-probe"
        )
    if options.optimizer == "adam" and options.weight_decay and options.phase in TRAINING:
        warnings.append(
            f"--optimizer adam with --weight_decay {options.weight_decay}: the decay is divided by the gradient's "
            "size, so weights with small gradients, such as the decoder's, go to zero; take adamw, or --weight_decay 0"
        )
    return options, warnings
