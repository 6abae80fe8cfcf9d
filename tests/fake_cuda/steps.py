"""Counts what a training step launches on a GPU, and where the host waits for it; prints JSON, a line for each case.

    python -m tests.fake_cuda.steps '{"dims": 3, "batch": 16}' ...

In an environment that :func:`tests.fake_cuda.run.run` makes, with stand-ins for CUDA's libraries. Keys of a case:
dims, batch, and if need be size, precision ("bfloat16", "float16" or "float32"), augment (False).
"""

from __future__ import annotations

import collections
import inspect
import json
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from datasets.ct import luna
from datasets.transforms import batched
from datasets.transforms.crops import sample_pair
from datasets.xray import chest
from methods.pcrl import PCRL, PCRLConfig
from models.layers import OPERATORS
from models.pcrl import build_network
from training.graph import StaticStep
from training.loop import Trainer
from training.precision import build_precision
from training.schedule import _leave_compiler_out, build_optimizer

ROOT = Path(__file__).resolve().parents[2]
SIZES: dict[int, tuple[int, ...]] = {2: (224, 224), 3: (64, 64, 32)}
CHANNELS, CODES = {2: 3, 3: 1}, {2: 6, 3: 7}
CUDA = torch.device("cuda", 0)
WAITING = {"_local_scalar_dense": "item", "nonzero": "nonzero", "equal": "equal", "masked_select": "masked_select"}


