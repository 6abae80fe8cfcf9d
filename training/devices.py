"""Which devices a run uses, and DataParallel over them."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import Callable, Sequence
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
        raise UserError(f"--gpus {wanted}: give each GPU only once; numbers start at 0")
    return [n for n in numbers if n < available], [n for n in numbers if n >= available]


def nvidia_driver() -> str:
    """What shows that this machine has NVIDIA's driver: nvidia-smi, the kernel's module or libcuda; "" if nothing does.

    None of it uses a GPU, so that it is known even where torch cannot.
    """
    if found := shutil.which("nvidia-smi"):
        return found
    if os.path.exists("/proc/driver/nvidia/version"):
        return "/proc/driver/nvidia"
    try:
        ctypes.CDLL("libcuda.so.1")
        return "libcuda.so.1"
    except OSError:
        return ""


def _explain_missing(missing: Sequence[int], available: int) -> str:
    """Why GPUs that ``--gpus`` names are not used. UserError if none is, though this machine has a driver for them."""
    named, there = ", ".join(map(str, missing)), counted(available, "GPU")
    if available:
        return f"--gpus: no GPU {named} on this machine ({there} here)"
    driver = nvidia_driver()
    if not driver:
        return f"--gpus: no GPU {named} on this machine ({there} here, and no NVIDIA driver)"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.version.cuda is None:
        why = f"torch {torch.__version__} is built for the CPU; install one for CUDA (https://pytorch.org)"
    elif visible is not None:
        why = f"CUDA_VISIBLE_DEVICES is {visible!r}; change or unset it"
    else:
        why = "run nvidia-smi to check the driver; in a container, give it access to the GPUs; under Slurm, request one"
    raise UserError(
        f"--gpus {named}: torch sees no GPU, but this machine has an NVIDIA driver ({driver}): {why}; --gpus '' takes "
        "the CPU"
    )


def has_code_for(capability: tuple[int, int], built_for: Sequence[str]) -> bool:
    """Whether a torch built for such architectures (``torch.cuda.get_arch_list()``) runs on a GPU of this capability.

    ``sm_86`` runs on 8.6 and later 8.x, ``compute_90`` on 9.0 and all that is later. True where neither is named.
    """
    known = [re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", name) for name in built_for]
    targets = [(match[1], int(match[2]), int(match[3])) for match in known if match]
    if not targets:
        return True
    major, minor = capability
    return any(
        (kind == "sm" and m == major and n <= minor) or (kind == "compute" and (m, n) <= (major, minor))
        for kind, m, n in targets
    )


def check_gpus(numbers: Sequence[int]) -> None:
    """UserError if torch cannot compute on one of these GPUs: the driver is too old for it, or the GPU too old or new.

    Without it the first operation fails, with CUDA's words.
    """
    made_for = f"torch {torch.__version__} (CUDA {torch.version.cuda})"
    remedy = "docs/GPUS.md tells which torch is for which driver and GPU; --gpus '' takes the CPU"
    for number in numbers:
        try:
            capability = torch.cuda.get_device_capability(number)
        except (RuntimeError, AssertionError) as error:
            why = str(error).strip().splitlines()[0].split(". ")[0].rstrip(".")
            raise UserError(f"GPU {number} cannot be used by {made_for}: {why}; {remedy}") from None
        if not has_code_for(capability, torch.cuda.get_arch_list()):
            name = f"{torch.cuda.get_device_name(number)}, compute capability {capability[0]}.{capability[1]}"
            raise UserError(f"GPU {number} ({name}): {made_for} does not support this GPU; {remedy}")


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
        raise UserError(f"--processes {processes}: each process needs one GPU, and only {len(numbers)} can be used")
    check_gpus(numbers)  # once, and not by each process
    return processes or len(numbers)


MEMORY_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of a tensor's dimensions


def _channels_last(module: nn.Module) -> bool:
    """Whether kernels of the module lie in memory so."""
    return any(
        not parameter.is_contiguous() and parameter.is_contiguous(memory_format=MEMORY_FORMATS[parameter.dim()])
        for parameter in module.parameters()
        if parameter.dim() in MEMORY_FORMATS
    )


def _in_format(images: torch.Tensor, dims: int) -> torch.Tensor:
    """Images of ``dims`` dimensions channels-last, also where each sample has several of them; others as they are."""
    if images.dim() == dims:
        return images.to(memory_format=MEMORY_FORMATS[dims])
    if images.dim() == dims + 1:  # each of (B, C, ...) for itself, as they are passed on: image by image
        by_image = images.transpose(0, 1).flatten(0, 1).to(memory_format=MEMORY_FORMATS[dims])
        return by_image.unflatten(0, (images.shape[1], images.shape[0])).transpose(0, 1)
    return images


class _Replica(nn.Module):
    """A module whose replicas compute in the caller's autocast precision, and in the module's memory format.

    DataParallel runs replicas in threads of their own, and tells them whether to autocast, but not to which type:
    they would take fp16, the default, where bf16 was meant. And it sends parameters flat, so that replicas have
    contiguous kernels: their maps then follow the images (https://github.com/pytorch/pytorch/issues/37484).
    """

    def __init__(self, module: nn.Module, device_type: str) -> None:
        super().__init__()
        self.module, self.device_type = module, device_type
        self.enabled, self.dtype = torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type)
        self.channels_last = _channels_last(module)

    def forward(self, *inputs: Any) -> Any:
        """``inputs``: images (B, C, ...), several of each (B, L, C, ...), and what else the module takes."""
        if self.channels_last:
            dims = inputs[0].dim()
            inputs = tuple(_in_format(each, dims) if isinstance(each, torch.Tensor) else each for each in inputs)
        with torch.autocast(self.device_type, self.dtype, self.enabled):
            return self.module(*inputs)


BUSY = 1.5  # the load of a core from which on threads mostly wait for each other


def busy_cores(threads: int) -> str:
    """What to do where other programs use the cores; "" where they do not, or it is not known.

    A thread that waits for the others of its program keeps its core busy, so that these get it later still.
    """
    if threads < 2 or os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive" or not hasattr(os, "getloadavg"):
        return ""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1  # the load is that of the machine, whatever this process gets
    if load < BUSY * cores:
        return ""
    return (
        f"other programs use the cores (load {load:.1f} on {counted(cores, 'core')}): {threads} threads may be far "
        "slower than one; OMP_NUM_THREADS=1 python main.py ... uses one (docs/TROUBLESHOOTING.md)"
    )


class Devices:
    """The devices of a process. ``main`` holds the parameters; it is CUDA's current device from here on.

    ``note``, ``advice`` (or none) and ``warnings`` say what was chosen. UserError if a GPU cannot be used.
    ``local_rank``: this process's number among those that train together on this machine, which have a GPU each.
    """

    def __init__(self, gpus: str | None, local_rank: int | None = None) -> None:
        self.numbers, missing = select_gpus(gpus, torch.cuda.device_count())
        if local_rank is not None and self.numbers:
            if local_rank >= len(self.numbers):
                raise UserError(f"no GPU for process {local_rank + 1}: {len(self.numbers)} can be used on this machine")
            self.numbers = [self.numbers[local_rank]]
        self.main = torch.device("cuda", self.numbers[0]) if self.numbers else torch.device("cpu")
        self.warnings = [_explain_missing(missing, torch.cuda.device_count())] if missing else []
        self.advice = ""
        if len(self.numbers) > 1:
            self.advice = (
                f"one process uses all {len(self.numbers)} GPUs (DataParallel, as published); --parallel ddp, with one "
                "process per GPU, scales better"
            )
        if self.numbers:
            check_gpus(self.numbers)
            torch.cuda.set_device(self.main)
            names = [f"cuda:{n} ({torch.cuda.get_device_name(n)})" for n in self.numbers]
            self.note = f"device: {', '.join(names)}"
        else:
            why = "asked for" if gpus is not None and not gpus.strip() else "no GPU to use"
            threads = torch.get_num_threads()
            self.note = f"device: CPU ({why}), {counted(threads, 'thread')}"
            self.advice = busy_cores(threads)

    def wrap(self, module: nn.Module) -> Callable[..., Any]:
        """DataParallel over the GPUs if there are several, else the module itself. To be applied for each call."""
        if len(self.numbers) < 2:
            return module
        return nn.DataParallel(_Replica(module, self.main.type), device_ids=self.numbers)
