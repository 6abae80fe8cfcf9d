"""Batches in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from datasets.workers import (
    NotSent,
    allow_open_files,
    child_signals_as_they_were,
    shortage,
    start_worker,
    why_lost,
)
from utils.errors import UserError
from utils.process_group import SINGLE, ProcessGroup
from utils.seeding import generator
from utils.text import counted

Key = tuple[int, int]  # (epoch, index)
Batch = dict[str, Tensor]


class PairDataset(Protocol):
    """Samples by (epoch, index): whichever worker makes one, and whenever, it is the same."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Key) -> Batch: ...


REPLACEMENTS = 20  # other samples tried for one that cannot be made
TOLERATED = 0.01  # part of an epoch's samples; one may always be replaced
REMEDY = "--on_bad_sample skip replaces such a sample by another one"


class _Fetched(NamedTuple):
    """What a worker sends: a sample (None: none could be made), and why others could not be made.

    ``remedy``: where the machine lacks something, what to do. A named tuple, since the loader pins tensors in tuples
    and knows no other record.
    """

    sample: Batch | None
    faults: tuple[str, ...]
    remedy: str = ""


class _Fetcher(Dataset[_Fetched]):
    """Makes samples. A UserError is handed on as a value: an exception comes out of a worker as a traceback."""

    def __init__(self, dataset: PairDataset, seed: int, skip: bool) -> None:
        self.dataset, self.seed, self.skip = dataset, seed, skip

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> _Fetched:
        faults: list[str] = []
        for candidate in self._candidates(key):
            try:
                return _Fetched(self.dataset[candidate], tuple(faults))
            except UserError as error:
                if remedy := shortage(error):  # no fault of the sample: another one in its place would hide it
                    return _Fetched(None, (str(error),), remedy)
                faults.append(str(error))
        return _Fetched(None, tuple(faults))

    def _candidates(self, key: Key) -> Iterator[Key]:
        """The sample itself; if bad samples are skipped, then others, the same ones in whatever worker."""
        yield key
        if self.skip:
            epoch, index = key
            others = generator(self.seed, "replacement", epoch, index).integers(0, len(self), REPLACEMENTS)
            yield from ((epoch, int(other)) for other in others if other != index)


def _collate(fetched: list[_Fetched]) -> _Fetched:
    if short := [one for one in fetched if one.remedy]:
        return short[0]
    faults = tuple(fault for one in fetched for fault in one.faults)
    samples = [one.sample for one in fetched]
    return _Fetched(None if None in samples else default_collate(samples), faults)


