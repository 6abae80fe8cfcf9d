"""What a step must compute and move, and what this machine can: how near the one comes to the other.

    python benchmarks/roofline.py

prints the machine's peaks. Operations are counted as torch.utils.flop_counter counts them: those of convolutions and
matrix products, an addition and a multiplication being two.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.precision import bf16_slowness


@cache
def has_bf16(device: str = "cpu") -> bool:
    """Whether the device has instructions for bf16, so that it is worth measuring; if not, that is said once."""
    slowness = bf16_slowness() if device == "cpu" else 0
    if slowness > 1:
        print(f"bf16 is left out: a product takes {slowness:.0f} x as long as in float32 on this processor", flush=True)
    return slowness <= 1


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of the tensors that each operation reads and writes."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and not func.__name__.startswith("empty"):
            self.bytes += sum(x.nbytes for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor))
        return result


class Count:
    """A context that counts what happens in it.

    ``flop``: operations. ``bytes``: read and written by each operation on tensors, as if nothing were ever in a cache.
    """

    def __init__(self) -> None:
        self._flops, self._traffic = FlopCounterMode(display=False), _Traffic()
        self.flop = self.bytes = 0

    def __enter__(self) -> None:
        self._flops.__enter__()
        self._traffic.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._traffic.__exit__(*error)
        self._flops.__exit__(*error)
        self.flop, self.bytes = self._flops.get_total_flops(), self._traffic.bytes


class Peak(NamedTuple):
    """The best that the machine was seen to do: TFLOP/s in float32 and bf16 (0: no instructions), GB/s of memory."""

    float32: float
    bfloat16: float
    memory: float

    def bound_ms(self, precision: str, gflop: float, gigabytes: float) -> tuple[float, float]:
        """The times that the operations alone and the bytes alone would take."""
        return gflop / getattr(self, precision), gigabytes / self.memory * 1e3


def measure_peak(device: str = "cpu") -> Peak:
    """The faster of a 2048 x 2048 matrix product and a 3 x 3 x 3 convolution of 64 channels; a copy of 256 MB."""
    quarter_gb = torch.zeros(2**26, device=device)
    return Peak(
        _tera_per_second(torch.float32, device),
        _tera_per_second(torch.bfloat16, device) if has_bf16(device) else 0,
        2 * quarter_gb.nbytes / _seconds(quarter_gb.clone) / 1e9,
    )


def _tera_per_second(dtype: torch.dtype, device: str) -> float:
    square = torch.randn(2048, 2048, device=device).to(dtype)
    maps = torch.randn(4, 64, 32, 32, 16, device=device).to(dtype).to(memory_format=torch.channels_last_3d)
    kernel = torch.randn(64, 64, 3, 3, 3, device=device).to(dtype).to(memory_format=torch.channels_last_3d)
    product = 2 * 2048**3 / _seconds(lambda: square @ square)
    convolution = 2 * maps.numel() * 64 * 27 / _seconds(lambda: F.conv3d(maps, kernel, padding=1))
    return max(product, convolution) / 1e12


def _seconds(work: Callable[[], object]) -> float:
    """The shortest of five times."""
    times = []
    for _ in range(6):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def show_roofline(peak: Peak, steps: Sequence[tuple[str, str, float, float, float]]) -> None:
    """Print a line a step; ``steps``: (name, precision, milliseconds, GFLOP, GB)."""
    bf16 = f", {peak.bfloat16:.2f} bf16" if peak.bfloat16 else ""
    print(f"\npeak: {peak.float32:.2f} TFLOP/s float32{bf16}, {peak.memory:.0f} GB/s of memory")
    print(f"{'roofline':46} {'GFLOP':>8} {'GB':>7} {'ms':>9} {'of peak':>8}   bound by operations ms, by bytes ms")
    for what, precision, milliseconds, gflop, gigabytes in steps:
        operations, moved = peak.bound_ms(precision, gflop, gigabytes)
        share = operations / milliseconds
        print(
            f"{what:46} {gflop:8.0f} {gigabytes:7.1f} {milliseconds:9.0f} {share:8.0%}   {operations:.0f}, {moved:.0f}"
        )


def main() -> None:
    """Print the machine's peaks."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    show_roofline(measure_peak(), [])


if __name__ == "__main__":
    main()
