"""The room that a run needs and the room that there is, in figures; and the time of a step that a dry run tells.

test_patience_runs.py starts a run that needs more than any disk has.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from options import Options
from training.disk import checkpoints, free_bytes, there_already, warn_if_short
from training.dry_run import typical_seconds


def test_what_is_there_and_free(tmp_path: Path) -> None:
    assert there_already(tmp_path / "missing") == 0
    (tmp_path / "last.pt").write_bytes(bytes(1000))
    (tmp_path / "best.pt").hardlink_to(tmp_path / "last.pt")
    (tmp_path / "previous.pt").write_bytes(bytes(10))
    assert there_already(tmp_path) == 1010
    free = shutil.disk_usage(tmp_path).free
    assert free_bytes(tmp_path / "not" / "yet") == pytest.approx(free, rel=0.1)


def test_a_disk_that_is_too_small_is_said_in_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(data="data", output=str(tmp_path / "out"), epochs=240, val_every=1)
    assert checkpoints(options) == 4 + 2 + 1
    warn_if_short(1e3, options)
    assert capsys.readouterr().err == ""
    warn_if_short(1e18, options)
    expected = (
        r"^warning: the disk of --output \S+/out has \d+\.\d GB free, and the run needs 7000000000\.0 GB, for up to 7 "
        r"checkpoints of 1000000000\.00 GB: make room, or give a higher --save_every\n$"
    )
    assert re.match(expected, capsys.readouterr().err)


def test_one_slow_step_is_not_the_time_of_a_run() -> None:
    assert typical_seconds([11.7, 1.5, 2.2, 1.6, 1.7]) == 1.7
