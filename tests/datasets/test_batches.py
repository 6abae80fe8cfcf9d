"""Which samples make a batch, and which rank gets them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from datasets.loader import Loader, batch_sizes
from tests.conftest import ROOT
from utils.errors import UserError
from utils.process_group import ProcessGroup


@pytest.mark.parametrize(
    ("samples", "batch_size", "ranks", "expected"),
    [
        (10, 4, 1, [4, 4, 2]),
        (9, 4, 1, [4, 4, 1]),
        (8, 4, 2, [4, 4]),
        (11, 4, 2, [4, 4, 3]),
        (9, 4, 2, [4, 3, 2]),  # the last batch takes one from the one before, so that each rank has a sample
        (17, 8, 4, [8, 5, 4]),
        (3, 4, 3, [3]),
    ],
)
def test_sizes(samples: int, batch_size: int, ranks: int, expected: list[int]) -> None:
    assert batch_sizes(samples, batch_size, ranks) == expected


@pytest.mark.parametrize(("samples", "batch_size", "ranks"), [(8, 1, 2), (3, 2, 2), (9, 4, 4)])
def test_a_rank_without_a_sample_is_refused(samples: int, batch_size: int, ranks: int) -> None:
    with pytest.raises(UserError, match=f"--b {batch_size}.*for {ranks} processes; give --b {2 * ranks}"):
        batch_sizes(samples, batch_size, ranks)


@pytest.mark.parametrize(
    ("last", "lent"),
    [(4, 2), (9, 0), (10, 1), (54, 0)],  # 10 are dealt 3, 3, 3, 1; 11 are dealt 3, 3, 3, 2
)
def test_each_gpu_gets_the_samples_that_it_needs(last: int, lent: int) -> None:
    """As DataParallel deals a batch to four; of 78,468 images in batches of 64 the last has 4."""
    *_, before, final = sizes = batch_sizes(64 * 3 + last, 64, 1, min_samples=2, gpus=4)
    assert (before, final, sum(sizes)) == (64 - lent, last + lent, 64 * 3 + last)
    assert min(map(len, torch.zeros(final).chunk(4))) >= 2
    assert batch_sizes(64 * 3 + last, 64, 1, gpus=4)[-1] == last, "other methods need one"


@pytest.mark.parametrize(("batch_size", "gpus", "last"), [(16, 4, 3), (12, 4, 4), (32, 8, 3), (32, 8, 7), (64, 8, 3)])
def test_what_the_last_batch_takes_leaves_enough_to_the_one_before(batch_size: int, gpus: int, last: int) -> None:
    sizes = batch_sizes(2 * batch_size + last, batch_size, 1, min_samples=2, gpus=gpus)
    assert sum(sizes) == 2 * batch_size + last
    for size in sizes:
        assert min(map(len, torch.zeros(size).chunk(gpus))) >= 2


def test_each_rank_gets_the_samples_that_it_needs() -> None:
    assert batch_sizes(9, 4, 1, min_samples=2) == [4, 3, 2]
    assert batch_sizes(17, 8, 2, min_samples=2) == [8, 5, 4]
    with pytest.raises(UserError, match="the smallest batch has only 3 for 2 processes that need 2 each; give --b 8"):
        batch_sizes(9, 3, 2, min_samples=2)


def test_where_there_are_too_few_samples_no_other_batch_size_is_named() -> None:
    """A --b of 4 would be refused, too: there is 1 sample."""
    for samples, batch_size, ranks, needed in ((1, 1, 1, 2), (1, 4, 2, 1), (3, 8, 2, 2)):
        with pytest.raises(UserError, match=f"^{samples} samples? for {ranks} process.*; give more data") as error:
            batch_sizes(samples, batch_size, ranks, min_samples=needed)
        assert "--b" not in str(error.value)


class Numbers:
    """Samples that say which they are."""

    def __len__(self) -> int:
        return 9

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        return {"gt1": torch.tensor(key).reshape(2, 1)}


@pytest.mark.parametrize("epoch", [0, 1])
def test_ranks_together_see_what_one_process_sees(epoch: int) -> None:
    def batches(ranks: ProcessGroup, first: int = 0) -> list[list[int]]:
        loader = Loader(Numbers(), 4, 0, 0, torch.device("cpu"))
        loader._batches.ranks, loader._batches.sizes = ranks, batch_sizes(9, 4, ranks.size)
        return [[index for _, index in batch] for batch in _keys(loader, epoch, first)]

    alone = [index for batch in batches(ProcessGroup()) for index in batch]
    assert sorted(alone) == list(range(9))
    parts = [batches(ProcessGroup(rank, 2)) for rank in range(2)]
    assert [[len(a), len(b)] for a, b in zip(*parts, strict=True)] == [[2, 2], [2, 1], [1, 1]]
    assert [index for pair in zip(*parts, strict=True) for batch in pair for index in batch] == alone
    assert batches(ProcessGroup(1, 2), first=2) == parts[1][2:]


def _keys(loader: Loader, epoch: int, first: int) -> list[list[tuple[int, int]]]:
    loader._batches.epoch, loader._batches.first = epoch, first
    return list(loader._batches)


def test_a_process_ends_though_its_workers_ignore_signals_and_its_loader_is_never_freed() -> None:
    program = (
        "import torch; from datasets.loader import Loader; from datasets.workers import kill_workers_at_exit\n"
        "from tests.datasets.test_batches import Numbers; kill_workers_at_exit()\n"
        "loader = Loader(Numbers(), 2, 0, 1, torch.device('cpu'))\n"
        "batches = loader.epoch(0); next(batches); print('first', flush=True)\n"
        "import builtins; builtins.kept = loader, batches\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=120, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "first\n"), done.stderr


def test_a_worker_says_nothing_of_a_batch_that_the_run_does_not_take() -> None:
    """As where a second signal stops the run amid the handing over."""
    program = """
import multiprocessing.connection, time, torch
from datasets.loader import Loader
from tests.datasets.test_batches import Numbers

def stop(*_): raise KeyboardInterrupt

batches = Loader(Numbers(), 2, 0, 1, torch.device("cpu")).epoch(0)
next(batches)
multiprocessing.connection.answer_challenge = stop
try:
    next(batches)
except KeyboardInterrupt:
    time.sleep(0.5)  # for the worker to say something
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=120, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")
