"""Memory for little time: what is cheap to compute is not kept for the backward pass but computed again there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def _buffers_put_back(module: nn.Module) -> Iterator[None]:
    """The second computation sees the same batch, which running statistics have followed already."""
    before = [buffer.clone() for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(module.buffers(), before, strict=True):
            buffer.copy_(value)


def lean_convolve(norm: nn.Module, activation: nn.Module, conv: nn.Module, x: Tensor) -> Tensor:
    """``conv(activation(norm(x)))``, of which only x is kept: what conv reads is computed again for its gradient.

    The convolution itself is not: recomputation stops where all that backward needs is there.
    """

    def run(x: Tensor) -> Tensor:
        return conv(activation(norm(x)))

    if not torch.is_grad_enabled() or torch.compiler.is_compiling():  # a compiler finds by itself what to recompute
        return run(x)
    return checkpoint(
        run,
        x,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _buffers_put_back(norm)),
    )
