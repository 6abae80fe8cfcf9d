"""The room that a run's checkpoints take, and the room that there is."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import nn

from options import Options
from training.checkpoint import LAST, PREVIOUS
from utils.console import warn
from utils.text import counted

GB = 1e9
SLOTS = {"sgd": 1, "adam": 2, "adamw": 2}  # values that an optimizer keeps of each one that it trains


def estimated_bytes(method: nn.Module, optimizer: torch.optim.Optimizer, name: str) -> int:
    """About the size of a checkpoint, before the ``optimizer`` of this ``name`` has taken a step."""
    own = sum(tensor.nbytes for tensor in (*method.parameters(), *method.buffers()))
    trained = sum(tensor.nbytes for group in optimizer.param_groups for tensor in group["params"])
    return own + SLOTS[name] * trained


def checkpoints(options: Options) -> int:
    """How many files of that size a run leaves at most."""
    numbered = -(-options.epochs // options.save_every)
    return numbered + len((LAST, PREVIOUS)) + (options.val_every > 0 or options.keep == "best-probe")


def free_bytes(output: Path) -> int:
    """What is free where ``output`` is, or will be."""
    there = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.is_dir())
    return shutil.disk_usage(there).free


def there_already(output: Path) -> int:
    """Bytes of the checkpoints in ``output``; several names of one file count once."""
    found = {(status.st_dev, status.st_ino): status.st_size for status in (path.stat() for path in output.glob("*.pt"))}
    return sum(found.values())


def in_words(size: float, options: Options) -> str:
    """``5.4 GB, for up to 7 checkpoints of 0.77 GB``; ``size``: of one, in bytes."""
    files = checkpoints(options)
    if size * files < GB / 10:
        whole, one = (f"{each / 1e6:.0f} MB" for each in (size * files, size))
    else:
        whole, one = f"{size * files / GB:.1f} GB", f"{size / GB:.2f} GB"
    return f"{whole}, for up to {counted(files, 'checkpoint')} of {one}"


def warn_if_short(size: float, options: Options) -> None:
    """Compare what a run will write with the room that there is. ``size``: of a checkpoint, in bytes."""
    output = Path(options.output)
    free, lacking = free_bytes(output), size * (checkpoints(options) + 1) - there_already(output)  # 1: being written
    if lacking <= free:
        return
    fewer = ", or give a higher --save_every" if options.epochs > options.save_every else ""
    warn(
        f"the disk of --output {options.output} has {free / GB:.1f} GB free, and the run needs "
        f"{in_words(size, options)}: make room{fewer}"
    )
