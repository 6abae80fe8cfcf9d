"""The shell scripts: they start what the README says, and queue themselves again as they should."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="bash scripts")


def stand_ins(folder: Path, **scripts: str) -> dict[str, str]:
    """Programs of these names that note their arguments in ``calls`` and do this; -> the environment with them."""
    for name, script in scripts.items():
        path = folder / name
        path.write_text(
            f'#!/usr/bin/env bash\nprintf "%q " {name} "$@" >> "{folder}/calls"\necho >> "{folder}/calls"\n{script}\n'
        )
        path.chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_NODELIST": "node[1-2]"}
    return os.environ | slurm | {"PATH": f"{folder}:{os.environ['PATH']}"}


def calls(folder: Path) -> list[list[str]]:
    path = folder / "calls"
    return [shlex.split(line) for line in path.read_text().splitlines()] if path.exists() else []


def flags(words: list[str]) -> dict[str, str]:
    """``--flag value`` pairs."""
    return {flag: value for flag, value in pairwise(words) if flag.startswith("--")}


def command_of_readme(script: str, n: str = "") -> dict[str, str]:
    """The first command of the README with this script, and this ``--n``."""
    for line in (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        words = shlex.split(line) if line.startswith(f"python {script}") else []
        if words and (not n or flags(words).get("--n") == n):
            return flags(words)
    raise AssertionError(f"no command of {script} in the README")


def test_pretrain_scripts_are_the_commands_of_the_paper(tmp_path: Path) -> None:
    environment = stand_ins(tmp_path, python="")
    for argv in ("pretrain_chest.sh DATA OUT --seed 3", "pretrain_luna.sh LUNA DATA OUT --seed 3"):
        script, *arguments = argv.split()
        subprocess.run(["bash", str(ROOT / "scripts" / script), *arguments], env=environment, check=True, cwd=tmp_path)
    chest, pairs, luna = calls(tmp_path)
    more = {"--data": "DATA", "--output": "OUT", "--resume": "auto", "--seed": "3"}
    gpus = {"--gpus": "0,1,2,3"}  # the scripts use all there are
    assert flags(chest) | gpus == command_of_readme("main.py", "chest") | more
    assert flags(luna) | gpus == command_of_readme("main.py", "luna") | more
    assert flags(pairs) == command_of_readme("preprocess/luna_pre.py") | {"--data": "LUNA", "--save": "DATA"}
    for words in (chest, luna, pairs):
        assert Path(tmp_path, words[1]).resolve().is_file()
    short = subprocess.run(
        ["bash", str(ROOT / "scripts/pretrain_luna.sh"), "x"], capture_output=True, text=True, check=False
    )
    assert short.returncode == 2
    assert "usage" in short.stderr


@pytest.mark.parametrize(("status", "queued_again"), [(0, False), (2, False), (138, True)])
def test_a_job_on_one_node_that_was_warned_queues_itself_again(status: int, queued_again: bool, tmp_path: Path) -> None:
    environment = stand_ins(tmp_path, srun=f"exit {status}", scontrol="")
    script = ROOT / "scripts" / "slurm_one_node.sbatch"
    job = subprocess.run(["bash", str(script), "DATA", "OUT"], env=environment, check=False)
    started, *others = calls(tmp_path)
    assert flags(started) | {"--parallel": "ddp", "--resume": "auto", "--data": "DATA"} == flags(started)
    assert (["scontrol", "requeue", "7"] in others) == queued_again
    assert job.returncode == (0 if queued_again else status)


@pytest.mark.parametrize(("warned", "saves"), [(True, True), (True, False), (False, False)])
def test_a_job_on_several_nodes_that_was_warned_stops_its_tasks_first(
    warned: bool, saves: bool, tmp_path: Path
) -> None:
    """Slurm signals the batch shell, which has scancel signal the tasks, and waits until they have saved.

    Where they could not save, another job would not get further.
    """
    (tmp_path / "last.pt").write_text("of the former job")
    save = f"touch {tmp_path}/saved" if saves else "echo 'error: no room; the run ends unsaved' >&2"
    task = f'trap "sleep 1; {save}; exit 1" TERM\ntouch {tmp_path}/started\n' + "sleep 0.1\n" * 300
    scancel = f"kill -TERM $(cat {tmp_path}/task)"
    environment = stand_ins(
        tmp_path,
        srun=f"echo $$ > {tmp_path}/task\n{task if warned else 'exit 0'}",
        scancel=scancel,
        scontrol=f'if [ "$1" = requeue ]; then test -e {tmp_path}/saved; else echo node1; echo node2; fi',
    )
    script = ROOT / "scripts" / "slurm_several_nodes.sbatch"
    job = subprocess.Popen(["bash", str(script), "DATA", str(tmp_path)], env=environment)
    if warned:
        deadline = time.monotonic() + 30
        while not (tmp_path / "started").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        job.send_signal(signal.SIGUSR1)
    assert job.wait(60) == int(warned and not saves)
    made = calls(tmp_path)
    (started,) = [words for words in made if words[0] == "srun"]
    torchrun, main = started[: started.index("--")], started[started.index("--") + 1 :]
    assert flags(torchrun)["--rdzv_endpoint"] == "node1:29500"
    assert (flags(torchrun)["--nnodes"], flags(torchrun)["--nproc_per_node"]) == ("2", "4")
    assert main[0] == "main.py"
    assert flags(main)["--resume"] == "auto"
    assert (["scancel", "--signal=TERM", "7"] in made) == warned
    assert (["scontrol", "requeue", "7"] in made) == saves
