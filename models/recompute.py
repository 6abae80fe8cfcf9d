"""Memory for little time: what is cheap to compute is not kept for the backward pass but computed again there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.forms import FORMS
from models.layers import BATCH_NORMS


@contextmanager
def _statistics_stay(norm: nn.Module) -> Iterator[None]:
    """The second computation sees the same batch, which running statistics have followed already: they keep still."""
    if not isinstance(norm, BATCH_NORMS):
        yield
        return
    momentum, count = norm.momentum, norm._buffers["num_batches_tracked"]
    norm.momentum, norm._buffers["num_batches_tracked"] = 0.0, None
    try:
        yield
    finally:
        norm.momentum, norm._buffers["num_batches_tracked"] = momentum, count


def lean_convolve(norm: nn.Module, activation: nn.Module, conv: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``conv(activation(norm(x)))``, of which only x is kept: what conv reads is computed again for its gradient.

    The convolution itself is not: recomputation stops where all that backward needs is there.
    """

    def run(x: Tensor) -> Tensor:
        return conv(activation(norm(x)))

    # A compiler finds by itself what to recompute.
    if not FORMS.recomputed or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return run(x)
    return checkpoint(
        run,
        x,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _statistics_stay(norm)),
    )
