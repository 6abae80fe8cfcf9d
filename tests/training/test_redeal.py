"""``--resume`` with another number of processes: the same state and samples, each batch dealt anew."""

from __future__ import annotations

import json
import os
import resource
import socket
from pathlib import Path

import pytest
import torch

from datasets.loader import Loader
from methods.buffers import restore_buffers
from tests.conftest import main_command, rows, write_pairs
from tests.inprocess import CONTEXT, _run
from training.checkpoint import Position
from training.redeal import deal_anew
from utils.errors import UserError
from utils.process_group import ProcessGroup
from utils.seeding import generator

# What several processes compute as one does: no batch normalisation, no mixup.
FLAGS = ("--b", 2, "--epochs", 2, "--ratio", 1, "--workers", 0, "--log_every", 1, "--gpus", "", "--norm", "gn")
FLAGS += ("--without", "mixup", "--moco_k", 32, "--save_minutes", 0, "--resume", "auto", "--val_every", 0)
FLAGS += ("--image_every", 0)
FINAL = "pcrl_luna_pretask_1.0_2.pt"


def run(folder: Path, processes: int, *argv: object) -> tuple[int, str]:
    """main.py in so many processes, connected as by torchrun -> the first one's exit status, and what all say."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(processes):
        there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
        there |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(processes)}
        logs = (str(folder / f"log{rank}"),) * 2
        largest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        work = (main_command(*argv)[1:], str(folder), logs, os.environ | (there if processes > 1 else {}), largest)
        ranks.append(CONTEXT.Process(target=_run, args=work))
        ranks[-1].start()
    for process in ranks:
        process.join(300)
    return ranks[0].exitcode, "".join((folder / f"log{rank}").read_text() for rank in range(processes))


def third_batch(pairs: Path) -> Path:
    """A file whose sample is in the last of the three batches of the first epoch; the first one is looked at early."""
    order = generator(0, "order", 0).permutation(6)
    return sorted(pairs.rglob("*.npy"))[max(order[4:])]


def distance(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Of all values, relative to their size."""
    flat = [torch.cat([one[name].double().flatten() for name in expected]) for one in (state, expected)]
    return ((flat[0] - flat[1]).norm() / flat[1].norm()).item()


