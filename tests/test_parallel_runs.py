"""Several processes that train together, as a user starts them: what they compute, and how they end.

One run of each launcher is of processes that are started anew; launchers and ranks of the others are forks
(tests/forked.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.run

from options.command_line import parse_options
from phases.pretask import build_loader, build_method, build_student, view_shape
from tests.conftest import ROOT, rows, write_pairs
from tests.inprocess import Started
from tests.processes import alive, children, held, logged, pending, wait_for, wait_until
from training.devices import Devices
from training.distributed import LAUNCHER, ranks_of_environment
from training.schedule import build_optimizer
from utils.process_group import SINGLE, ProcessGroup
from utils.seeding import generator

ENDS_WITHIN_S = 60  # 5 seconds of grace, or 30 of torchrun, and a loaded machine
# The two dashes end torchrun's own flags: else it takes --n and --d for abbreviations of those, and refuses them.
TORCHRUN = (torch.distributed.run.__file__, "--standalone", "--nproc_per_node", "2", "--", str(ROOT / "main.py"))
DDP = (str(ROOT / "main.py"), "--parallel", "ddp", "--processes", "2")
COMMON = ("--b", 3, "--ratio", "1.0", "--workers", 0, "--log_every", 1, "--gpus", "", "--narrow", 8, "--image_every", 0)


def start(folder: Path, launcher: tuple[str, ...], *argv: object) -> Started:
    """What it prints goes to ``stdout`` and ``stderr`` in ``folder``."""
    return Started([*launcher, *map(str, argv)], folder, folder / "stdout", folder / "stderr")


def finish(folder: Path, launcher: tuple[str, ...], *argv: object) -> subprocess.CompletedProcess[str]:
    process = start(folder, launcher, *argv)
    status, said = process.wait(600), process.communicate()[0]
    return subprocess.CompletedProcess(argv, status, said, (folder / "stderr").read_text())


def finish_anew(launcher: tuple[str, ...], *argv: object) -> subprocess.CompletedProcess[str]:
    """As :func:`finish`, with nothing forked."""
    first = ("-m", "torch.distributed.run", *launcher[1:]) if launcher is TORCHRUN else launcher
    command, own = [sys.executable, *first, *map(str, argv)], os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=own)


def ranks_of(launcher: Started) -> list[int]:
    """The process ids of a launcher's ranks, in rank order."""
    by_rank = {}
    for child in children(launcher.pid):
        name = Path(f"/proc/{child}/comm").read_text()  # as tests/forked.py sets it
        by_rank |= {int(name.removeprefix("RANK=")): child} if name.startswith("RANK=") else {}
    assert sorted(by_rank) == [0, 1]
    return [by_rank[0], by_rank[1]]


def literal_rows(argv: list[str], ranks: int) -> list[dict[str, float]]:
    """The losses of the same run in one process, which draws as so many ranks do."""
    options, _ = parse_options(argv)
    loader, _ = build_loader(options, Devices(""), SINGLE)
    network, _ = build_student(options, view_shape(loader))
    method = build_method(options, network, len(loader), Devices(""), SINGLE).train()
    optimizer = build_optimizer("sgd", method.trainable(), options.lr, options.momentum, options.weight_decay)
    draws = type(method.draw(2, generator(0)))
    losses = []
    for number, batch in enumerate(loader.epoch(0)):
        shares = ProcessGroup(0, ranks).shares(len(batch["gt1"]))
        output = method(batch, draws.sample(shares, generator(options.seed, "step", number)))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        method.commit(output)
        losses.append({"loss": output.loss.item(), **{name: value.item() for name, value in output.terms.items()}})
    return losses


@pytest.mark.parametrize("launcher", [TORCHRUN, DDP], ids=["torchrun", "ddp"])
def test_in_3d_the_losses_are_those_of_one_process(launcher: tuple[str, ...], pairs: Path, tmp_path: Path) -> None:
    """Two batches of three samples, two on one rank and one on the other."""
    argv = ["--data", pairs, *COMMON, "--epochs", 1, "--norm", "gn", "--output", tmp_path / "out"]
    run = finish_anew(launcher, *argv)
    assert run.returncode == 0, run.stderr
    assert "Warning" not in run.stderr
    assert run.stdout.count("device: CPU") == 1, "one rank speaks"
    assert run.stdout.count("saved ") == 1
    expected = literal_rows([str(word) for word in argv], ranks=2)
    actual = rows(tmp_path / "out")
    assert len(actual) == len(expected) == 2
    for ours, theirs in zip(actual, expected, strict=True):
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs, rel=1e-5)
    assert '"world_size": 2' in (tmp_path / "out" / "run.json").read_text()
    assert '"backend": "gloo"' in (tmp_path / "out" / "run.json").read_text()