def smallest_chunk(samples: int, gpus: int) -> int:
    """The fewest samples that one of the GPUs gets, of those that get any, as DataParallel deals them."""
    chunk = -(-samples // gpus)
    return samples and (samples % chunk or chunk)


def batch_sizes(samples: int, batch_size: int, ranks: int, min_samples: int = 1, gpus: int = 1) -> list[int]:
    """The sizes of an epoch's batches, over all ranks; the last short one is kept.

    If that has fewer than ``min_samples`` for each rank, or for one of the ``gpus`` of each, it takes what it lacks
    from the batch before it. UserError if there are too few samples for that.
    """
    needed = min_samples * ranks
    sizes = [min(batch_size, samples - start) for start in range(0, samples, batch_size)]
    fewest = min(sizes)

    def enough(size: int) -> bool:
        shares = {size // ranks, -(-size // ranks)}
        return min_samples == 1 or all(smallest_chunk(share, gpus) >= min_samples for share in shares)

    if len(sizes) > 1:
        both, least = sum(sizes[-2:]), max(needed, sizes[-1])
        possible = (last for last in range(least, batch_size) if enough(last) and enough(both - last))
        last = next(possible, least)
        sizes[-2:] = [both - last, last]
    if min(sizes) < needed:
        whose = f" that need {min_samples} each" if min_samples > 1 else ""
        if samples < needed:
            raise UserError(
                f"{counted(samples, 'sample')} for {counted(ranks, 'process')}{whose}; give more data, or use "
                "fewer processes"
            )
        raise UserError(
            f"--b {batch_size}: with {samples} samples, the smallest batch has only {fewest} for "
            f"{counted(ranks, 'process')}{whose}; give --b {2 * needed} or more, or use fewer processes"
        )
    return sizes


class _EpochBatches(Sampler[list[Key]]):
    """Batches of keys of one epoch: this rank's part of each."""

    def __init__(self, sizes: Sequence[int], seed: int, ranks: ProcessGroup, shuffled: bool) -> None:
        self.sizes, self.seed, self.ranks, self.shuffled = sizes, seed, ranks, shuffled
        self.epoch = 0
        self.first = 0
        self.begun: dict[int, Sequence[int]] = {}  # sizes of epochs that another number of ranks began

    def __len__(self) -> int:
        return len(self.sizes)

    def of(self, epoch: int) -> Sequence[int]:
        """The sizes of an epoch's batches."""
        return self.begun.get(epoch, self.sizes)

    def __iter__(self) -> Iterator[list[Key]]:
        sizes = self.of(self.epoch)
        samples = sum(sizes)
        order = list(range(samples))
        if self.shuffled:
            order = generator(self.seed, "order", self.epoch).permutation(samples).tolist()
        start = sum(sizes[: self.first])
        for size in sizes[self.first :]:
            batch = order[start : start + size]
            start += size
            yield [(self.epoch, index) for index in batch[self.ranks.shares(size).own]]


class Loader:
    """Batches of a data set, shuffled anew each epoch or in its order, made by ``workers`` processes (0: by this one).

    ``first_sample``: as it comes out of the data set. Batches arrive on ``device`` and go through ``finish`` there.
    ``on_bad_sample``: ``stop`` at a sample that cannot be made, or ``skip`` it: another one takes its place, up to 1 %
    of an epoch, but always one. ``batch_sizes``: of each batch of the epoch under way, over all ``ranks``; each rank
    gets its part of them. ``prefetch``: batches that each worker makes ahead. ``keep_workers``: from one epoch to the
    next. ``min_samples``: of each batch, for each of the ``gpus`` of each rank. ``judges``: its samples judge a
    network: none is replaced.
    """

    def __init__(
        self,
        dataset: PairDataset,
        batch_size: int,
        seed: int,
        workers: int,
        device: torch.device,
        on_bad_sample: str = "stop",
        finish: Callable[[Batch], Batch] = lambda batch: batch,
        ranks: ProcessGroup = SINGLE,
        prefetch: int = 2,
        shuffled: bool = True,
        keep_workers: bool = True,
        min_samples: int = 1,
        gpus: int = 1,
        judges: bool = False,
    ) -> None:
        self._device, self._finish = device, finish
        self.arrived: Callable[[], None] = lambda: None  # called when a batch is there, before it is sent to the device
        self._stream: torch.cuda.Stream | None = None
        self._fetcher = _Fetcher(dataset, seed, on_bad_sample == "skip" and not judges)
        first = self._fetcher[(0, 0)]  # a first look at the data
        self._remedy = f"; {REMEDY}" if shuffled and not judges and on_bad_sample != "skip" else ""
        if first.sample is None:
            raise UserError(first.faults[0] + (f"; {first.remedy}" if first.remedy else self._remedy))
        self.first_sample = first.sample
        self._faults: list[str] = []
        self._replaced = 0
        self.ranks, self.gpus = ranks, gpus
        self._dealt = partial(batch_sizes, len(dataset), batch_size, min_samples=min_samples, gpus=gpus)
        self._needed = min_samples * ranks.size
        self.batch_sizes: Sequence[int] = self._dealt(ranks.size)
        self._batches = _EpochBatches(self.batch_sizes, seed, ranks, shuffled)
        if workers:
            allow_open_files()
        self._loader = DataLoader(
            self._fetcher,
            batch_sampler=self._batches,
            num_workers=workers,
            collate_fn=_collate,
            # A forked worker sees that its run was killed, and ends. One of a fork server (Python 3.14's own choice)
            # is no child of the run: it would wait, with the lock of the folder, for ever.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0 and keep_workers,
            prefetch_factor=prefetch if workers else None,
            worker_init_fn=start_worker,
            generator=torch.Generator(),  # of its own: else each epoch, and each resumption, takes a global draw
        )

    def __len__(self) -> int:
        """Batches per epoch, the last short one counted."""
        return len(self._batches)

    def used(self, steps: int, processes: int, gpus: int) -> int:
        """The samples in the first ``steps`` batches of an epoch that so many processes began, and GPUs of each."""
        return sum(self._dealt(processes, gpus=gpus)[:steps])

    def take_over(self, epoch: int, first: int, used: int, processes: int) -> None:
        """Go on with an epoch of which ``processes`` have had ``first`` batches, ``used`` samples in all.

        Each sample is used once: the last two batches depend on the number of processes and of their GPUs. UserError if
        the last one is too small for the present.
        """
        sizes = list(self._batches.sizes)
        if used == sum(sizes[:first]):
            return
        last = sum(sizes) - used
        if last < self._needed:
            raise UserError(
                f"--resume: epoch {epoch + 1} ends with a batch of {counted(last, 'sample')}, too few for "
                f"{counted(self.ranks.size, 'process')}; go on with {processes}, or from a checkpoint of another epoch"
            )
        self._batches.begun[epoch] = [*sizes[: first - 1], used - sum(sizes[: first - 1]), last]

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from batch ``first`` on; UserError if a sample, or too many, cannot be made.

        ProcessGroup tell each other: what ends one of them ends all, after the same batch.
        """
        self._batches.epoch, self._batches.first = epoch, first
        self.batch_sizes = self._batches.of(epoch)
        self._replaced = 0
        for fetched, remedy in self._fetched():
            impossible = fetched.faults[0] + remedy if fetched.sample is None else ""
            for problem, faults in self.ranks.gather_objects((impossible, fetched.faults)):
                if problem:
                    raise UserError(problem)
                self._faults += faults
                self._replaced += len(faults)
            if self._replaced > max(1, TOLERATED * len(self._fetcher)):
                raise UserError(
                    f"{self._replaced} of {len(self._fetcher)} samples of epoch {epoch + 1} cannot be read, more "
                    f"than {TOLERATED:.0%}; the last: {self._faults[-1]}"
                )
            assert fetched.sample is not None
            self.arrived()
            yield self._finish(self._on_device(fetched.sample))

    def _fetched(self) -> Iterator[tuple[_Fetched, str]]:
        """What the workers send, and what to do about faults; of a worker that was ended or has no room, that."""
        try:
            with child_signals_as_they_were():
                batches = iter(self._loader)
            for fetched in batches:
                if isinstance(fetched, NotSent):
                    lost = fetched.lost
                    break
                yield fetched, f"; {fetched.remedy}" if fetched.remedy else self._remedy
            else:
                return
        except (RuntimeError, OSError, EOFError) as error:
            known = why_lost(error) if self._loader.num_workers else None
            if known is None:
                raise
            lost = known
        yield (
            _Fetched(None, (f"a process that loads data could not hand over a batch ({lost.why})",)),
            f"; {lost.remedy}",
        )

    def _on_device(self, sample: Batch) -> Batch:
        """The batch where it is trained on; to a GPU on a stream of its own, beside the step that computes there."""
        if self._device.type != "cuda":
            return {key: value.to(self._device) for key, value in sample.items()}
        self._stream = self._stream or torch.cuda.Stream(self._device)
        with torch.cuda.stream(self._stream):  # out of pinned memory, in the background
            batch = {key: value.to(self._device, non_blocking=True) for key, value in sample.items()}
        now = torch.cuda.current_stream(self._device)
        now.wait_stream(self._stream)
        for value in batch.values():
            value.record_stream(now)  # its memory is not given away before the step is done with it
        return batch

    def close(self) -> None:
        """End the workers; no epoch can follow."""
        del self._loader

    def take_faults(self) -> list[str]:
        """Why samples of any rank were replaced, since the last call."""
        faults, self._faults = self._faults, []
        return faults
