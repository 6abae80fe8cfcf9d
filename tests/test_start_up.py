"""What a pre-training imports before its first step: no library that it does not need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

NOT_NEEDED = ("monai", "sklearn", "matplotlib", "skimage", "torchvision", "torch._dynamo", "pydicom")
MOST_MODULES = 2300
FIRST_STEP = """
import json, runpy, sys
import training.loop
step = training.loop.Trainer.step
def told(*args, **named):
    print("modules", json.dumps(sorted(sys.modules)), flush=True)
    sys.exit(0)
training.loop.Trainer.step = told
sys.argv = ["main.py", *sys.argv[1:]]
runpy.run_path("main.py", run_name="__main__")
"""


@pytest.mark.parametrize("n", ["luna", "chest"])
def test_pre_training_imports_what_it_needs_alone(n: str, pairs: Path, xrays: Path) -> None:
    argv = ["--n", n, "--data", str(pairs if n == "luna" else xrays), "--b", "2", "--workers", "0", "--ratio", "1"]
    argv += ["--narrow", "8", "--dry_run", "--gpus", ""] + ["--size", "64"] * (n == "chest")
    command = [sys.executable, "-c", FIRST_STEP, *argv]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)
    assert "modules " in run.stdout, run.stdout + run.stderr
    modules = set(json.loads(run.stdout.partition("modules ")[2].splitlines()[0]))
    assert not modules & set(NOT_NEEDED)
    assert len(modules) < MOST_MODULES