@pytest.fixture(scope="module")
def whole(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process that never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    status, said = run(folder, 1, "--data", pairs, "--output", folder / "out", *FLAGS)
    assert status == 0, said
    return folder / "out"


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_it_goes_on_within_an_epoch(before: int, after: int, whole: Path, tmp_path: Path) -> None:
    pairs, output = write_pairs(tmp_path / "pairs"), tmp_path / "out"
    argv = ("--data", pairs, "--output", output, *FLAGS)
    broken = third_batch(pairs)
    kept = broken.read_bytes()
    broken.write_bytes(b"")  # ends the run in its third step
    status, said = run(tmp_path, before, *argv)
    assert (status, broken.name in said) == (2, True), said
    left = torch.load(output / "last.pt", weights_only=True)
    assert (left["epoch"], left["step"], left["world_size"]) == (0, 2, before)

    broken.write_bytes(kept)
    status, said = run(tmp_path, after, *argv)
    assert status == 0, said
    words = f"warning: that run had {before} process{'es' * (before > 1)}, and goes on with {after}: "
    assert said.count(words) == 1
    assert "going on at epoch 1/2, step 3/3" in said
    ours, expected = (torch.load(folder / FINAL, weights_only=True) for folder in (output, whole))
    assert [row["loss"] for row in rows(output)] == pytest.approx([row["loss"] for row in rows(whole)], rel=1e-4)
    assert ours["contrast"]["pointer"] == expected["contrast"]["pointer"]
    for part in ("model", "model_ema", "contrast"):
        assert distance(ours[part], expected[part]) < 1e-4, part
    change = {"epoch": 0, "step": 2, "from": before, "to": after}
    assert ours["run"]["changes"] == json.loads((output / "run.json").read_text())["changes"] == [change]
    assert "changes" not in expected["run"]


class Numbers:
    """Samples that are their own numbers."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        return {"image": torch.tensor(key[1])}


class Alone(ProcessGroup):
    """A rank of several, that is asked for its own part alone."""

    def gather_objects(self, value):  # type: ignore[no-untyped-def]
        return [value]


def loaders(samples: int, processes: int) -> list[Loader]:
    groups = [Alone(rank, processes) for rank in range(processes)]
    return [Loader(Numbers(samples), 8, 0, 0, torch.device("cpu"), ranks=group) for group in groups]


def taken(group: list[Loader], epoch: int, first: int, end: int | None = None) -> list[int]:
    """The samples that all ranks take of an epoch, from one batch to another; each batch has the size it says."""
    batches = list(zip(*(loader.epoch(epoch, first) for loader in group), strict=True))
    found = [torch.cat([part["image"] for part in batch]).tolist() for batch in batches]
    assert [len(batch) for batch in found] == list(group[0].batch_sizes[first:])
    return [sample for batch in found[: None if end is None else end - first] for sample in batch]


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3), (4, 1), (3, 4)])
@pytest.mark.parametrize("samples", [16, 17, 18, 23])
def test_each_sample_of_the_epoch_is_used_once(before: int, after: int, samples: int) -> None:
    for step in range(4):
        former, now = loaders(samples, before), loaders(samples, after)
        left = samples - sum(former[0].batch_sizes[:step])
        if step == 2 and 0 < left < after:
            words = (
                f"--resume: epoch 6 ends with a batch of {left} .*too few for {after} processes; go on with {before}, "
            )
            with pytest.raises(UserError, match=words):
                deal_anew(now[0], Position(5, step), {"world_size": before})
            continue
        done = taken(former, 5, 0, end=step)
        for loader in now:
            deal_anew(loader, Position(5, step), {"world_size": before})
        assert sorted(done + taken(now, 5, step)) == list(range(samples))
        assert sorted(taken(now, 6, 0)) == list(range(samples)), "the next epoch has the batches of these processes"


def test_a_second_resumption_before_the_last_batch_uses_its_samples_too() -> None:
    """Its checkpoint names the new number of processes, but the epoch's batches are still those of the former one."""
    former, samples = loaders(18, 4), list(range(18))
    done = taken(former, 5, 0, end=2)
    position = Position(5, 2)
    deal_anew(loaders(18, 1)[0], position, {"world_size": 4})
    assert position.used == len(done) != sum(loaders(18, 1)[0].batch_sizes[:2])
    again, there = loaders(18, 1), Position(5, 2)
    deal_anew(again[0], there, {"world_size": 1, "samples_used": position.used})
    assert there == position
    assert sorted(done + taken(again, 5, 2)) == samples


def test_as_many_processes_are_nothing_to_tell(capsys: pytest.CaptureFixture[str]) -> None:
    changes = [{"epoch": 1, "step": 2, "from": 1, "to": 2}]
    found = deal_anew(loaders(9, 2)[0], Position(1, 2), {"world_size": 2, "run": {"changes": changes}})
    assert found == changes
    assert capsys.readouterr().err == ""


def test_a_new_process_begins_with_the_statistics_of_the_first() -> None:
    saved = {"rank_buffers": [{"mean": torch.tensor(1.0)}, {"mean": torch.tensor(2.0)}]}
    for rank, expected in enumerate((1.0, 2.0, 7.0)):
        own = {"mean": torch.tensor(7.0)}  # as the checkpoint's network has it
        restore_buffers(own, ProcessGroup(rank, 3), saved)
        assert own["mean"] == expected
    own = {"mean": torch.tensor(7.0)}
    restore_buffers(own, ProcessGroup(1, 2), {})
    assert own["mean"] == 7.0