def test_torchrun_in_2d(xrays: Path, tmp_path: Path) -> None:
    own = "--n chest --size 64 --amp native --b 2 --epochs 1"
    run = finish(tmp_path, TORCHRUN, "--data", xrays, *COMMON[2:], *own.split(), "--output", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert "Warning" not in run.stderr
    assert "bfloat16" in run.stdout
    checkpoint = torch.load(tmp_path / "out" / "pcrl_chest_pretask_1.0_1.pt", weights_only=True)
    assert checkpoint["contrast"]["pointer"] == 2 * 3, "three pushes of the keys of both ranks"
    first, second = checkpoint["rank_buffers"]
    name = "student.unet.encoder.bn1.running_mean"
    assert torch.equal(first[name], checkpoint["model"]["model.encoder.bn1.running_mean"])
    assert not torch.equal(first[name], second[name]), "each rank normalises its own batches"


def test_stopped_by_a_signal_and_resumed_is_as_if_never_stopped(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", scans=5, pairs=6)  # 10 steps: it is not through before it is caught
    argv = ("--data", pairs, *COMMON, "--epochs", 1)
    whole = finish(tmp_path, DDP, *argv, "--output", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr

    output = tmp_path / "out"
    process = start(tmp_path, TORCHRUN, *argv, "--output", output)
    wait_for(lambda: logged(output) >= 1, process)
    ranks = ranks_of(process)
    with held(ranks):  # or they might be through before torchrun has passed the signal on
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: all(pending(rank, signal.SIGTERM) for rank in ranks), process)
    text, errors = process.communicate(timeout=300)[0], (tmp_path / "stderr").read_text()
    assert process.returncode != 0
    assert errors.count("SIGTERM: stopping after this step, then saving\n") == 1, "one rank speaks"
    assert "saved" in text, errors
    assert "stopped by SIGTERM" in text

    rest = finish(tmp_path, DDP, *argv, "--output", output, "--resume", "auto")
    assert rest.returncode == 0, rest.stderr
    assert rest.stdout.count("going on at ") == 1
    ours, theirs = (
        torch.load(folder / "pcrl_luna_pretask_1.0_1.pt", weights_only=True) for folder in (output, tmp_path / "whole")
    )
    for part in ("model", "model_ema", "contrast"):
        for name, value in theirs[part].items():
            assert torch.equal(ours[part][name], value), f"{part} {name}"
    for mine, yours in zip(ours["rank_buffers"], theirs["rank_buffers"], strict=True):
        assert all(torch.equal(mine[name], value) for name, value in yours.items())
    losses = [[(row["step"], row["loss"]) for row in rows(folder)] for folder in (output, tmp_path / "whole")]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("launcher", "victim"), [(TORCHRUN, 0), (DDP, 1)], ids=["torchrun", "ddp"])
def test_a_killed_rank_ends_the_run_with_the_reason(
    launcher: tuple[str, ...], victim: int, pairs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = start(tmp_path, launcher, "--data", pairs, *COMMON, "--epochs", 500, "--output", output)
    wait_for(lambda: logged(output) >= 1, process)
    ranks = ranks_of(process)
    os.kill(ranks[victim], signal.SIGKILL)
    killed = time.monotonic()
    process.wait()
    errors = (tmp_path / "stderr").read_text()
    assert time.monotonic() - killed < ENDS_WITHIN_S
    assert process.returncode != 0
    assert "SIGKILL" in errors
    if launcher is DDP:
        assert process.returncode == 128 + signal.SIGKILL
        assert f"error: SIGKILL killed rank {victim}" in errors
        assert "Traceback" not in errors
    assert not any(map(alive, ranks))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends children with their parent")
@pytest.mark.parametrize("launcher", [TORCHRUN, DDP], ids=["torchrun", "ddp"])
def test_ranks_end_with_a_killed_launcher(launcher: tuple[str, ...], pairs: Path, tmp_path: Path) -> None:
    process = start(tmp_path, launcher, "--data", pairs, *COMMON, "--epochs", 500, "--output", tmp_path / "out")
    wait_for(lambda: logged(tmp_path / "out") >= 1, process)
    ranks = ranks_of(process)
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(alive, ranks)), "a rank outlives its launcher")


def test_a_rank_ends_without_taking_the_interpreter_down() -> None:
    """Gloo's threads may hold tensors until the end; to free one while Python is taken down aborts the process."""
    program = """
import atexit, sys
from training.distributed import end_now
class Held:
    def __del__(self):
        print("taken down")
held = Held()
atexit.register(print, "called at exit")
print("buffered")
end_now(3)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 3, run.stderr
    assert run.stdout.splitlines() == ["buffered", "called at exit"]


def test_what_one_rank_cannot_read_ends_all_with_one_line(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs")
    broken = data / "subset1" / "1.2.1_img_0.npy"
    np.save(broken, np.zeros((2, 16, 16, 8), np.float32))
    run = finish(tmp_path, DDP, "--data", data, *COMMON, "--epochs", 1, "--output", tmp_path / "out")
    assert run.returncode == 2, run.stderr
    assert run.stderr.count("error: ") == 1
    assert broken.name in run.stderr
    assert "Traceback" not in run.stderr


def test_batches_that_leave_a_rank_empty_are_refused_once(pairs: Path, tmp_path: Path) -> None:
    run = finish(tmp_path, DDP, "--data", pairs, "--b", 1, "--ratio", 1, "--output", tmp_path / "out", "--gpus", "")
    assert run.returncode == 2, run.stderr
    assert run.stderr.count("error: ") == 1
    assert "give --b 4 or more" in run.stderr
    assert not (tmp_path / "out").exists()


def test_a_process_alone_is_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", LAUNCHER):
        monkeypatch.delenv(name, raising=False)
    assert ranks_of_environment() == SINGLE
