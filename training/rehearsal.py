"""``--dry_run``: all is built and takes two steps in memory; what a run would do is told, and nothing written."""

from __future__ import annotations

import dataclasses
import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from datasets.loader import Loader
from methods.base import Method
from options import Options
from training.checkpoint import LAST, TrainingState, checkpoint_name
from training.devices import Devices
from training.loop import Trainer
from training.progress import shown
from training.report import memory_gb
from training.schedule import cosine_lr, set_lr
from utils.console import say
from utils.errors import UserError

STEPS = 2  # the first one compiles, and fills caches


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
    texts = {field.name: field.metadata["help"] for field in dataclasses.fields(Options)}
    say("flags:")
    for name in _flags_given():
        say(f"  --{name} {getattr(options, name)}: {texts[name]}")


def _time(steps: Callable[[], Iterator[Any]]) -> list[float]:
    """Seconds of each step."""
    seconds, started = [], time.perf_counter()
    for _ in steps():
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    return seconds


def rehearse(
    trainer: Trainer, state: TrainingState, loader: Loader, files: Sequence[str], options: Options, devices: Devices
) -> None:
    """Take two steps and say what would happen. All ranks take part, the first one speaks."""
    method: Method = trainer.method
    method.train()
    set_lr(trainer.optimizer, cosine_lr(options.lr, 0, options.epochs, options.warmup_epochs))
    losses: dict[str, float] = {}

    def steps() -> Iterator[None]:
        for number, batch in zip(range(STEPS), loader.epoch(0), strict=False):
            result = trainer.step(batch, number, loader.batch_sizes[number])
            losses.update({"loss": result.loss, **result.terms})
            yield

    with out_of_memory_is_said(options):
        seconds = _time(steps)
    payload = state.snapshot(options, "", {})

    sample = {name: "x".join(map(str, value.shape)) for name, value in loader.first_sample.items()}
    parameters = sum(parameter.numel() for parameter in method.trainable())
    epoch = timedelta(seconds=round(seconds[-1] * len(loader)))
    run = timedelta(seconds=round(seconds[-1] * len(loader) * options.epochs))
    size = checkpoint_gb(payload)
    numbered = -(-options.epochs // options.save_every)
    output = Path(options.output)
    say(f"data: {len(files)} samples in {options.data}, the first {files[0]}")
    say(f"a sample: {', '.join(f'{name} {shape}' for name, shape in sample.items())}")
    say(
        f"batches: {len(loader)} of {options.b} an epoch, the last of {loader.batch_sizes[-1]}; {options.epochs} epochs"
    )
    say(f"network: {parameters / 1e6:.1f} million parameters are trained; precision {trainer.precision.name}")
    say(f"the last of {len(seconds)} steps: {shown(losses)}")
    say(f"time: {seconds[-1]:.2f} s that step, so about {epoch} an epoch and {run} the run, if data keep up")
    say(f"memory: {memory_gb(devices.main):.1f} GB at the peak ({devices.main.type})")
    say(
        f"disk: {size:.2f} GB a checkpoint, {numbered} numbered ones beside last, previous and best: at most "
        f"{size * (numbered + 3):.1f} GB"
    )
    say(f"the end of it: {output / checkpoint_name(options, options.epochs)}")
    if (output / LAST).exists():
        say(f"{output} holds a run: --resume auto goes on with it, --resume none starts anew")
    _tell_flags(options)
    say("dry run: nothing was written")
