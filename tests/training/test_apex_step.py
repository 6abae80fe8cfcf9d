"""A step under ``--amp apex``, on a stand-in for the last apex.amp: it patches torch's functions, and caches its casts.

apex itself needs a GPU. The stand-in casts to bf16, which the CPU computes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from methods.pcrl import PCRL, PCRLConfig
from models.pcrl import build_network
from tests.training.test_distributed import make_batch
from training.loop import Trainer
from training.precision import Apex
from utils import full_precision

STATE = """
class State:
    handle = None
_amp_state = State()
"""
AMP = """
import contextlib
import torch
import torch.nn.functional as F
from ._amp_state import _amp_state

CALLS = []

class Handle:
    def __init__(self):
        self._enable_caching, self.cache, self.active = True, {}, True

def cast(x, handle):
    if not isinstance(x, torch.Tensor) or x.dtype != torch.float32:
        return x
    if not (handle._enable_caching and x.requires_grad and x.is_leaf):
        return x.bfloat16()
    if x in handle.cache:
        cached = handle.cache[x]
        if cached.requires_grad and cached.grad_fn.next_functions[1][0].variable is not x:  # torch has one today
            raise RuntimeError("x and cache[x] both require grad, but x is not cache[x]'s parent")
        return cached
    handle.cache[x] = x.bfloat16()
    return handle.cache[x]

def initialize(module, optimizer, opt_level, verbosity):
    handle = _amp_state.handle = Handle()
    for name in ("conv2d", "conv_transpose2d", "linear"):
        original = getattr(F, name)
        def patched(*args, original=original, name=name, **kwargs):
            if not handle.active:
                return original(*args, **kwargs)
            CALLS.append(name)
            return original(*(cast(each, handle) for each in args), **kwargs)
        setattr(F, name, patched)

@contextlib.contextmanager
def scale_loss(loss, optimizer):
    yield loss
    _amp_state.handle.cache.clear()

@contextlib.contextmanager
def disable_casts():
    _amp_state.handle.active = False
    yield
    _amp_state.handle.active = True
"""


@pytest.fixture
def apex(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "apex" / "amp"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "_amp_state.py").write_text(STATE)
    (folder / "__init__.py").write_text(AMP)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(full_precision, "_suspenders", [])
    for name in ("conv2d", "conv_transpose2d", "linear"):
        monkeypatch.setattr(F, name, getattr(F, name))  # put back afterwards
    for name in [name for name in sys.modules if name.split(".")[0] == "apex"]:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "apex"]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.mark.usefixtures("apex")
def test_a_step_in_which_parameters_are_used_twice() -> None:
    """The student sees two views, which is more than apex's cache stands."""
    torch.manual_seed(0)
    method = PCRL(build_network(2, 3, 3, "bn", "none"), PCRLConfig(2, queue_size=8)).train()
    optimizer = torch.optim.SGD(method.trainable(), 0.01)
    precision = Apex(method, optimizer)
    batch = {name: value.float() for name, value in make_batch(2, 2, 0).items()}
    assert Trainer(method, optimizer, precision, 0, 10).step(batch, 0, 2).good
    calls = importlib.import_module("apex.amp").CALLS
    assert calls.count("conv_transpose2d") == 5 * 4, "each of the decoder's five blocks upsamples so, in four passes"
