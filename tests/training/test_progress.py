"""The progress line: right in a terminal of any width, plain in a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROGRAM = """
import time
from training import progress
progress.PLAIN_INTERVAL_S = 0
line = progress.Progress(240, 880)
values = {"loss": 7.3123, "contrast": 7.2561, "reconstruction": 0.055761}
for step in range(1, 6):
    time.sleep(0.15)  # more often, tqdm would not draw
    line.step(0, step, values, "lr 1e-03, 512 img/s, 5.3 GB", 3926 - step)
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
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
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
    last = next(frame for frame in frames if "5/880" in frame)
    assert ("|" in last) == (columns == 140)
    assert "1:05:2" in last
    assert "loss 7.31 contrast 7.26" in last
    if columns > 80:
        assert "reconstruction 0.0558, lr 1e-03, 512 img/s" in last


def test_in_a_file_lines_are_plain(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=log, stderr=log, check=True)
    text = (tmp_path / "log").read_bytes()
    assert all(byte in b"\n" or 32 <= byte < 127 for byte in text)
    lines = text.decode().splitlines()
    assert len(lines) == 5
    assert lines[0] == (
        "epoch 1/240, step 1/880: loss 7.31, contrast 7.26, reconstruction 0.0558, lr 1e-03, 512 img/s, 5.3 GB, "
        "1:05:25 left"
    )
