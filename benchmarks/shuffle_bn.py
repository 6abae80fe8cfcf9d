"""What ShuffleBN costs between processes: exchanging the teacher's features of LUNA pairs, by gloo on this machine.

python -m benchmarks.shuffle_bn
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from models.unet3d import UNet3d
from utils.process_group import ProcessGroup

SHAPE = (64, 64, 32)
REPEATS = 5


def pyramid(samples: int) -> list[torch.Tensor]:
    """Features of so many crops, shallow to deep, and their keys."""
    sizes = [[size // 2**level for size in SHAPE] for level in range(len(UNet3d.feature_channels))]
    channels = UNet3d.feature_channels
    features = [torch.zeros(samples, count, *size) for count, size in zip(channels, sizes, strict=True)]
    return [*features, torch.zeros(samples, 128)]


def work(rank: int, size: int, store: str, samples: int) -> None:
    """One rank: exchange views, then keys and features, as a teacher's call does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{store}", world_size=size, rank=rank)
    shares = ProcessGroup(rank, size).shares(size * samples)
    order = torch.arange(size * samples).reshape(size, samples).T.flatten()  # all but one in `size` samples travel
    view, features = torch.zeros(samples, 1, *SHAPE), pyramid(samples)
    seconds = []
    for _ in range(REPEATS):
        dist.barrier()
        started = time.perf_counter()
        shares.permute(view, order)
        for feature in features:
            shares.permute(feature, torch.argsort(order))
        seconds.append(time.perf_counter() - started)
    if rank == 0:
        megabytes = sum(feature.numel() * feature.element_size() for feature in features) / 1e6
        middle = statistics.median(seconds)
        print(f"{size} processes x {samples} samples ({megabytes:.0f} MB each): {middle:.3f} s a call of the teacher")
    dist.destroy_process_group()


def main() -> None:
    """Print seconds for a few sizes."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, two calls a step")
    for size, samples in ((2, 1), (2, 2), (2, 4), (4, 2)):
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(work, (size, f"{folder}/store", samples), nprocs=size)


if __name__ == "__main__":
    main()
