"""One checkpoint format (docs/CHECKPOINTS.md lists every key), and files that survive a kill.

``last.pt`` is the newest state, ``previous.pt`` the one before; numbered files are kept for good.
"""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from methods.base import Method
from options import CHECKPOINTS, PRETRAINING, SEGMENTATION, Options, telling
from training.precision import Precision
from training.schedule import optimizer_state, restore_optimizer
from utils import json_text, torch_file
from utils.console import warn
from utils.errors import UserError
from utils.files import atomic_path
from utils.process_group import SINGLE, ProcessGroup
from utils.text import counted

(LAST, PREVIOUS), BEST = CHECKPOINTS, "best.pt"
# What may differ between a run and its continuation: where things are, who computes, what is reported.
MAY_CHANGE = frozenset(
    {"data", "train_list", "output", "workers", "gpus", "resume", "save_every", "save_minutes", "log_every", "epochs"}
    | {"cache", "image_every", "weight", "on_bad_sample", "max_bad_steps", "val_every", "patience", "prefetch"}
    | {"preview", "dry_run", "report", "cuda_graph", "tracker"}
    | {"valid_list", "test_list", "image_column"}
    | {"probe_every", "probe_list", "probe_data"}
    | {"parallel", "processes"}  # torchrun sets the number of processes too: training/redeal.py
)
OF_THE_PROBE = frozenset(
    {"label_column", "patient_column", "target"}
)  # may change, too, where nothing else reads labels

SAME_FACTS = {  # of the data, in a checkpoint's "run" -> what messages call it
    "shape": "samples of the shape",
    "classes": "the classes",
    "kind": "labels of the kind",
    "segmentation/classes": "the classes",
    "segmentation/windows": "the windows of grey values",
    "segmentation/spacing_mm": "the spacing",
}
SAME_HASHES = {"paths_sha256": "the training samples", "trained_by": "the labels of the training samples"}


@dataclass
class Position:
    """Where a run stands: epochs completed, and steps done and samples used in the epoch under way."""

    epoch: int = 0
    step: int = 0
    used: int = 0

    def next_step(self, epochs: int, steps: int) -> str:
        """What comes next, counted as the progress line counts: ``epoch 2/3, step 3/4``; ``steps``: of an epoch."""
        ended = self.step >= steps
        if ended or self.epoch >= epochs:
            return f"the end of epoch {self.epoch + ended}/{epochs}"
        return f"epoch {self.epoch + 1}/{epochs}, step {self.step + 1}/{steps}"


def on_cpu(value: Any, moved: dict[int, Any]) -> Any:
    """Nested containers with all their tensors on the CPU, so that they load on any machine.

    What is there twice stays one. ``moved``: what was met before, by its id; empty at first.
    """
    if id(value) in moved:
        return moved[id(value)]
    if isinstance(value, torch.Tensor):
        result: Any = value.cpu()
    elif isinstance(value, dict):
        result = copy.copy(value)  # a module's state carries the versions of its layers along
        for name in value:
            result[name] = on_cpu(value[name], moved)
    elif isinstance(value, list):
        result = [on_cpu(each, moved) for each in value]
    else:
        return value
    moved[id(value)] = result
    return result


