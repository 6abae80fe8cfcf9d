"""``--dry_run``: all is built and takes two steps in memory; what a run would do is told, and nothing written."""

from __future__ import annotations

import dataclasses
import io
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from datasets.loader import Loader
from methods.base import Batch
from options import Options
from training.checkpoint import (
    BEST,
    LAST,
    PREVIOUS,
    Position,
    TrainingState,
    check_same_run,
    checkpoint_name,
    find_resume,
)
from training.devices import Devices
from training.loop import StepResult, Trainer
from training.progress import shown, speed
from training.report import CURVES, METRICS, memory_gb
from training.schedule import cosine_lr, set_lr
from utils.console import say, warn
from utils.errors import UserError
from utils.ranks import Ranks


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
    """Turn the GPU's refusal into one line."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"--b {options.b}: a step does not fit into the GPU's memory ({str(error).splitlines()[0]}); use a smaller "
            f"--b, --accumulate 2 or more, or more GPUs"
        ) from None


def _flags_given() -> list[str]:
    """The names of the flags on the command line."""
    names = {field.name for field in dataclasses.fields(Options)}
    words = [word[2:].partition("=")[0] for word in sys.argv[1:] if word.startswith("--")]
    return [name for name in dict.fromkeys(words) if name in names]


def _tell_flags(options: Options) -> None:
    texts = {field.name: field.metadata["help"].replace("%%", "%") for field in dataclasses.fields(Options)}
    say("flags:")
    for name in _flags_given():
        value = getattr(options, name)
        words = "" if value is True else f" {value}" if value != "" else ' ""'
        say(f"  --{name}{words}: {texts[name]}")


def tell_beginning(options: Options, list_sha256: str, ranks: Ranks, steps: int) -> None:
    """Say where a run would begin, or what would keep it from beginning. ``steps``: of an epoch."""
    output = Path(options.output)
    try:
        checkpoint = find_resume(options.resume, output)
        if checkpoint:
            check_same_run(checkpoint, options, list_sha256, ranks)
            position = Position(checkpoint["epoch"], checkpoint["step"])
            say(f"it would go on at {position.next_step(options.epochs, steps)}, of {output}")
        else:
            held = any((output / name).exists() for name in (LAST, PREVIOUS))
            say("it would start anew" + (f", over the run in {output}" if held else f": {output} holds no run"))
    except UserError as error:
        warn(f"it would not start: {error}")


def _timed_step(
    trainer: Trainer, batch: Batch, number: int, batch_size: int, devices: Devices
) -> tuple[StepResult, float]:
    """One training step, and its seconds."""
    started = time.perf_counter()
    result = trainer.step(batch, number, batch_size)
    if devices.main.type == "cuda":
        torch.cuda.synchronize(devices.main)
    return result, time.perf_counter() - started


def rehearse(
    trainer: Trainer,
    state: TrainingState,
    loader: Loader,
    files: Sequence[str],
    list_sha256: str,
    options: Options,
    devices: Devices,
) -> None:
    """Take one batch through two steps and say what would happen. All ranks take part, the first one speaks."""
    trainer.method.train()
    set_lr(trainer.optimizer, cosine_lr(options.lr, 0, options.epochs, options.warmup_epochs))
    size, started = loader.batch_sizes[0], time.perf_counter()
    batch = next(loader.epoch(0))
    waited = time.perf_counter() - started
    with out_of_memory_is_said(options):
        _timed_step(trainer, batch, 0, size, devices)  # compiles, and fills caches
        result, seconds = _timed_step(trainer, batch, 1, size, devices)
    payload = state.snapshot(options, list_sha256, {})
    if state.ranks.first:
        _tell_data(loader, files, list_sha256, options)
        _tell_step(trainer, result, seconds, waited, size, devices)
        _tell_run(seconds, len(loader), checkpoint_gb(payload), options)
        _tell_files(options, with_pictures=bool(result.images))
        tell_beginning(options, list_sha256, state.ranks, len(loader))
        _tell_flags(options)
        say(f"dry run: nothing was written to {options.output}")


def _tell_data(loader: Loader, files: Sequence[str], list_sha256: str, options: Options) -> None:
    sample = ", ".join(f"{name} {'x'.join(map(str, value.shape))}" for name, value in loader.first_sample.items())
    say(f"data: {len(files)} samples in {options.data}, the first {files[0]}; their list has SHA-256 {list_sha256}")
    say(f"a sample: {sample}")
    say(
        f"batches: {len(loader)} of {options.b} an epoch, the last of {loader.batch_sizes[-1]}; {options.epochs} epochs"
    )


def _tell_step(
    trainer: Trainer, result: StepResult, seconds: float, waited: float, batch_size: int, devices: Devices
) -> None:
    trained = {id(parameter): parameter.numel() for parameter in trainer.method.trainable()}
    others = sum(each.numel() for each in trainer.method.parameters() if id(each) not in trained)
    say(
        f"network: {sum(trained.values()) / 1e6:.1f} million parameters are trained, {others / 1e6:.1f} million are not"
    )
    say(f"precision: {trainer.precision.name}; {trainer.ranks.size} process(es)")
    say(f"the second step on the first batch: {shown({'loss': result.loss, **result.terms})}")
    say(f"a step: {seconds:.2f} s, {speed(batch_size / seconds)}; the first batch was there after {waited:.1f} s")
    say(f"memory: {memory_gb(devices.main):.1f} GB at the peak ({devices.main.type})")


def _tell_run(seconds: float, steps: int, size_gb: float, options: Options) -> None:
    epoch, run = (timedelta(seconds=round(seconds * steps * epochs)) for epochs in (1, options.epochs))
    numbered = -(-options.epochs // options.save_every)
    say(f"time, estimated from that one step: {epoch} an epoch, {run} the run; without held-out data, if data keep up")
    say(
        f"disk: {size_gb:.2f} GB a checkpoint, {numbered} numbered beside {LAST}, {PREVIOUS}, {BEST}: at most "
        f"{size_gb * (numbered + 3):.1f} GB"
    )


def _tell_files(options: Options, with_pictures: bool) -> None:
    names = [METRICS, CURVES, "run.json", "tensorboard/", *(["reconstructions/"] if with_pictures else [])]
    say(f"in {options.output}: {', '.join(names)}; at the end {checkpoint_name(options, options.epochs)}")
