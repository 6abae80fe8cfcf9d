"""What a pre-training imports before its first step: no library that it does not need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

NOT_NEEDED = ("monai", "sklearn", "matplotlib", "skimage", "torchvision", "torch._dynamo", "pydicom")
MOST_MODULES = 2300
FIRST_STEPS = """
import json, runpy, sys
import training.loop
def told(*args, **named):
    print("modules", json.dumps(sorted(sys.modules)), flush=True)
    sys.exit(0)
training.loop.Trainer.step = told
for argv in json.loads(sys.argv[1]):
    sys.argv = ["main.py", *argv]
    try:
        runpy.run_path("main.py", run_name="__main__")
    except SystemExit:
        pass
"""


def test_pre_training_imports_what_it_needs_alone(pairs: Path, xrays: Path) -> None:
    """On crops, then, in the same process, on X-rays: what both import is few enough, too."""
    common = ["--b", "2", "--workers", "0", "--ratio", "1", "--narrow", "8", "--dry_run", "--gpus", ""]
    kinds = (["--n", "luna", "--data", str(pairs)], ["--n", "chest", "--data", str(xrays), "--size", "64"])
    command = [sys.executable, "-c", FIRST_STEPS, json.dumps([kind + common for kind in kinds])]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)
    found = [line.removeprefix("modules ") for line in run.stdout.splitlines() if line.startswith("modules ")]
    assert len(found) == 2, run.stdout + run.stderr
    for modules in map(json.loads, found):
        assert not set(modules) & set(NOT_NEEDED)
        assert len(modules) < MOST_MODULES
