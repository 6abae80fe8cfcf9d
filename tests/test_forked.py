"""Forks in place of new processes (tests/forked.py) do not mix up files."""

from __future__ import annotations

from pathlib import Path

from tests.inprocess import run_captured

PARENT = """
import gc, subprocess, sys
gc.disable()
class Ring:
    def __init__(self):
        self.itself, self.file = self, open(sys.argv[1])
[Ring() for _ in range(5)]
sys.exit(subprocess.run([sys.executable, sys.argv[1]]).returncode)
"""
CHILD = """
import gc, os
own = [os.open(os.devnull, os.O_RDONLY) for _ in range(40)]
gc.collect()
for number in own:
    os.fstat(number)
"""


def test_what_the_parent_left_does_not_close_files_of_its_fork(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    (tmp_path / "child.py").write_text(CHILD)
    found = run_captured([str(tmp_path / "parent.py"), str(tmp_path / "child.py")])
    assert found.returncode == 0, found.stderr