class Counter(TorchDispatchMode):
    """Operators that launch work (no views, no allocations), and places where the host waits."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: collections.Counter[str] = collections.Counter()
        self.waits: collections.Counter[str] = collections.Counter()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # its wrapper takes as long as all else

    def wait(self, kind: str) -> None:
        own = [f for f in traceback.extract_stack() if f.filename.startswith(str(ROOT)) and "site-packages" not in f[0]]
        own = [frame for frame in own if "/fake_cuda/" not in frame.filename]
        if any(frame.name == "kept" for frame in own):
            return  # a table of models/upconv.py, which is uploaded once
        place = f"{Path(own[-1].filename).relative_to(ROOT)}:{own[-1].lineno}" if own else "torch"
        self.waits[f"{kind} {place}"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_gpu = any(tensor.is_cuda for tensor in tensors)
        if on_gpu and name in WAITING:
            self.wait(WAITING[name])
        if name == "_local_scalar_dense":
            return 1.0 if args[0].dtype.is_floating_point else 1
        if name in ("_to_copy", "copy_"):
            self._look_at_copy(name, args, kwargs)
        if on_gpu and name == "index" and any(i is not None and not i.is_cuda for i in args[1]):
            self.wait("index from the CPU")
        if on_gpu and name == "nonzero":
            return args[0].new_zeros((max(1, args[0].numel() // 2), args[0].dim()), dtype=torch.int64)
        if name.startswith(("_fused_", "_amp_")):  # torch has no fake form of them
            self.operators[name] += 1
            return args[0] if func._schema.returns else None
        out = func(*args, **kwargs)
        if name == "convolution_backward" and out[1] is not None:  # as cuDNN gives it: in the kernel's memory format
            out = (out[0], torch.empty_like(args[2], dtype=out[1].dtype), out[2])
        returns = func._schema.returns
        view = bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        launched = func.namespace == "aten" and not view and "empty" not in name
        if launched and (on_gpu or any(result.is_cuda for result in results)):
            self.operators[name] += 1
        return out

    def _look_at_copy(self, name: str, args: Any, kwargs: Any) -> None:
        source = args[0] if name == "_to_copy" else args[1]
        target = kwargs.get("device", source.device) if name == "_to_copy" else args[0].device
        in_background = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
        if source.device.type != torch.device(target or source.device).type and not in_background and source.numel():
            self.wait(f"copy to {torch.device(target).type}")


class Arrival:
    """In place of a CUDA event; to wait for it is to wait."""

    counter: Counter

    def record(self, *stream: Any) -> None: ...

    def synchronize(self) -> None:
        self.counter.wait("a step late")


def without_values(tensor: Tensor) -> Tensor:
    """A fake tensor remembers small values, and computes with them for real."""
    if isinstance(tensor, FakeTensor):
        tensor.constant = None
    return tensor


def stand_in() -> None:
    """What fake tensors lack."""
    torch.cuda._lazy_init = lambda: None
    torch.cuda.is_available = lambda: True
    torch.cuda.Event = Arrival  # type: ignore[misc, assignment]
    torch.Tensor.pin_memory = lambda self, *_: without_values(self)  # type: ignore[method-assign, assignment]
    empty, tensor, as_list, as_numpy = torch.empty, torch.tensor, Tensor.tolist, Tensor.numpy
    torch.empty = lambda *a, pin_memory=False, **k: empty(*a, **k)  # type: ignore[assignment]

    def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        return without_values(tensor(data, *args, device="cpu", **kwargs)).to(device or "cpu")

    torch.tensor = made  # type: ignore[assignment]

    def tolist(self: Tensor) -> Any:
        if not isinstance(self, FakeTensor):
            return as_list(self)
        if self.is_cuda:
            Arrival.counter.wait("tolist")
        return np.ones(tuple(self.shape)).tolist()

    torch.Tensor.tolist = FakeTensor.tolist = tolist  # type: ignore[method-assign, assignment]

    def numpy(self: Tensor, *args: Any, **kwargs: Any) -> np.ndarray:
        return np.zeros(tuple(self.shape), np.float32) if isinstance(self, FakeTensor) else as_numpy(self)

    torch.Tensor.numpy = numpy  # type: ignore[method-assign, assignment]
    torch.autograd.set_multithreading_enabled(False)
    _leave_compiler_out()
    FakeTensorMode.__torch_dispatch__ = inspect.unwrap(FakeTensorMode.__torch_dispatch__)  # type: ignore[method-assign]


def on_fake_gpu(module: nn.Module, mode: FakeTensorMode, memory_format: torch.memory_format) -> None:
    """Replace the tensors of a module."""
    for each in module.modules():
        for tensors in (each._parameters, each._buffers):
            for name, value in tensors.items():
                if value is None:
                    continue
                moved = mode.from_tensor(value.detach()).to(CUDA)
                if moved.dim() == {torch.channels_last: 4, torch.channels_last_3d: 5}[memory_format]:
                    moved = moved.to(memory_format=memory_format)
                tensors[name] = nn.Parameter(moved, value.requires_grad) if tensors is each._parameters else moved


def make_batch(dims: int, batch: int, size: tuple[int, ...]) -> dict[str, Tensor]:
    """Of no values."""
    shape = (batch, CHANNELS[dims], *size)
    images = {f"{kind}{view}": torch.empty(shape, device=CUDA) for kind in ("input", "mask", "gt") for view in (1, 2)}
    return images | {f"aug{view}": torch.empty(batch, CODES[dims], device=CUDA) for view in (1, 2)}


def raw_batch(dims: int, batch: int, size: tuple[int, ...]) -> dict[str, Tensor]:
    """What workers hand over where views are finished on the device."""
    if dims == 2:
        kinds = {"input": ((batch, 3, *size), torch.uint8), "gt": ((batch, 3, *size), torch.uint8)}
        kinds |= {"holes": ((batch, 3, 2), torch.int64), "aug": ((batch, 6), torch.float32)}
        return {f"{k}{v}": torch.empty(s, dtype=t, device=CUDA) for k, (s, t) in kinds.items() for v in (1, 2)}
    (augmentation, _) = sample_pair(size, np.random.default_rng(0))
    raw = {"gt": np.zeros((1, *size), np.float32), **batched.parameters(augmentation, size)}
    values = {name: torch.as_tensor(np.asarray(value)) for name, value in raw.items()}
    return {
        f"{name}{view}": torch.empty((batch, *value.shape), dtype=value.dtype, device=CUDA)
        for name, value in values.items()
        for view in (1, 2)
    }


def count(
    dims: int, batch: int, size: tuple[int, ...] = (), precision: str = "bfloat16", augment: bool = False
) -> dict[str, Any]:
    """Of a step: ``operators`` by name, ``waits`` by place, and the ``copies`` that a graph needs for its inputs.

    With ``augment``: of finishing the views alone.
    """
    size, channels = tuple(size) or SIZES[dims], CHANNELS[dims]
    network = build_network(dims, channels, channels, "bn", {2: "none", 3: "sigmoid"}[dims])
    method = PCRL(network, PCRLConfig(100))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, Counter() as counter:
        Arrival.counter = counter
        if augment:
            finish = {2: chest.augment_batch, 3: luna.augment_batch}[dims]
            raw = [raw_batch(dims, batch, size) for _ in range(2)]
            finish(raw[0])  # which uploads tables
            counter.operators.clear()
            counter.waits.clear()
            finish(raw[1])
            return {"operators": counter.operators, "waits": counter.waits}
        trainer = make_trainer(dims, method, precision, mode)
        batches = [make_batch(dims, batch, size) for _ in range(2)]
        counter.operators.clear()
        counter.waits.clear()
        trainer.step(batches[0], 0, batch)
        found = {"operators": counter.operators.copy(), "waits": counter.waits.copy()}
        parts = [next(trainer._micro_batches(each, batch, np.random.default_rng(0))) for each in batches]
        for part in parts:
            part.draws = trainer.method.device_draws(part.draws, CUDA, torch.float32)
        assert trainer.gated
        static = StaticStep(trainer.gated, parts[0])
        counter.operators.clear()
        static.fill(parts[1])
        return found | {"copies": counter.operators}


def make_trainer(dims: int, method: PCRL, precision: str, mode: FakeTensorMode) -> Trainer:
    """As main.py makes one, after the first step, which makes the optimizer's state."""
    torch.cuda.is_bf16_supported = lambda including_emulation=True: precision == "bfloat16"
    on_fake_gpu(method, mode, OPERATORS[dims].channels_last)
    optimizer = build_optimizer("sgd", method.trainable(), 1e-3, 0.9, 1e-4)
    for parameter in method.trainable():
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    amp = "off" if precision == "float32" else "native"
    trainer = Trainer(method, optimizer, build_precision(amp, CUDA, method, optimizer), 0, 10)
    trainer.method.train()
    assert trainer.precision.name == precision
    return trainer


if __name__ == "__main__":
    stand_in()
    for case in sys.argv[1:]:
        print(json.dumps(count(**json.loads(case))), flush=True)
