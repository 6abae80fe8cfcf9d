"""scripts/venv.sh: which torch is installed where there is no GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_scripts import calls, stand_ins

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the default wheel is the small one"),
    pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU"),
]
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
HAS_TORCH, HAS_NONE = 'if [ "$1" = -c ]; then exit 0; fi', 'if [[ "$1" = -c && "$2" = *find_spec* ]]; then exit 1; fi'
UNFIT = 'if [ "$1" = -c ]; then exit 1; fi'  # neither is there a torch, nor can the new one be imported
UNREACHABLE = f'{HAS_NONE}; if [[ "$*" == *index-url* ]]; then exit 1; fi'


def installed(folder: Path, python: str, requirements: str) -> tuple[list[list[str]], str]:
    """The calls of pip that the script makes with this stand-in for python, and what it prints."""
    environment = stand_ins(folder, python=python) | {"VIRTUAL_ENV": str(folder)}
    command = f'set -- {requirements}; source "{ROOT}/scripts/venv.sh" {requirements}'
    told = subprocess.check_output(["bash", "-c", command], env=os.environ | environment, text=True)
    return [words for words in calls(folder) if words[:3] == ["python", "-m", "pip"]], told


@pytest.mark.parametrize("python", [HAS_NONE, UNREACHABLE])
def test_without_a_gpu_the_small_wheel_comes_first(python: str, tmp_path: Path) -> None:
    (small, others), told = installed(tmp_path, python, "requirements.txt")
    assert CPU_WHEELS in small
    assert others[-2:] == ["-r", "requirements.txt"]
    assert CPU_WHEELS not in others
    assert "no NVIDIA GPU here" in told
    assert ("not to be had" in told) == (python == UNREACHABLE)


@pytest.mark.parametrize(
    ("python", "requirements"), [(HAS_TORCH, "requirements.txt"), (HAS_NONE, "requirements-dev.txt")]
)
def test_a_torch_that_is_there_stays_and_tests_have_the_default_one(
    python: str, requirements: str, tmp_path: Path
) -> None:
    (only,), _ = installed(tmp_path, python, requirements)
    assert only[-2:] == ["-r", requirements]


def test_wheels_that_do_not_fit_together_are_replaced(tmp_path: Path) -> None:
    (_, removed, others), told = installed(tmp_path, UNFIT, "requirements.txt")
    assert removed[3] == "uninstall"
    assert removed[-2:] == ["torch", "torchvision"]
    assert others[-2:] == ["-r", "requirements.txt"]
    assert "do not fit together" in told
