"""Loading beside the step: which share of a step's time the GPU waits for data, by where the views are finished.

X-rays of 1024 x 1024 pixels as PNG and from a store, with views of 224 x 224; pairs of crops of 64 x 64 x 32. The files
are few and in the system's cache: what is measured is decoding and augmentation, not the disk.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.chest_sample import FILES, make_images, make_store
from benchmarks.gpu_step import Way, make_trainer
from datasets.ct.luna import LunaPairs
from datasets.ct.luna import augment_batch as augment_crops
from datasets.loader import Loader, PairDataset
from datasets.xray.chest import ChestPairs
from datasets.xray.chest import augment_batch as augment_xrays
from datasets.xray.files import ALL_IMAGES, find_chest
from methods.base import Batch
from training.loop import Trainer
from utils.cores import available_cores

BATCH = {2: 64, 3: 16}
CROPS = 64
WARM_UP, STEPS = 3, 6  # times the workers, each of which has two batches in stock at first


class Source(NamedTuple):
    """``samples``: of files, augmented or not. ``augment``: the rest, on the device."""

    name: str
    dims: int
    files: Sequence[str]
    samples: Callable[[Sequence[str], bool], PairDataset]
    augment: Callable[[Batch], Batch]


def sources(folder: Path, size: int) -> Iterator[Source]:
    """Of which each is made when it is asked for; ``size``: of a view of an X-ray."""

    def xrays(files: Sequence[str], augmented: bool) -> PairDataset:
        return ChestPairs(files, 0, size=size, augmented=augmented)

    images = make_images(folder / "images")
    pngs = find_chest(images, ALL_IMAGES)[:FILES]
    yield Source(f"2D {size}, PNG", 2, pngs, xrays, augment_xrays)
    (folder / "list.txt").write_text("\n".join(Path(png).name for png in pngs))
    yield Source(f"2D {size}, store", 2, find_chest(make_store(images, folder), ALL_IMAGES), xrays, augment_xrays)
    rng = np.random.default_rng(0)
    pairs = [str(folder / f"scan_img_{number}.npy") for number in range(CROPS)]
    for pair in pairs:
        np.save(pair, rng.random((2, 64, 64, 32), dtype=np.float32))
    yield Source("3D 64x64x32, pairs", 3, pairs, lambda files, augmented: LunaPairs(files, 0, augmented), augment_crops)


def table(device: torch.device, quick: bool) -> None:
    """Measure and print all; what fails is said."""
    cores = available_cores()
    workers = max(1, cores - 1)
    print(f"\nloading beside the step: {cores} cores, {workers} workers; waiting: of a step's time")
    print(
        "| data | --augment | ms a step | waiting | samples/s | loading alone, samples/s |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for source in sources(Path(folder), 64 if quick else 224):
            for augment in ("workers", "device"):
                try:
                    row = measure(source, augment == "device", workers, device, quick)
                except Exception as error:  # whatever it is, the others go on
                    row = f"FAILED: {type(error).__name__}: {error}".splitlines()[0]
                print(f"| {source.name} | {augment} | {row} |", flush=True)


def measure(source: Source, on_device: bool, workers: int, device: torch.device, quick: bool) -> str:
    """The rest of a row."""
    size, warm_up, steps = (2, 4, 2) if quick else (BATCH[source.dims], WARM_UP * workers, STEPS * workers)
    files = list(itertools.islice(itertools.cycle(source.files), size * (warm_up + steps)))
    trainer = make_trainer(source.dims, device, Way(graph=size, narrow=16 if quick else 1))
    finish: Callable[[Batch], Batch] = source.augment if on_device else lambda batch: batch
    loader = Loader(source.samples(files, not on_device), size, 0, workers, device, finish=finish)
    with closing(loader):
        beside, waiting = _times(loader, trainer, 0, warm_up, size)
        alone, _ = _times(loader, None, 1, warm_up, size)
    return f"{beside * 1e3:.1f} | {waiting / beside:.0%} | {size / beside:.3g} | {size / alone:.3g}"


def _times(loader: Loader, trainer: Trainer | None, epoch: int, warm_up: int, size: int) -> tuple[float, float]:
    """Seconds of a step after the first ones, and of them those that wait for data; without a trainer: of a batch."""
    unread: list[Callable[[], object]] = []
    waiting, asked = [], time.perf_counter()
    started = asked
    for number, batch in enumerate(loader.epoch(epoch)):
        waiting.append(time.perf_counter() - asked)
        if number == warm_up:
            started = time.perf_counter()
        if trainer:
            unread.append(trainer.launch(batch, number, size))
            while len(unread) > trainer.steps_behind:
                unread.pop(0)()
        asked = time.perf_counter()
    for read in unread:
        read()
    if next(iter(batch.values())).is_cuda:
        torch.cuda.synchronize()
    measured = waiting[warm_up + 1 :]
    return (time.perf_counter() - started) / (len(measured) + 1), float(np.mean(measured))
