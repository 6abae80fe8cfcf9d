"""Whether a run's step is captured as a CUDA graph (``--cuda_graph``)."""

from __future__ import annotations

from training.devices import Devices
from training.graph import StepGraph
from training.loop import Trainer
from utils.console import say
from utils.errors import UserError


def step_graph(wanted: str, trainer: Trainer, devices: Devices, same_operations: bool, size: int) -> StepGraph | None:
    """What captures the trainer's step, or None; says why not, unless that is plain. UserError if it must and cannot.

    ``same_operations``: whether the method does the same ones in each step. ``size``: of a full batch, in samples.
    """
    if wanted == "off":
        return None
    on_cpu = devices.main.type != "cuda"
    why_not = "the run computes on the CPU" if on_cpu else _why_not(trainer, devices, same_operations)
    if not why_not:
        return StepGraph(wanted, size)
    if wanted == "on":
        raise UserError(f"--cuda_graph on: {why_not}; leave it out")
    if same_operations and not on_cpu:
        say(f"no CUDA graph: {why_not}")
    return None


def _why_not(trainer: Trainer, devices: Devices, same_operations: bool) -> str:
    if not same_operations:
        return "the method's steps do not all run the same operations"
    if trainer.ranks.size > 1:
        return "several processes train together"
    if len(devices.numbers) > 1:
        return "several GPUs share the process"
    if trainer.accumulate > 1:
        return "--accumulate splits a step into parts"
    if trainer.gated is None:
        return f"with precision {trainer.precision.name}, the CPU must check each gradient"
    return ""
