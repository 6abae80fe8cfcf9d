"""``--dry_run``: build everything, run a few steps in memory, report what a run would do, and write nothing."""

from __future__ import annotations

import dataclasses
import io
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from datasets.loader import Loader
from methods.base import Batch
from options import ALIASES, TRAINING, Options
from training.checkpoint import (
    LAST,
    PREVIOUS,
    Position,
    TrainingState,
    check_same_run,
    checkpoint_name,
    find_resume,
)
from training.devices import Devices
from training.disk import GB, free_bytes, in_words, warn_if_short
from training.gated import StepResult
from training.loop import Trainer
from training.redeal import deal_anew
from training.reporting.progress import shown, speed
from training.reporting.reporter import CURVES, METRICS, memory_gb
from training.schedule import cosine_lr, set_lr
from utils.console import say, warn
from utils.errors import UserError
from utils.memory import lack_of_memory
from utils.text import counted

TIMED_STEPS = 5
SMALLER = {"chest": "a smaller --size", "luna": "smaller crops", "nodules": "smaller crops", "msd": "a smaller --patch"}


class _Counter(io.RawIOBase):
    """A file that keeps nothing but its length."""

    length = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.length += size
        return size


def checkpoint_gb(payload: dict[str, Any]) -> float:
    """The size of a checkpoint on disk."""
    counter = _Counter()
    torch.save(payload, counter)  # type: ignore[arg-type]  # it needs write() alone
    return counter.length / 1e9


@contextmanager
def out_of_memory_is_said(options: Options) -> Iterator[None]:
    """Turn the GPU's refusal, or that of main memory, into one line."""
    accumulate = ", --accumulate 2 or more" if options.phase in TRAINING else ""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"--b {options.b}: a step does not fit into the GPU's memory ({str(error).splitlines()[0]}); use a smaller "
            f"--b{accumulate}, or more GPUs"
        ) from None
    except (MemoryError, OSError, RuntimeError) as error:
        lacking = lack_of_memory(error)
        if not lacking:
            raise
        raise UserError(
            f"--b {options.b}: it does not fit into main memory ({lacking}); use a smaller --b{accumulate}, "
            f"fewer --workers, or {SMALLER.get(options.n, 'smaller images')}"
        ) from None


def _flags_given() -> list[str]:
    """The names of the flags on the command line."""
    names = {field.name for field in dataclasses.fields(Options)}
    words = [word[2:].partition("=")[0] for word in sys.argv[1:] if word.startswith("--")]
    return [name for name in dict.fromkeys(ALIASES.get(word, word) for word in words) if name in names]


def _tell_flags(options: Options) -> None:
    given = {name: getattr(options, name) for name in _flags_given()}
    words = (f"--{name}" if value is True else f"--{name} {value or repr(value)}" for name, value in given.items())
    say(f"flags: {' '.join(words)}")


def tell_beginning(options: Options, list_sha256: str, loader: Loader, facts: Mapping[str, Any]) -> Position:
    """Say where a run would begin, or what would keep it from beginning; -> its position."""
    output = Path(options.output)
    try:
        checkpoint = find_resume(options.resume, output)
        if checkpoint:
            check_same_run(checkpoint, options, list_sha256, facts)
            position = Position(checkpoint["epoch"], checkpoint["step"])
            deal_anew(loader, position, checkpoint)
            say(f"it would go on at {position.next_step(options.epochs, len(loader))}, of {output}")
            return position
        held = any((output / name).exists() for name in (LAST, PREVIOUS))
        say("a new run would start" + (f" and overwrite the run in {output}" if held else f": {output} holds no run"))
    except UserError as error:
        warn(f"the run would not start: {error}")
    return Position()


def _timed_step(
    trainer: Trainer, batch: Batch, number: int, batch_size: int, devices: Devices
) -> tuple[StepResult, float]:
    """One training step, and its seconds."""
    started = time.perf_counter()
    result = trainer.step(batch, number, batch_size)
    if devices.main.type == "cuda":
        torch.cuda.synchronize(devices.main)
    return result, time.perf_counter() - started


