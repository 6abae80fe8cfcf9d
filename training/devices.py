"""Which devices a run uses, and DataParallel over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from utils.errors import UserError
from utils.text import counted


def select_gpus(wanted: str | None, available: int) -> tuple[list[int], list[int]]:
    """``--gpus`` and the number of GPUs -> (those to use, those asked for that do not exist).

    None means all; an empty string none. UserError if it is not a comma list of distinct numbers.
    """
    if wanted is None:
        return list(range(available)), []
    try:
        numbers = [int(word) for word in wanted.split(",") if word.strip()]
    except ValueError:
        raise UserError(f"--gpus {wanted}: give numbers separated by commas, such as 0,1, or '' for the CPU") from None
    if len(set(numbers)) != len(numbers) or any(number < 0 for number in numbers):
        raise UserError(f"--gpus {wanted}: each GPU once, numbered from 0")
    return [n for n in numbers if n < available], [n for n in numbers if n >= available]


def processes_wanted(parallel: str, processes: int, gpus: str | None) -> int:
    """How many processes ``--parallel`` and ``--processes`` ask for on this machine; UserError if that cannot be."""
    if parallel == "dp":
        if processes:
            raise UserError(f"--processes {processes}: only with --parallel ddp")
        return 1
    numbers, _ = select_gpus(gpus, torch.cuda.device_count())
    if not numbers and not processes:
        raise UserError("--parallel ddp without a GPU: say how many processes share the CPU with --processes N")
    if numbers and processes > len(numbers):
        raise UserError(f"--processes {processes}: one GPU each, and there are {len(numbers)} to use")
    return processes or len(numbers)


class _AutocastReplica(nn.Module):
    """A module whose replicas compute in the caller's autocast precision.

    DataParallel runs replicas in threads of their own, and tells them whether to autocast, but not to which type:
    they would take fp16, the default, where bf16 was meant.
    """

    def __init__(self, module: nn.Module, device_type: str) -> None:
        super().__init__()
        self.module, self.device_type = module, device_type
        self.enabled, self.dtype = torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type)

    def forward(self, *inputs: Any) -> Any:
        with torch.autocast(self.device_type, self.dtype, self.enabled):
            return self.module(*inputs)


class Devices:
    """The devices of a process. ``main`` holds the parameters; ``notes``/``warnings`` say what was chosen.

    ``local_rank``: this process's number among those that train together on this machine, which have a GPU each.
    """

    def __init__(self, gpus: str | None, local_rank: int | None = None) -> None:
        self.numbers, missing = select_gpus(gpus, torch.cuda.device_count())
        if local_rank is not None and self.numbers:
            if local_rank >= len(self.numbers):
                raise UserError(f"process {local_rank + 1} on this machine has no GPU: {len(self.numbers)} to use here")
            self.numbers = [self.numbers[local_rank]]
        self.main = torch.device("cuda", self.numbers[0]) if self.numbers else torch.device("cpu")
        self.warnings = []
        if missing:
            there = f"{torch.cuda.device_count()} GPU(s) here"
            self.warnings.append(f"--gpus: no GPU {', '.join(map(str, missing))} on this machine ({there})")
        if self.numbers:
            names = [f"cuda:{n} ({torch.cuda.get_device_name(n)})" for n in self.numbers]
            self.note = f"device: {', '.join(names)}"
        else:
            why = "asked for" if gpus is not None and not gpus.strip() else "no GPU to use"
            threads = torch.get_num_threads()
            self.note = f"device: CPU ({why}), {counted(threads, 'thread')}"

    def wrap(self, module: nn.Module) -> Callable[..., Any]:
        """DataParallel over the GPUs if there are several, else the module itself. To be applied for each call."""
        if len(self.numbers) < 2:
            return module
        return nn.DataParallel(_AutocastReplica(module, self.main.type), device_ids=self.numbers)
