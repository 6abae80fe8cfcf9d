"""Runs a phase's training in ``--output``: its lock, resumption, logs and checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets.loader import Loader
from methods.base import Method
from options import PRETRAINING, Options, telling
from training.best import best_in_words, settle_best
from training.checkpoint import BEST, Position, TrainingState, check_named, check_same_run, find_resume
from training.checkpoint_manager import CheckpointManager
from training.devices import Devices
from training.disk import estimated_bytes, warn_if_short
from training.distributed import backend_name
from training.dry_run import out_of_memory_is_said, rehearse
from training.evaluation import Evaluation
from training.graph_choice import step_graph
from training.loop import Trainer, train
from training.precision import build_precision
from training.redeal import CHANGES, deal_anew
from training.reporting.curves import read_rows
from training.reporting.reporter import METRICS, PICTURES, NullReporter, Reporter
from training.reporting.run_record import list_hash, paths_hash, times, write_run_record
from training.reporting.trackers import open_tracker
from training.schedule import build_optimizer
from utils.console import say, warn
from utils.cores import cores_of_process
from utils.errors import UserError, reason
from utils.files import write_text
from utils.image_grid import Windows
from utils.locks import exclusive
from utils.process_group import ProcessGroup
from utils.signals import StopRequest
from utils.text import counted


@dataclass(frozen=True)
class TrainingJob:
    """What a phase trains.

    ``files``: files of the training samples. ``windows``: the values that pictures show as black and white.
    ``evaluation``: evaluates the method between epochs. ``finish``: called with the output folder after the training.
    ``facts``: facts about the data for ``run.json`` and checkpoints, as plain values: ``shape`` of a sample, name of
    the training ``list``, ``recipes``, initial ``weight``. ``note``: which files an epoch uses, if not each file once.
    ``report``: writes the report of the run in a folder (--report); -> its path. ``probe``: a second evaluation, with
    labels. ``written``: file name -> text, for the output folder. ``same_operations``: whether each step runs the same
    operations, so that it can be captured.
    """

    method: Method
    loader: Loader
    files: Sequence[str]
    windows: Windows
    evaluation: Evaluation | None = None
    finish: Callable[[Path, TrainingState, Reporter | NullReporter], None] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    report: Callable[[Path], Path] | None = None
    probe: Evaluation | None = None
    written: Mapping[str, str] = field(default_factory=dict)
    same_operations: bool = False


def workers_here(options: Options) -> int:
    """The processes that load data for this one: ``--workers``, but no more than its share of the cores."""
    return min(options.workers, cores_of_process())


def prepare_output(path: str) -> Path:
    """Make the output folder; UserError if nothing can be written there."""
    output = Path(path)
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {path}: this is a file, not a folder; give another name")
    try:
        output.mkdir(parents=True, exist_ok=True)
        if not os.access(output, os.W_OK | os.X_OK):
            raise PermissionError("not writable")
    except OSError as error:
        raise UserError(f"--output {path}: {reason(error)}; give a folder that can be written to") from None
    return output


def write_texts(output: Path, texts: Mapping[str, str]) -> None:
    """Write text files, by their names, into the output folder, and say so; UserError if that cannot be."""
    for name, text in texts.items():
        try:
            write_text(output / name, text)
        except OSError as error:
            raise UserError(f"--output {output}: {name} cannot be written: {reason(error)}") from None
    if texts:
        say(f"saved {', '.join(str(output / name) for name in texts)}")


@contextmanager
def run_folder(options: Options, ranks: ProcessGroup) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """``--output``, held for this run, and the checkpoint to go on from, if any. Only the first rank looks there."""
    output, checkpoint = Path(options.output), None
    with ExitStack() as stack:
        with ranks.raise_on_all():
            if ranks.first:
                check_named(options.resume)  # before a folder is made that nothing comes into
                prepare_output(options.output)
                stack.enter_context(exclusive(output, [PICTURES]))
                checkpoint = find_resume(options.resume, output)
        yield output, ranks.broadcast(checkpoint)


def _judge(options: Options) -> str:
    """Whose results select the best state."""
    return "of the probe" if options.keep == "best-probe" or not options.val_every else "on held-out data"


def _tell_beginning(options: Options, output: Path, state: TrainingState, steps: int, resumed: bool) -> None:
    """Say where the training goes on, or that there is nothing to go on from, or left to do."""
    position = state.position
    if not resumed:
        if options.resume == "auto":  # where --output is mistyped, too
            say(f"--resume auto: {output} holds no run; starting anew")
    elif state.owes_results:
        say(f"going on with the results {_judge(options)} after epoch {position.epoch}/{options.epochs}")
    elif state.is_complete(options.epochs, patience=0):
        say(f"the run is complete: {position.epoch} of {counted(options.epochs, 'epoch')}; raise --epochs to continue")
    elif state.out_of_patience(options.patience):
        results = counted(state.waited, "result")
        say(f"the run is complete: {results} {_judge(options)} without improvement; raise --patience to continue")
    else:
        say(f"going on at {position.next_step(options.epochs, steps)}")


def _tell_end(options: Options, state: TrainingState) -> None:
    """Say, as the last line, why the training ended; before it, that there is no best state though it was asked for."""
    epoch = state.position.epoch
    if why := state.method.warming():
        say(f"{why}; the contrast rises until it is full: this is normal (docs/LEARNING.md)")
    judged = options.probe_every if options.keep == "best-probe" else options.val_every
    if judged and not state.best_epoch:
        warn(f"{options.output} has no {BEST}: no result {_judge(options)} counted, or the file was not written")
    best = ""
    if state.best_epoch and options.phase not in PRETRAINING:  # whose results on the test part name the epoch
        best = f"; {BEST} holds the best state, of epoch {state.best_epoch}"
    elif state.best_epoch and state.ranks.first:
        rows: list[dict[str, Any]] = []
        with suppress(OSError):
            rows = read_rows(Path(options.output) / METRICS)
        say(best_in_words(state.best_epoch, state.best, rows, by_probe=options.keep == "best-probe"))
    if epoch < options.epochs:
        say(
            f"stopped after epoch {epoch} of {options.epochs}: {counted(state.waited, 'result')} {_judge(options)} "
            f"without improvement (--patience {options.patience}){best}"
        )
    else:
        asked = "as --epochs asks" if epoch == options.epochs else f"more than --epochs {options.epochs}"
        say(f"finished: {counted(epoch, 'epoch')}, {asked}; {options.output} holds the run")


@contextmanager
def _abort_is_said(tell: Callable[[], None]) -> Iterator[None]:
    """Say what is on disk when the user will not wait for the end."""
    try:
        yield
    except KeyboardInterrupt:
        tell()
        raise


def execute(options: Options, devices: Devices, ranks: ProcessGroup, build: Callable[[], TrainingJob]) -> None:
    """Train what ``build`` makes, from the first epoch or from where ``--resume`` says, to the last."""
    with ranks.raise_on_all(), out_of_memory_is_said(options):
        job = build()
        method, loader = job.method, job.loader
        optimizer = build_optimizer(
            options.optimizer, method.trainable(), options.lr, options.momentum, options.weight_decay
        )
        precision = build_precision(options.amp, devices.main, method, optimizer)
    list_sha256 = list_hash([os.path.basename(file) for file in job.files])
    job = replace(job, facts={**job.facts, "steps_per_epoch": len(loader), "paths_sha256": paths_hash(job.files)})
    if len(set(ranks.gather_objects(list_sha256))) > 1:
        raise UserError(f"--data {options.data}: the training samples are not the same on all machines")
    trainer = Trainer(method, optimizer, precision, options.seed, options.max_bad_steps, ranks, options.accumulate)
    size = max(loader.batch_sizes)
    trainer.graph = step_graph(options.cuda_graph, trainer, devices, job.same_operations, size)
    state = TrainingState(method, optimizer, precision, Position(), ranks)
    if options.dry_run:
        with closing(loader):
            rehearse(trainer, state, loader, job.files, list_sha256, options, devices, job.note, job.facts)
        return
    answer = "stopping after this step, then saving" if ranks.first else ""
    with StopRequest(ranks.size > 1, answer) as request, run_folder(options, ranks) as (output, checkpoint):
        if checkpoint:
            check_same_run(checkpoint, options, list_sha256, {**job.facts, "samples": len(job.files)})
        _begin(job, state, options, output, checkpoint)
        reporter: Reporter | NullReporter = NullReporter()
        if ranks.first:
            _record(job, state, options, devices, output, checkpoint, list_sha256)
            reporter = _reporter(job, state, options, devices, output, checkpoint)
        checkpoints = CheckpointManager(state, reporter, options, output, list_sha256, request, len(loader))
        with closing(reporter), closing(loader):
            with _abort_is_said(checkpoints.tell_what_is_there):
                train(
                    trainer,
                    loader,
                    reporter,
                    checkpoints,
                    lr=options.lr,
                    epochs=options.epochs,
                    position=state.position,
                    warmup_epochs=options.warmup_epochs,
                    evaluation=job.evaluation,
                    probe=job.probe,
                    by_probe=options.keep == "best-probe",
                )
            if job.finish:
                checkpoints.stop_if_asked()
                with (
                    request.answering("the run ends after the test part", "to end at once: all is saved"),
                    _abort_is_said(partial(say, "the test part was not finished; --resume auto evaluates it")),
                ):
                    job.finish(output, state, reporter)
        if ranks.first:
            _write_page(job, options, output)
        _tell_end(options, state)


def _write_page(job: TrainingJob, options: Options, output: Path) -> None:
    """``report.html``, if it is asked for; that it cannot be written costs the run nothing."""
    if not (options.report and job.report):
        return
    try:
        say(f"report: {job.report(output)}")
    except UserError as error:
        warn(str(error))


def _begin(
    job: TrainingJob, state: TrainingState, options: Options, output: Path, checkpoint: dict[str, Any] | None
) -> None:
    """Bring the state to where the checkpoint stands, if there is one, and say what is trained on, and from where."""
    ranks = state.ranks
    if checkpoint:
        state.restore(checkpoint)
        _judge_alike(job, state, checkpoint)
        state.run[CHANGES] = deal_anew(job.loader, state.position, checkpoint)
    with ranks.raise_on_all():
        if ranks.first:
            settle_best(output, state, checkpoint)
            warn_if_short(estimated_bytes(job.method, state.optimizer, options.optimizer), options)
    state.best, state.best_epoch, state.waited = ranks.broadcast((state.best, state.best_epoch, state.waited))
    _tell_beginning(options, output, state, len(job.loader), resumed=checkpoint is not None)
    steps, in_all = (counted(len(job.loader) * epochs, "step") for epochs in (1, options.epochs))
    say(
        f"data: {counted(len(job.files), 'sample')} in {options.data}, {steps} an epoch"
        f"{f' ({job.note})' if job.note else ''}, {in_all} in all; precision: {state.precision.name}; output: {output}"
    )


def _judge_alike(job: TrainingJob, state: TrainingState, checkpoint: Mapping[str, Any]) -> None:
    """Forget the best result so far if it is of other held-out data or of another probe; warn of other test data."""
    before = checkpoint.get("run", {})
    changed = {name for name in ("judged_by", "tested_by") if before.get(name, "") not in ("", job.facts.get(name, ""))}
    if "judged_by" in changed and state.best_epoch:
        if state.ranks.first:
            warn("--resume: the data that select the best state changed: it is chosen among the epochs that follow")
        state.forget_best()
    if "tested_by" in changed and state.ranks.first:
        warn("--resume: the test part changed: it should have no patient of the former training and validation parts")


def _record(
    job: TrainingJob,
    state: TrainingState,
    options: Options,
    devices: Devices,
    output: Path,
    checkpoint: dict[str, Any] | None,
    list_sha256: str,
) -> None:
    """Write run.json, and give the state what checkpoints tell of the run."""
    data = {"samples": len(job.files), "list_sha256": list_sha256, **job.facts}
    write_texts(output, job.written)
    data["begun_with"] = options.weight or "none"
    if checkpoint is not None:  # what the run itself began with counts
        before = checkpoint.get("run", {})
        data["weight"] = before.get("weight", {})
        named = checkpoint["opt"].get("weight") or data["weight"].get("file")  # of earlier versions
        data["begun_with"] = before.get("begun_with") or named or "none"
    began, precision, size = times(output, list_sha256, checkpoint), state.precision.name, state.ranks.size
    began |= {CHANGES: changes} if (changes := state.run.get(CHANGES)) else {}
    state.run = began | data | {"precision": precision}
    machine = {"device": devices.note, "precision": precision, "world_size": size}
    backend = {"backend": backend_name(devices.main)} if size > 1 else {}
    if not state.is_complete(options.epochs, options.patience):  # else it goes on telling what made the weights
        write_run_record(output, options, data, began | machine | backend)


def _reporter(
    job: TrainingJob,
    state: TrainingState,
    options: Options,
    devices: Devices,
    output: Path,
    checkpoint: dict[str, Any] | None,
) -> Reporter:
    """The reporter of the first rank, which goes on from the checkpoint's sums."""
    steps = len(job.loader)
    tracker = open_tracker(options.tracker, output, options.plain(), checkpoint is not None)
    reporter = Reporter(
        output,
        options.epochs,
        steps,
        options.log_every,
        job.windows,
        devices.main,
        job.method,
        options.image_every,
        checkpoint["report"] if checkpoint else None,
        state.position.epoch * steps + state.position.step,
        options.report,
        within_epoch=state.position.step > 0,
    )
    reporter.follow(tracker)
    reporter.options(telling(options.plain()))
    return reporter
