"""Which part of the training list is learned from, where ``--ratio`` does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.registry import list_lines
from datasets.xray.files import NIH_LIST, PROJECT_LIST, training_list
from datasets.xray.lists import read_list
from options import Options
from options.flags import AS_PHASE
from training.checkpoint import LAST, PREVIOUS
from training.reporting.run_record import list_hash
from utils import torch_file
from utils.console import say
from utils.errors import UserError
from utils.process_group import ProcessGroup

PRETRAINED_ON = {"chest": "chest", "nodules": "luna"}  # of a task, the --n whose list it shares


def with_labelled_list(options: Options) -> Options:
    """The options; of X-rays, if no list is named, with this project's in place of NIH's own, which has no labels."""
    data = Path(options.data)
    if options.n != "chest" or options.train_list or training_list(data, None) != data / NIH_LIST:
        return options
    if read_list(data / NIH_LIST).labels is not None:
        return options
    say(f"training list: {PROJECT_LIST}, since {data / NIH_LIST} has no labels")
    ratio = float(AS_PHASE) if options.ratio_by_default else options.ratio
    return replace(options, train_list=str(PROJECT_LIST), ratio=ratio)


def with_ratio(options: Options, ranks: ProcessGroup) -> Options:
    """The options; without ``--ratio``, with that of the run that is resumed, or of the pre-training of ``--weight``.

    The latter if it took the first part of the very list that is learned from here: what it left is learned from, and
    that is said. Else all is.
    """
    if not options.ratio_by_default or options.n not in PRETRAINED_ON or options.shares:
        return options
    ratio = None
    with ranks.raise_on_all():
        if ranks.first:
            ratio = _of_resumed(options) or _of_pretraining(options)
    ratio = ranks.broadcast(ratio)
    return replace(options, ratio=ratio) if ratio else options


def _of_resumed(options: Options) -> float | None:
    if options.resume in ("", "none"):
        return None
    there = [Path(options.output) / name for name in (LAST, PREVIOUS)]
    for path in there if options.resume == "auto" else [Path(options.resume)]:
        try:
            return _made(torch_file.load(path), "opt").get("ratio")
        except UserError:
            continue  # it is said where the run goes on
    return None


def _of_pretraining(options: Options) -> float | None:
    if not Path(options.weight).is_file():
        return None
    checkpoint = torch_file.load(options.weight)
    made, run = _made(checkpoint, "opt"), _made(checkpoint, "run")
    ratio, pretrained_on = made.get("ratio", 1.0), PRETRAINED_ON[options.n]
    if made.get("phase") != "pretask" or made.get("n") != pretrained_on or not 0 < ratio < 1:
        return None
    name, lines = list_lines(pretrained_on, Path(options.data), options.train_list or None, options.image_column)
    part = [line.rpartition("/")[2] for line in lines[: int(ratio * len(lines))]]
    # Checkpoints of earlier versions know their samples alone: of X-rays, the lines that they are named by.
    if list_hash(lines) != run.get("whole_list_sha256") and list_hash(part) != checkpoint.get("list_sha256"):
        return None
    say(
        f"{options.weight} was pre-trained on the first {100 * ratio:g} % of the list {name}: this run trains on the "
        f"rest of the list (--ratio 1.0: on the whole list)"
    )
    return ratio


def _made(checkpoint: Any, key: str) -> Mapping[str, Any]:
    found = checkpoint.get(key) if isinstance(checkpoint, Mapping) else None
    return found if isinstance(found, Mapping) else {}
