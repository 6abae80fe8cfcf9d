"""What the holder of a folder sweeps: temporary files of this program, in that folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from utils.errors import UserError
from utils.locks import exclusive

KILLED = """
import os, signal, sys, time
from pathlib import Path
from utils.locks import exclusive
with exclusive(Path(sys.argv[1])):
    if os.fork() == 0:  # as a process that loads data
        time.sleep(float(sys.argv[2]))
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_only_own_temporary_files_of_this_folder_are_swept(tmp_path: Path) -> None:
    swept = [".last.pt.123.tmp", "reconstructions/.epoch_0001.png.99.tmp"]
    others = [".notes.tmp", ".swap.x1.tmp", "kept.123.tmp", "inner/.last.pt.123.tmp", "inner/deep/.last.pt.5.tmp"]
    for name in (*swept, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("something")
    (tmp_path / ".folder.77.tmp").mkdir()
    with exclusive(tmp_path, ["reconstructions", "missing"]):
        assert not any((tmp_path / name).exists() for name in swept)
        assert all((tmp_path / name).exists() for name in others)
        assert (tmp_path / ".folder.77.tmp").is_dir()


def test_what_a_killed_run_leaves_alive_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, tmp_path, "1.5"], cwd=ROOT, check=False)
    started = time.monotonic()
    with exclusive(tmp_path):
        assert time.monotonic() - started > 0.2, "the lock was held"


def test_who_waits_for_a_lock_that_is_removed_gets_another(tmp_path: Path) -> None:
    """Else it would hold a file that nobody else sees, and a third process would come in."""
    seen: list[str] = []

    def wait() -> None:
        with exclusive(tmp_path, patience_s=60, leaves=False):
            try:
                with exclusive(tmp_path):
                    seen.append("a third one came in")
            except UserError as error:
                seen.append(str(error))

    waiter = threading.Thread(target=wait)
    with exclusive(tmp_path, leaves=False):
        waiter.start()
        time.sleep(0.5)  # in which the other opens the file, and finds it locked
    waiter.join(60)
    (found,) = seen
    assert "in use by process" in found
    assert not list(tmp_path.iterdir())


def test_a_run_that_lives_is_named(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path),
        pytest.raises(UserError, match=rf"in use by process {os.getpid()} on .*; give another folder or stop"),
        exclusive(tmp_path),
    ):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_the_lock_of_another_user_is_one_line() -> None:
    """As of a colleague's former run in a folder of a group."""
    tmp_path = Path(tempfile.mkdtemp())  # pytest's own is for its user alone
    tmp_path.chmod(0o777)
    (tmp_path / ".lock").touch(0o644)
    program = (
        "import os, sys\n"
        "from pathlib import Path; from utils.locks import exclusive; from utils.errors import run_cli\n"
        "os.setuid(65534)\n"
        "def main():\n    with exclusive(Path(sys.argv[1])): pass\n"
        "run_cli(main)\n"
    )
    command = [sys.executable, "-c", program, tmp_path]
    # The other user may not write where the coverage of the tests is kept.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.stderr == (
        f"error: {tmp_path}: nothing can be written there: Permission denied; remove {tmp_path}/.lock, which may be "
        "another user's, or give another folder\n"
    )
    assert done.returncode == 2
    tmp_path.chmod(0o600)  # not to be searched
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    shutil.rmtree(tmp_path)
    assert done.stderr == f"error: {tmp_path}: nothing can be written there: Permission denied; give another folder\n"