@dataclass
class TrainingState:
    """Everything that changes while a run goes on, but its logs."""

    method: Method
    optimizer: torch.optim.Optimizer
    precision: Precision
    position: Position
    ranks: ProcessGroup = SINGLE
    best: float = math.inf  # the lowest score on held-out data, whose state best.pt holds
    best_epoch: int = 0  # epochs completed when it was reached; 0: there is no best.pt
    waited: int = 0  # results on held-out data since the last one that was better
    owes_results: bool = False  # of the epoch that is completed: on held-out data, or of the probe
    run: dict[str, Any] = field(default_factory=dict)  # times and data, for the model card; does not change

    def out_of_patience(self, patience: int) -> bool:
        """Whether the last ``patience`` results on held-out data were no better; 0: never."""
        return 0 < patience <= self.waited

    def is_complete(self, epochs: int, patience: int) -> bool:
        """Whether nothing is left to do of a run of so many epochs."""
        return not self.owes_results and (self.position.epoch >= epochs or self.out_of_patience(patience))

    def judge(self, score: float | None) -> bool:
        """Take in a result on held-out data, None if it does not count; -> whether it is the lowest so far."""
        if score is None:
            return False
        if score < self.best:
            self.best, self.best_epoch, self.waited = score, self.position.epoch, 0
            return True
        self.waited += 1
        return False

    def forget_best(self) -> None:
        """As if no result on held-out data had been seen."""
        self.best, self.best_epoch, self.waited = math.inf, 0, 0

    def snapshot(self, options: Options, list_sha256: str, report: dict[str, Any]) -> dict[str, Any]:
        """All that a checkpoint holds, as tensors on the CPU and plain containers. All ranks must call."""
        snapshot = {
            **self.method.export(),
            "optimizer": optimizer_state(self.optimizer),
            "epoch": self.position.epoch,
            "step": self.position.step,
            "samples_used": self.position.used,
            "precision": self.precision.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "report": report,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "waited": self.waited,
            "owes_results": self.owes_results,
            "list_sha256": list_sha256,
            "world_size": self.ranks.size,
            "opt": options.plain(),
            "run": self.run,
        }
        return on_cpu(snapshot, {})

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Put everything back."""
        self.method.restore(checkpoint)
        restore_optimizer(self.optimizer, checkpoint["optimizer"])
        self.precision.load_state_dict(checkpoint["precision"])
        self.position.epoch, self.position.step = checkpoint["epoch"], checkpoint["step"]
        self.best, self.best_epoch = checkpoint["best"], checkpoint["best_epoch"]
        self.waited = checkpoint.get("waited", self._waited_formerly(checkpoint["opt"]))
        self.owes_results = checkpoint.get("owes_results", False)
        torch.set_rng_state(checkpoint["torch_rng"])
        if len(checkpoint["cuda_rng"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(checkpoint["cuda_rng"])

    def _waited_formerly(self, opt: Mapping[str, Any]) -> int:
        """``waited`` of a checkpoint from before it was counted."""
        every = opt.get("val_every") or 1
        return (self.position.epoch - self.best_epoch) // every if self.best_epoch else 0


def checkpoint_name(options: Options, epoch: int) -> str:
    """``<model>_<n>_<phase>_<ratio>_<epoch>.pt``, without a ratio where it means nothing; ``epoch``: completed ones."""
    ratio = "" if options.n == SEGMENTATION else f"_{options.ratio}"
    return f"{options.method_name}_{options.n}_{options.phase}{ratio}_{epoch}.pt"


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is there, and undamaged."""
    try:
        torch_file.check(path)
    except UserError:
        return False
    return True


def save_last(output: Path, payload: dict[str, Any], keep_former: bool = True) -> Path:
    """Write ``last.pt``; the former one becomes ``previous.pt``, only after the new one was read back whole.

    From the first save on there is a ``last.pt`` at every moment. Not ``keep_former``: ``previous.pt`` stays as it is,
    which may be the only whole one.
    """
    last = output / LAST
    with atomic_path(last) as temporary:
        torch_file.write(temporary, payload)
        torch_file.check(temporary)
        if keep_former and last.exists():
            link_as(last, PREVIOUS)
    return last


def link_as(last: Path, name: str) -> Path:
    """Keep the state of ``last`` under another name as well: by a second link where the file system has them.

    OSError if that cannot be.
    """
    path = last.with_name(name)
    with atomic_path(path) as temporary:
        try:
            os.link(last, temporary)
        except OSError:
            shutil.copyfile(last, temporary)
    return path


def check_named(resume: str) -> None:
    """UserError if ``--resume`` names a file that is damaged."""
    if resume not in ("", "none", "auto"):
        try:
            torch_file.check(Path(resume))
        except UserError as error:
            raise UserError(f"--resume {error}") from None


def find_resume(resume: str, output: Path) -> dict[str, Any] | None:
    """The checkpoint to go on from: a path, ``auto`` (the newest whole one in ``output``, if any) or ``none``.

    An empty ``resume`` means nobody said what to do: UserError if ``output`` already holds a run.
    """
    there = [output / name for name in (LAST, PREVIOUS) if (output / name).exists()]
    if not resume and there:
        raise UserError(f"--output {output} holds a run: --resume auto continues it, --resume none starts a new run")
    if resume in ("", "none"):
        return None
    if resume != "auto":
        there = [Path(resume)]
    for path in there:
        try:
            torch_file.check(path)
            found = torch_file.load(path)
            if resume != "auto":
                _refuse_other_run(found, output)
            return found
        except UserError as error:
            if path == there[-1]:
                way_out = f"; {_way_out(output)}" if resume == "auto" else ""
                raise UserError(f"--resume {'auto: ' * (resume == 'auto')}{error}{way_out}") from None
            warn(f"{error}; using the previous checkpoint, {there[-1].name}")
    return None


