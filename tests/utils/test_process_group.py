"""What ranks tell each other, on real processes and uneven shares, against plain indexing."""

from __future__ import annotations

import time
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist

from tests.spawn import run_ranks
from utils.errors import UserError
from utils.process_group import SINGLE, ProcessGroup

TOTAL = 7
ORDER = [4, 0, 6, 1, 5, 3, 2]
DTYPES = (torch.float64, torch.bfloat16, torch.int64)


def rows(dtype: torch.dtype) -> torch.Tensor:
    return torch.arange(TOTAL * 6).reshape(TOTAL, 2, 3).to(dtype)


def work_longer(rank: int) -> int:
    time.sleep(8 * rank)
    return rank


def wait_for_each_other(ranks: ProcessGroup) -> list[int]:
    """With a limit of 5 seconds on all other calls, in a run 10 minutes."""
    gloo = dist.group.WORLD._get_backend(torch.device("cpu"))
    dist.barrier()
    gloo._set_default_timeout(timedelta(seconds=5))
    found = ranks.gather_when_done(lambda: work_longer(ranks.rank))
    found.append(ranks.first_alone(lambda: work_longer(1) + 6))
    gloo._set_default_timeout(timedelta(minutes=3))
    return found


def test_ranks_wait_for_work_of_unequal_length() -> None:
    assert ProcessGroup().gather_when_done(lambda: 7) == [7]
    assert run_ranks(2, wait_for_each_other) == [[0, 1, 7]] * 2


def fail_on_the_first(ranks: ProcessGroup) -> str:
    with pytest.raises(UserError) as error:
        ranks.first_alone(lambda: fail_on_rank_1(ProcessGroup(1, 2)))
    return str(error.value)


def test_what_is_wrong_on_the_first_rank_is_said_on_all() -> None:
    assert run_ranks(2, fail_on_the_first) == ["rank 1 fails"] * 2


def permute_images(ranks: ProcessGroup) -> tuple[bool, bool, int]:
    """Whether images in an order and back are the same, in their memory format; and how often a plan was made."""
    shares, order = ranks.shares(TOTAL), torch.tensor(ORDER)
    inverse = torch.argsort(order)
    images = torch.rand(TOTAL, 3, 4, 5, generator=torch.Generator().manual_seed(0))[shares.own]
    images = images.to(memory_format=torch.channels_last)
    for _ in range(2):
        taken = shares.permute(images, order)
        back = shares.permute(taken, inverse)
    kept = all(each.is_contiguous(memory_format=torch.channels_last) for each in (taken, back))
    return torch.equal(back, images), kept, len(shares._plans)


def test_images_keep_their_memory_format_on_the_way() -> None:
    assert run_ranks(2, permute_images) == [(True, True, 2)] * 2


def exchange(ranks: ProcessGroup) -> dict:
    shares = ranks.shares(TOTAL)
    order = torch.tensor(ORDER)
    result: dict = {"objects": ranks.gather_objects(f"rank {ranks.rank}"), "first": ranks.broadcast(ranks.rank)}
    for dtype in DTYPES:
        own = rows(dtype)[shares.own]
        taken = shares.permute(own, order)
        result[dtype] = (shares.gather(own), taken, shares.permute(taken, torch.argsort(order)))
    values = rows(torch.float64)[shares.own].mean(dim=(0, 2))
    result["mean"] = shares.mean(values)
    try:
        with ranks.raise_on_all():
            fail_on_rank_1(ranks)
    except UserError as error:
        result["error"] = str(error)
    with ranks.raise_on_all():
        pass
    return result


def fail_on_rank_1(ranks: ProcessGroup) -> None:
    if ranks.rank == 1:
        raise UserError("rank 1 fails")


@pytest.fixture(scope="module")
def results() -> list[dict]:
    return run_ranks(3, exchange)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_arrive_where_plain_indexing_puts_them(results: list[dict], dtype: torch.dtype) -> None:
    expected = rows(dtype)
    for part, result in zip(np.array_split(np.arange(TOTAL), 3), results, strict=True):
        gathered, taken, back = result[dtype]
        assert torch.equal(gathered, expected)
        assert torch.equal(taken, expected[ORDER][part])
        assert torch.equal(back, expected[part])


def test_means_weigh_uneven_shares(results: list[dict]) -> None:
    for result in results:
        torch.testing.assert_close(result["mean"], rows(torch.float64).mean(dim=(0, 2)), rtol=1e-15, atol=0)
        assert torch.equal(result["mean"], results[0]["mean"])


def test_objects_are_told_in_rank_order(results: list[dict]) -> None:
    for result in results:
        assert result["objects"] == ["rank 0", "rank 1", "rank 2"]
        assert result["first"] == 0
        assert result["error"] == "rank 1 fails"


@pytest.mark.parametrize(("total", "size"), [(7, 3), (8, 4), (3, 3), (64, 1), (17, 4)])
def test_shares_are_numpys_array_split(total: int, size: int) -> None:
    shares = [ProcessGroup(rank, size).shares(total) for rank in range(size)]
    parts = np.array_split(np.arange(total), size)
    assert [list(range(total)[share.own]) for share in shares] == [part.tolist() for part in parts]
    assert sum(share.weight for share in shares) == pytest.approx(size)


def test_one_process_alone_needs_no_process_group() -> None:
    own = rows(torch.float32)
    shares = SINGLE.shares(TOTAL)
    assert torch.equal(shares.gather(own), own)
    assert torch.equal(shares.permute(own, torch.tensor(ORDER)), own[ORDER])
    assert torch.equal(shares.mean(own), own)
    assert shares.weight == 1
    assert SINGLE.gather_objects(3) == [3]