def typical_seconds(steps: Sequence[float]) -> float:
    """Of a step: the median of some, since single ones are slow where another program takes its turn."""
    return statistics.median(steps)


def rehearse(
    trainer: Trainer,
    state: TrainingState,
    loader: Loader,
    files: Sequence[str],
    list_sha256: str,
    options: Options,
    devices: Devices,
    note: str,
    facts: Mapping[str, Any],
) -> None:
    """Take one batch through a few steps and say what would happen. All ranks take part, the first one speaks.

    ``note``, ``facts``: as of a TrainingJob.
    """
    say(f"dry run: measuring {counted(1 + TIMED_STEPS, 'step')}")
    trainer.method.train()
    set_lr(trainer.optimizer, cosine_lr(options.lr, 0, options.epochs, options.warmup_epochs))
    size, batch = loader.batch_sizes[0], next(loader.epoch(0))
    _timed_step(trainer, batch, 0, size, devices)  # compiles, and fills caches
    steps = [_timed_step(trainer, batch, number, size, devices) for number in range(1, 1 + TIMED_STEPS)]
    result, seconds = steps[0][0], typical_seconds([each for _, each in steps])
    payload = state.snapshot(options, list_sha256, {})
    if state.ranks.first:
        _tell_data(loader, files, options, note)
        _tell_step(trainer, result, seconds, size, devices)
        position = tell_beginning(options, list_sha256, loader, {**facts, "samples": len(files)})
        tell_time(seconds, len(loader), position, options)
        _tell_disk(GB * checkpoint_gb(payload), options)
        _tell_files(options, with_pictures=bool(result.images))
        _tell_flags(options)
        say(f"dry run: nothing was written to {options.output}")


def _tell_data(loader: Loader, files: Sequence[str], options: Options, note: str) -> None:
    last = loader.batch_sizes[-1]
    short = f", the last batch has {counted(last, 'sample')}" if last != options.b else ""
    batches = f"{counted(len(loader), 'batch')} of {counted(options.b, 'sample')} per epoch{short}"
    say(f"data: {counted(len(files), 'sample')} in {options.data}: {batches}{f' ({note})' if note else ''}")
    image = next(iter(loader.first_sample.values()))
    say(f"the network reads images of {' x '.join(map(str, image.shape))} (channels first)")


def _tell_step(trainer: Trainer, result: StepResult, seconds: float, batch_size: int, devices: Devices) -> None:
    trained = sum(parameter.numel() for parameter in trainer.method.trainable())
    say(f"trainable parameters: {trained / 1e6:.1f} million; precision: {trainer.precision.name}")
    say(f"a step: {seconds:.2f} s, {speed(batch_size / seconds)}; memory: {memory_gb(devices.main):.1f} GB at the peak")
    say(f"losses of the second step: {shown({'loss': result.loss, **result.terms})}")


def tell_time(seconds: float, steps: int, position: Position, options: Options) -> None:
    """Say how long what is left of the run takes, at ``seconds`` a step; ``steps``: of an epoch."""
    total = options.epochs * steps
    left = max(0, total - position.epoch * steps - position.step)
    what = counted(options.epochs, "epoch") if left == total else f"the last {left} of {counted(total, 'step')}"
    epoch, run = (timedelta(seconds=round(seconds * number)) for number in (steps, left))
    say(f"time: about {run} for {what}, {epoch} per epoch, if data loading is fast enough")


def _tell_disk(size: float, options: Options) -> None:
    free = free_bytes(Path(options.output)) / GB
    say(f"disk: {in_words(size, options)}; {free:.1f} GB are free there")
    warn_if_short(size, options)


def _tell_files(options: Options, with_pictures: bool) -> None:
    names = [METRICS, CURVES, "run.json", "tensorboard/", *(["reconstructions/"] if with_pictures else [])]
    say(f"in {options.output}: {', '.join(names)}; at the end {checkpoint_name(options, options.epochs)}")