def _refuse_other_run(checkpoint: Any, output: Path) -> None:
    """UserError if ``output`` holds another run than this checkpoint's: their logs would be mixed."""
    began = checkpoint.get("run", {}).get("started") if isinstance(checkpoint, dict) else None
    try:
        there = json_text.parse((output / "run.json").read_text(encoding="utf-8")).get("started")
    except (OSError, ValueError, AttributeError):
        return
    if began and there and began != there:
        raise UserError(f"--output {output} holds another run than that of --resume; give another --output")


def _way_out(output: Path) -> str:
    """What to do where neither of the newest two checkpoints is whole."""
    kept = [path for path in output.glob("*.pt") if path.name not in (LAST, PREVIOUS)]
    if not kept:
        return "there is no other checkpoint: begin anew with another --output, or --resume none"
    newest = max(kept, key=lambda path: path.stat().st_mtime)
    return f"go on from another checkpoint, --resume {newest}, or begin anew with another --output"


def check_same_run(checkpoint: dict[str, Any], options: Options, list_sha256: str, facts: Mapping[str, Any]) -> None:
    """UserError if ``checkpoint`` belongs to another run: an option that matters differs, or the data.

    ``facts``: of a TrainingJob, and the number of its ``samples``. Warns where these were cut otherwise than before.
    """
    if not isinstance(checkpoint, dict) or not {"opt", "torch_rng"} <= checkpoint.keys():
        raise UserError("--resume: this file holds no training state; --weight starts a new run from its weights")
    saved = {"narrow": 1, **checkpoint["opt"]}
    free = MAY_CHANGE | (OF_THE_PROBE if options.phase in PRETRAINING else set())
    others = [  # of what means something in this run: formerly others had values, too
        f"no --{name} (now {value})" if saved[name] == "" else f"--{name} {saved[name]}, not {value or 'none'}"
        for name, value in telling(options.plain()).items()
        if name not in free and name in saved and not _same(saved[name], value)
    ]
    if others:
        raise UserError(f"--resume: that run had {', and '.join(others)}; give the same values again")
    if checkpoint["list_sha256"] != list_sha256:
        lists = ((checkpoint.get("run") or {}).get("list"), facts.get("list"))
        had, samples = "", (checkpoint.get("run") or {}).get("samples")
        if samples and "samples" in facts and samples != facts["samples"]:
            had = f" (it had {counted(samples, 'sample')}, not {facts['samples']})"
        had = f" (it had the list {lists[0]}, not {lists[1]})" if all(lists) and lists[0] != lists[1] else had
        raise UserError(
            f"--resume: the training samples differ from those of that run{had}; give the same --data and list, with "
            "all files (--on_bad_sample skip replaces those that cannot be read)"
        )
    _check_facts(checkpoint.get("run") or {}, facts, options.data)
    if options.weight and not _same_file(saved.get("weight"), options.weight):
        warn(f"--weight {options.weight} has no effect: the run goes on from its checkpoint")


def _check_facts(before: Mapping[str, Any], now: Mapping[str, Any], data: str) -> None:
    """UserError if the same files mean something else now; a warning where they were cut in another way.

    ``before``: what a checkpoint tells of its run; ``now``: of a TrainingJob. Earlier versions told less.
    """
    parts = {**now, **{f"segmentation/{name}": value for name, value in now.get("segmentation", {}).items()}}
    former = {**before, **{f"segmentation/{name}": value for name, value in before.get("segmentation", {}).items()}}
    for name, what in SAME_FACTS.items():
        if name in former and name in parts and (pair := (_plain(former[name]), _plain(parts[name])))[0] != pair[1]:
            raise UserError(
                f"--resume: that run had {what} {pair[0]}, and {data} has {pair[1]}; give the same --data and lists"
            )
    different = {name for name, value in before.items() if value and now.get(name) and value != now[name]}
    for name, what in SAME_HASHES.items():
        if name in different:
            raise UserError(f"--resume: {what} differ from those of that run; give the same --data and list")
    if different & {"recipes", "windows"}:
        warn(f"--resume: the samples in {data} were cut in another way than before (run.json tells how)")
    elif "records_sha256" in different:
        warn(
            f"--resume: the samples in {data} were cut anew, from other scans or with other flags than before; the run "
            "goes on with the new ones"
        )


def _plain(value: Any) -> str:
    """A fact for comparison and for people."""
    return json.dumps(value).replace('"', "")


def _same_file(saved: Any, given: str) -> bool:
    """Whether two names of a file can mean the same: it may have moved."""
    return isinstance(saved, str) and Path(saved).name == Path(given).name


def _same(saved: Any, given: Any) -> bool:
    """Whether two values of an option mean the same: a method's file may have moved, or be named from elsewhere."""
    if isinstance(saved, str) and isinstance(given, str) and saved.endswith(".py"):
        return Path(saved).name == Path(given).name
    return saved == given
