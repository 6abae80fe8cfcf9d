"""A run that was stopped in whatever way and resumed gives, bit for bit, what one that never stopped gives."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import main_command, rows, run_main, write_pairs
from tests.inprocess import Started
from tests.processes import alive, children, held, largest_file, logged, wait_for, wait_until
from training.checkpoint import Position

EPOCHS, STEPS = 2, 15  # of a narrow network: so many that a run is not through before a test has caught it
FINAL = f"pcrl_luna_pretask_1.0_{EPOCHS}.pt"
OPTIONS = f"--b 2 --epochs {EPOCHS} --ratio 1.0 --workers 1 --log_every 1 --moco_k 64".split()


def start(pairs: Path, output: Path, *more: object) -> Started:
    """A run that saves after every step, unless ``more`` says otherwise."""
    argv = main_command("--data", pairs, "--output", output, *OPTIONS, "--save_minutes", 0, *more)[1:]
    return Started(argv, Path.cwd(), output.with_suffix(".log"))


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    """Nested containers of tensors and numbers are the same, bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def assert_times(output: Path) -> None:
    """The start is the first one's, each resumption is listed, in the checkpoint and in run.json."""
    run = torch.load(output / FINAL, weights_only=True)["run"]
    record = json.loads((output / "run.json").read_text())
    assert {key: record[key] for key in ("started", "resumed")} == {key: run[key] for key in ("started", "resumed")}
    assert len(run["resumed"]) == 1
    assert run["started"] <= run["resumed"][0]
    assert run["shape"] == [16, 16, 16]
    assert run["recipes"] == [{"scans": 10}]
    assert (run["list"], run["precision"]) == ("none", "float32")


def assert_same_run(output: Path, reference: Path) -> None:
    ours, expected = (torch.load(folder / FINAL, weights_only=True) for folder in (output, reference))
    for part in ("model", "model_ema", "contrast", "optimizer", "epoch", "step", "torch_rng"):
        assert_equal(ours[part], expected[part], part)
    timings = ("images_per_s", "data_wait", "memory_gb")
    ours_rows, expected_rows = (
        [{k: v for k, v in row.items() if k not in timings} for row in rows(folder)] for folder in (output, reference)
    )
    assert ours_rows == expected_rows


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), scans=10, pairs=2 * STEPS // 10)


