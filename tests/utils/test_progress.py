"""A log is never silent for long, and a terminal has one bar."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.inprocess import run_captured
from utils import console
from utils import progress as module
from utils.progress import Steps, progress, waiting

ROOT = Path(__file__).parents[2]


def test_a_log_gets_a_line_now_and_then_also_while_nothing_gets_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LOG_EVERY_S", 0.05)
    with progress(3, "scan") as bar:
        time.sleep(0.5)
        bar.update()
        time.sleep(0.5)
    with waiting("looking for scans"):
        time.sleep(0.5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0 of 3 scans done, 0:00"
    assert any(line.startswith("1 of 3 scans done, 0:01; about 0:02 left") for line in lines)
    assert lines[-1].startswith("looking for scans: 0:0")
    time.sleep(0.2)
    assert capsys.readouterr().out == "", "it ends with its block"


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(1, "scan") as bar:
        bar.update()
    assert capsys.readouterr() == ("", "")


def test_the_time_left_is_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(10, "image", "done", None)
    steps.update(4)
    monkeypatch.setattr(steps, "started", time.monotonic() - 4000)
    assert steps.line() == "4 of 10 images done, 1:06:40; about 1:40:00 left"


def in_a_terminal(code: str) -> str:
    """What a program writes to a terminal of 80 columns."""
    terminal, ours = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=ours, stdout=ours)
    os.close(ours)
    text = b""
    try:
        while chunk := os.read(terminal, 4096):
            text += chunk
    except OSError:  # Linux's way to say that nobody writes any more
        pass
    assert process.wait() == 0, text
    os.close(terminal)
    return text.decode()


def test_a_terminal_has_one_bar_that_goes() -> None:
    text = in_a_terminal(
        "from utils.progress import progress\n"
        "with progress(2, 'scan') as bar:\n    bar.update(2)\nprint('done', flush=True)"
    )
    assert "/2 scans" in text
    assert text.rpartition("\r\n")[0].rpartition("\r")[2] == "done", "nothing of the bar is left before it"


def test_a_bar_moves_while_nothing_gets_done_and_short_work_has_none() -> None:
    code = "import time\nfrom utils import progress as module\nmodule.REDRAWN_S = 0.3\n"
    text = in_a_terminal(code + "with module.progress(2, 'scan'):\n    time.sleep(2)")
    assert len({frame.strip() for frame in text.split("\r") if "0/2 scans" in frame}) > 1, "the time goes on"
    assert in_a_terminal(code + "with module.progress(2, 'scan', delay_s=9) as bar:\n    bar.update(2)") == ""


def test_a_terminal_sees_what_is_waited_for() -> None:
    code = "import time\nfrom utils import progress as module\nmodule.SHORT_S, module.REDRAWN_S = 0.2, 0.3\n"
    text = in_a_terminal(code + "with module.waiting('looking for scans'):\n    time.sleep(2)")
    frames = [frame.strip() for frame in text.split("\r")]
    assert len({frame for frame in frames if frame.startswith("looking for scans: 00:0")}) > 1
    assert frames[-1] == "", "it goes"
    assert in_a_terminal(code + "module.SHORT_S = 9\nwith module.waiting('looking for scans'):\n    pass") == ""


def test_of_several_processes_one_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "LOG_EVERY_S", 0.05)
    monkeypatch.setattr(console, "_muted", True)
    with progress(3, "scan"):
        time.sleep(0.3)
    assert capsys.readouterr().out == ""
    assert (
        in_a_terminal(
            "from utils.console import mute\nfrom utils.progress import progress\nmute()\n"
            "with progress(2, 'scan') as bar:\n    bar.update(2)"
        )
        == ""
    )


OFTEN = """
import sys
from importlib import import_module
from utils import progress
progress.LOG_EVERY_S = 0.001
import_module(f"preprocess.{sys.argv[1]}").main([*sys.argv[2:], "--workers", "1"])
"""


def test_the_commands_tell_how_far_they_are(tmp_path: Path) -> None:
    (tmp_path / "often.py").write_text(OFTEN)
    sample = tmp_path / "sample"

    def told(command: str, *flags: object) -> str:
        done = run_captured([str(tmp_path / "often.py"), command, *map(str, flags)])
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = told("phantoms", "--save", sample, "--scans", 1, "--patients", 1, "--size", 64)
    assert " of 2 patients done, 0:0" in made
    small = ("--input_rows", 32, "--input_cols", 32, "--input_deps", 16)
    pairs = told("luna_pre", "--data", sample / "LUNA16", "--save", tmp_path / "pairs", "--scale", 1, *small)
    assert "0 of 1 scan done, 0:0" in pairs
    assert "0 of 1 scan done, 0:0" in told(
        "nodule_crops", "--data", sample / "LUNA16", "--save", tmp_path / "crops", *small
    )
    assert "0 of 2 images done, 0:0" in told("chest_store", "--data", sample / "Chest14", "--save", tmp_path / "store")
