"""Mixed precision: none, torch's own, or NVIDIA apex where it is installed."""

from __future__ import annotations

import importlib.util
import math
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from utils.console import warn
from utils.errors import UserError
from utils.full_precision import add_suspender

PROBE_SIDE = 256  # of the matrices that bf16_slowness multiplies
SLOW = 2.0  # times float32's time: bf16 without instructions for it takes far more, with them less


class Precision(Protocol):
    """How a step is computed and its gradients applied."""

    name: str

    def autocast(self) -> AbstractContextManager[Any]: ...

    def backward(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Add the gradient of ``loss`` to what is there."""

    def update(self, optimizer: torch.optim.Optimizer) -> bool:
        """The optimizer's step; False, and nothing changed, if the gradient was not finite."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def gradient_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    """The norm of all gradients, a scalar on their device."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients, foreach=all(each.is_cuda for each in gradients) or None)


def _finite_gradient(optimizer: torch.optim.Optimizer) -> bool:
    return math.isfinite(gradient_norm(optimizer).item())


class Native:
    """torch autocast: bf16 on the CPU and on GPUs that compute it, else fp16 with a gradient scaler."""

    def __init__(self, device: torch.device, enabled: bool) -> None:
        fp16 = enabled and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
        self.device, self.enabled = device, enabled
        self.dtype = torch.float16 if fp16 else torch.bfloat16
        self.name = str(self.dtype).removeprefix("torch.") if enabled else "float32"
        self.scaler = torch.amp.GradScaler(device.type, enabled=fp16)

    def computes_in(self, module: nn.Module) -> torch.dtype:
        """The type that the module's maps have."""
        return self.dtype if self.enabled else next(module.parameters()).dtype

    def autocast(self) -> AbstractContextManager[Any]:
        if not self.enabled:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def backward(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        self.scaler.scale(loss).backward()

    def update(self, optimizer: torch.optim.Optimizer) -> bool:
        self.scaler.unscale_(optimizer)
        finite = _finite_gradient(optimizer)
        if finite:
            self.scaler.step(optimizer)
        self.scaler.update()  # which lowers the scale where unscaling met what is not finite
        return finite

    def update_if(self, finite_loss: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
        """The fused optimizer's step if loss and gradient are finite; -> whether, a scalar on the device.

        As :meth:`update`, without the host: it is not called after a loss that is not finite, which leaves the scale.
        """
        if self.scaler.is_enabled():  # it remembers a step that was broken off: no memory, or a failed capture
            self.scaler._per_optimizer_states.clear()
        self.scaler.unscale_(optimizer)
        good = finite_loss & gradient_norm(optimizer).isfinite()
        optimizer.found_inf, optimizer.grad_scale = (~good).float(), None  # type: ignore[attr-defined]
        try:
            optimizer.step()
        finally:
            del optimizer.found_inf, optimizer.grad_scale  # type: ignore[attr-defined]
        former = [(tensor, tensor.clone()) for tensors in self.scale().values() for tensor in tensors]
        self.scaler.update()
        for tensor, value in former:
            tensor.copy_(torch.where(finite_loss, tensor, value))
        return good

    def scale(self) -> dict[str, list[Tensor]]:
        """The gradient scaler's tensors, by what they are; in fp16 alone."""
        if not self.scaler.is_enabled():
            return {}
        if self.scaler._scale is None:
            self.scaler.scale(torch.zeros((), device=self.device))  # which makes them
        own = {"gradient scale": self.scaler._scale, "steps of this gradient scale": self.scaler._growth_tracker}
        return {name: [tensor] for name, tensor in own.items() if tensor is not None}

    def state_dict(self) -> dict[str, Any]:
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scaler.load_state_dict(state)


def _apex_amp() -> Any:
    """The module ``apex.amp``. UserError if there is none: PyPI's ``apex`` is another package, and not imported."""
    found = importlib.util.find_spec("apex")
    folders = (found.submodule_search_locations if found else None) or []
    if not any((Path(folder) / "amp" / "__init__.py").is_file() for folder in folders):
        what = "the installed package apex is another one or lacks amp" if found else "it is not installed"
        raise UserError(f"--amp apex: needs NVIDIA's apex with its amp ({what}); use --amp native")
    try:
        from apex import amp
    except ImportError as error:
        raise UserError(f"--amp apex: apex.amp cannot be imported ({error}); use --amp native") from None
    return amp


class Apex:
    """apex O1, as the published code trains. Needs NVIDIA's apex with its ``amp`` (new releases drop it)."""

    name = "apex O1"

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.amp = amp = _apex_amp()
        amp.initialize(module, optimizer, opt_level="O1", verbosity=0)
        # Its cache of cast parameters fails when one is used twice in a step, with a torch of today (NVIDIA/apex#1227).
        state = getattr(sys.modules.get("apex.amp._amp_state"), "_amp_state", None)
        if handle := getattr(state, "handle", None):
            handle._enable_caching = False
        add_suspender(amp.disable_casts)

    def autocast(self) -> AbstractContextManager[Any]:
        return nullcontext()  # O1 patches torch's functions themselves

    def backward(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        with self.amp.scale_loss(loss, optimizer) as scaled:
            scaled.backward()

    def update(self, optimizer: torch.optim.Optimizer) -> bool:
        finite = _finite_gradient(optimizer)
        optimizer.step()  # apex has patched it to skip a step that overflowed
        return finite

    def state_dict(self) -> dict[str, Any]:
        return self.amp.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.amp.load_state_dict(state)


def build_precision(amp: str, device: torch.device, module: nn.Module, optimizer: torch.optim.Optimizer) -> Precision:
    """``off``, ``native``, ``apex`` or ``auto``: native on CUDA (the published code trains in O1), off on the CPU."""
    if amp == "apex":
        if device.type != "cuda":
            raise UserError("--amp apex needs a GPU; use --amp native (bf16) or --amp off on the CPU")
        return Apex(module, optimizer)
    enabled = amp == "native" or (amp == "auto" and device.type == "cuda")
    if enabled and device.type == "cpu" and (slowness := bf16_slowness()) > SLOW:
        warn(
            f"--amp native: on this processor a product in bf16 takes {slowness:.0f} times as long as in float32; "
            "--amp off is faster here"
        )
    return Native(device, enabled)


def bf16_slowness() -> float:
    """How long a product in bf16 takes on the CPU, as a multiple of float32: large without instructions for it."""

    def fastest(dtype: torch.dtype) -> float:
        factor, times = torch.ones(PROBE_SIDE, PROBE_SIDE, dtype=dtype), []
        for _ in range(3):
            start = time.perf_counter()
            torch.mm(factor, factor)
            times.append(time.perf_counter() - start)
        return min(times)

    return fastest(torch.bfloat16) / fastest(torch.float32)