@pytest.fixture(scope="module")
def reference(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that never stopped."""
    output = tmp_path_factory.mktemp("reference") / "out"
    run = run_main("--data", pairs, "--output", output, *OPTIONS)
    assert run.returncode == 0, run.stderr
    return output


@pytest.fixture(scope="module")
def stopped(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves that a signal stopped amid an epoch."""
    output = tmp_path_factory.mktemp("stopped") / "out"
    process = start(pairs, output, "--save_minutes", 60)
    wait_for(lambda: logged(output) >= 2, process)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM, text
    assert "SIGTERM: stopping after this step, then saving; again to stop without saving\n" in text
    assert "--resume auto" in text
    assert "stopped by SIGTERM" in text
    assert "Traceback" not in text
    return output


def test_killed_between_and_inside_saves(pairs: Path, reference: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = start(pairs, output, "--resume", "auto")  # before the first save
    wait_for(lambda: (output / "run.json").exists(), process)
    process.kill()
    process.wait()
    for seen in (2, 4):  # inside the write of a checkpoint: its temporary file is there
        process = start(pairs, output, "--resume", "auto")
        wait_for(lambda seen=seen: logged(output) >= seen and any(output.glob(".last.pt.*")), process)  # type: ignore[misc]
        workers = children(process.pid)
        assert workers
        process.kill()
        process.wait()
        wait_until(lambda workers=workers: not any(map(alive, workers)), "a worker outlives its run")  # type: ignore[misc]
        for name in ("last.pt", "previous.pt"):
            if (output / name).exists():
                torch.load(output / name, weights_only=True)
    run = run_main("--data", pairs, "--output", output, *OPTIONS, "--resume", "auto")
    assert run.returncode == 0, run.stderr
    assert "going on at " in run.stdout
    assert_same_run(output, reference)
    assert not list(output.rglob(".*.tmp")), "what a killed run left is swept"
    record = (output / "run.json").read_bytes()
    again = run_main("--data", pairs, "--output", output, *OPTIONS, "--resume", "auto")
    assert again.returncode == 0, again.stderr
    assert f"the run is complete: {EPOCHS} of {EPOCHS} epochs; raise --epochs to continue" in again.stdout
    assert (output / "run.json").read_bytes() == record, "it tells of what was trained"


def test_stopped_by_a_signal(pairs: Path, reference: Path, stopped: Path, tmp_path: Path) -> None:
    output = Path(shutil.copytree(stopped, tmp_path / "out"))
    stopped_at = torch.load(output / "last.pt", weights_only=True)
    assert 2 <= STEPS * stopped_at["epoch"] + stopped_at["step"] < STEPS * EPOCHS
    run = run_main("--data", pairs, "--output", output, *OPTIONS, "--resume", output / "last.pt")
    assert run.returncode == 0, run.stderr
    assert_same_run(output, reference)
    assert_times(output)


def test_a_worker_that_is_killed_ends_the_run_with_one_line_and_nothing_lost(
    pairs: Path, reference: Path, tmp_path: Path
) -> None:
    """As a machine does that is short of memory."""
    output = tmp_path / "out"
    process = start(pairs, output, "--save_minutes", 60)
    wait_for(lambda: logged(output) >= 2, process)
    with held([process.pid]):
        os.kill(children(process.pid)[0], signal.SIGKILL)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 2, text
    assert "Traceback" not in text
    *_, saved, error = text.splitlines()
    assert saved == f"saved {output}; go on with --resume auto"
    assert error.startswith("error: a process that loads data could not hand over a batch (")
    assert error.endswith("docs/TROUBLESHOOTING.md")
    run = run_main("--data", pairs, "--output", output, *OPTIONS, "--resume", "auto")
    assert run.returncode == 0, run.stderr
    assert_same_run(output, reference)


@pytest.mark.parametrize("saved", [False, True])
def test_a_second_signal_stops_at_once_and_says_what_there_is(
    saved: bool, pairs: Path, stopped: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    if saved:
        shutil.copytree(stopped, output)
    before = logged(output)
    process = start(pairs, output, "--save_minutes", 60, "--resume", "auto")
    wait_for(lambda: logged(output) > before, process)
    with held([process.pid]):  # so that the step does not end between the two
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=300)
    first, second = (signal.SIGINT, signal.SIGTERM)[:: 1 if "SIGINT: " in text else -1]  # Python may turn them round
    assert process.returncode == 128 + second, text
    assert f"{first.name}: stopping after this step, then saving; again to stop without saving\n" in text
    if saved:
        position = torch.load(output / "last.pt", weights_only=True)
        where = Position(position["epoch"], position["step"]).next_step(EPOCHS, STEPS)
        assert f"going on at {where}\n" in text
        assert f"stopped without saving; --resume auto goes on at {where}\n" in text
    else:
        assert f"--resume auto: {output} holds no run; starting anew\n" in text
        assert "stopped without saving; nothing of this run has been saved yet\n" in text
        assert not (output / "last.pt").exists()
    assert text.endswith(f"stopped by {second.name}\n")
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("position", "words"),
    [
        (Position(), "epoch 1/3, step 1/4"),
        (Position(1, 2), "epoch 2/3, step 3/4"),
        (Position(1, 4), "the end of epoch 2/3"),
        (Position(3, 0), "the end of epoch 3/3"),
    ],
)
def test_a_position_is_said_as_the_progress_line_counts(position: Position, words: str) -> None:
    assert position.next_step(epochs=3, steps=4) == words


def test_broken_newest_falls_back_to_the_one_before(pairs: Path, reference: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = start(pairs, output)
    wait_for(lambda: logged(output) >= 4, process)
    with held([process.pid]):
        second = run_main("--data", pairs, "--output", output, *OPTIONS, "--resume", "auto")
        process.kill()
    process.wait()
    assert second.returncode == 2
    assert "in use by process" in second.stderr
    content = (output / "last.pt").read_bytes()
    (output / "last.pt").write_bytes(content[: len(content) // 2])
    unasked = run_main("--data", pairs, "--output", output, *OPTIONS)
    assert unasked.returncode == 2
    assert "--resume auto continues it" in unasked.stderr
    other = run_main("--data", pairs, "--output", output, *OPTIONS, "--resume", "auto", "--seed", 5)
    assert other.returncode == 2
    assert "that run had --seed 0, not 5" in other.stderr
    run = run_main("--data", pairs, "--output", output, *OPTIONS, "--resume", "auto")
    assert run.returncode == 0, run.stderr
    assert "using the previous checkpoint, previous.pt" in run.stderr
    assert_same_run(output, reference)


def test_full_disk_keeps_the_former_checkpoint(pairs: Path, stopped: Path, tmp_path: Path) -> None:
    output = Path(shutil.copytree(stopped, tmp_path / "out"))
    former = (output / "last.pt").read_bytes()
    with largest_file(2**20):  # a checkpoint has more
        run = run_main("--data", pairs, "--output", output, *OPTIONS, "--resume", "auto")
    assert run.returncode == 2, run.stdout + run.stderr
    assert f"no checkpoint could be written to {output} (File too large)" in run.stderr
    assert "training continues" in run.stderr
    assert "make room and resume" in run.stderr
    assert "Traceback" not in run.stderr
    assert (output / "last.pt").read_bytes() == former
    assert rows(output)[-1]["step"] == STEPS * EPOCHS, "it trained to the end"
    assert not list(output.rglob(".*.tmp"))
