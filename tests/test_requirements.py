"""Outside the virtual environment each command line says in one line what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_architecture import OWN, imports
from utils.requirements import PACKAGES

SCRIPTS = ("main.py", "export.py", *(f"preprocess/{name}.py" for name in ("luna_pre", "phantoms", "nodule_crops")))


def run_bare(script: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """With the standard library alone: -S leaves out site-packages."""
    command = [sys.executable, "-S", str(ROOT / script), *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_missing_package_is_one_line(script: str) -> None:
    run = run_bare(script, "--help")
    assert run.returncode == 2, run.stdout + run.stderr
    assert run.stderr.startswith("error: the package ")
    assert run.stderr.endswith(
        " is not installed here; activate the environment (source .venv/bin/activate) or "
        "pip install -r requirements.txt\n"
    )
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("module", ["models.nothing", "nothing_of_ours"])
def test_any_other_missing_module_is_a_traceback(module: str) -> None:
    command = [sys.executable, "-c", f"import utils.requirements as r; r.say_missing_packages(); import {module}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert run.returncode == 1
    assert "Traceback" in run.stderr


def test_a_torchvision_of_another_torch_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    command = [sys.executable, "-c", "import utils.requirements as r; r.say_missing_packages(); import torchvision"]
    paths = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | paths)
    assert run.returncode == 2
    assert run.stderr.startswith("error: torchvision does not work with this torch")
    assert run.stderr.count("\n") == 1


def test_every_package_that_the_program_imports_is_known() -> None:
    files = [ROOT / name for name in ("main.py", "export.py")]
    files += [path for package in OWN for path in (ROOT / package).rglob("*.py")]
    imported = {name.split(".")[0] for path in files for name in imports(path)}
    optional = {"apex", "onnx", "onnxruntime"}  # they have messages of their own
    assert imported - OWN - sys.stdlib_module_names - optional - {""} == PACKAGES
