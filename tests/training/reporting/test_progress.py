"""The progress line: right in a terminal of any width, plain in a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from training.reporting import progress
from training.reporting.progress import ProgressState, Throughput, fitted, log_line, rate

PROGRAM = """
import time
from training.reporting import progress
progress.PLAIN_INTERVAL_S = 0
line = progress.Progress()
values = {"loss": 7.3123, "contrast": 7.2561, "reconstruction": 0.055761}
for step in range(1, 6):
    line.fetched()
    time.sleep(0.15)  # more often, tqdm would not draw
    line.step(progress.ProgressState(1, 240, step, 880, values, 6.9e-4, 512.3, 5.31, 3926 - step))
line.epoch_end()
line.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
@pytest.mark.parametrize("columns", [80, 100, 140])
def test_in_a_terminal_it_is_one_line_that_fits(columns: int) -> None:
    import fcntl
    import os
    import pty
    import struct
    import termios

    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24 * (columns > 80), columns, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=its, stderr=its)
    os.close(its)
    written = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        written += part
    assert process.wait() == 0, written
    os.close(ours)
    frames = [frame for frame in written.decode().replace("\x1b[A", "").split("\r") if frame.strip()]
    assert all(len(frame.strip("\n")) <= columns for frame in frames)
    assert "\n" not in written.decode().strip()
    assert any(frame.startswith("first step under way") for frame in frames)
    last = next(frame for frame in frames if "5/880" in frame)
    assert (
        last.rstrip()
        == {
            80: "1/240 5/880 loss 7.31 contr 7.26 recon 0.0558 lr 6.9e-4 512/s 5.3 GB 1:05:21",
            100: "epoch 1/240 5/880 loss 7.31 contr 7.26 recon 0.0558 lr 6.9e-4 512 images/s 5.3 GB 1:05:21 left",
            140: "epoch 1/240 [          ] 5/880 loss 7.31 contrast 7.26 reconstruction 0.0558 lr 6.9e-4 512 images/s "
            "5.3 GB 1:05:21 left",
        }[columns].rstrip()
    )


def test_in_a_file_lines_are_plain(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=log, stderr=log, check=True)
    text = (tmp_path / "log").read_bytes()
    assert all(byte in b"\n" or 32 <= byte < 127 for byte in text)
    lines = text.decode().splitlines()
    assert len(lines) == 5
    assert lines[0] == (
        "epoch 1/240, step 1/880: loss 7.31, contrast 7.26, reconstruction 0.0558, 512 images/s, 1:05:25 left"
    )


def test_the_last_step_of_an_epoch_leaves_the_word_to_the_epoch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", -1)
    line = progress.Progress()
    for step in range(1, 4):
        line.step(ProgressState(6, 6, step, 3, {"loss": 7.0}, 1e-3, 10.0, 0.0, 3.0 - step))
    line.close()
    told = capsys.readouterr().out.splitlines()
    assert [text.partition(":")[0] for text in told] == ["epoch 6/6, step 1/3", "epoch 6/6, step 2/3"]


def test_a_line_of_a_log_is_cut_to_100_columns() -> None:
    values = {"loss": -1.234e-5, "contrast": -1.234e-5, "reconstruction": -1.234e-5, "more": 7.1, "others": 7.1}
    line = log_line("1200/1200, step 99999/99999", values, 1234.5, 1e6)
    assert len(line) <= 100
    assert line.endswith("left")
    narrow = {"loss": 6.71, "contrast": 6.64, "reconstruction": 0.0695}
    line = "epoch 1/4: loss 6.71, contrast 6.64, reconstruction 0.0695, 0:00:59 left"
    assert log_line("1/4", narrow, 0.3021, 59, columns=80) == line
    many = {"loss": -1.23, "restoration": 0.123, "deep": 0.123, "comparison": -0.912, "local": -0.812}
    line = "epoch 12/240: loss -1.23, restoration 0.123, deep 0.123, comparison -0.912, 10:05:21 left"
    assert log_line("12/240", many, 512.3, 36321) == line
    assert log_line("2/2", {"loss": 7.3123}, 512.3, None) == "epoch 2/2: loss 7.31, 512 images/s"


@given(
    columns=st.integers(1, 200),
    epochs=st.integers(1, 10_000),
    steps=st.integers(1, 100_000),
    loss=st.floats(),
    left=st.floats(0, 1e7),
)
def test_it_fits_whatever_its_numbers(columns: int, epochs: int, steps: int, loss: float, left: float) -> None:
    now = ProgressState(epochs, epochs, steps, steps, {"loss": loss, "contrast": loss}, 1e-3, 1234.5, 123.4, left)
    line = fitted(now, columns)
    assert len(line) < columns
    assert now.left in line or columns < 60


def test_a_learning_rate_has_two_digits() -> None:
    assert [rate(lr) for lr in (1e-3, 6.91e-4, 0.1, 0)] == ["1.0e-3", "6.9e-4", "1.0e-1", "0.0e0"]


def test_the_pace_forgets_the_first_step_and_slowly_the_others() -> None:
    pace = Throughput()
    pace.add(16, 60.0)
    assert pace.seconds(10) == 600
    pace.add(16, 2.0)
    assert (pace.seconds(10), pace.images_per_s()) == (20, 8)
    pace.add(16, 4.0)
    assert pace.seconds(1) == 3
    for _ in range(100):
        pace.add(32, 1.0)
    assert pace.images_per_s() == pytest.approx(32, rel=1e-2)
