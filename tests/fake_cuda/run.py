"""Runs modules of this package where torch takes stand-ins for CUDA's libraries."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent


def why_not() -> str:
    """Why it cannot run here; empty: it can."""
    if sys.platform != "linux":
        return "the stand-ins for CUDA's libraries are made for Linux"
    if torch.version.cuda is None:
        return "this torch is built for the CPU alone"
    if torch.cuda.is_available():
        return "a real GPU is here"
    return "" if shutil.which("gcc") else "there is no gcc to make stand-ins for CUDA's libraries"


def run(folder: Path, module: str, *arguments: str) -> list[dict[str, Any]]:
    """The lines of JSON that a module of this package prints; ``folder``: for the libraries."""
    for source, library in (("cuda.c", "libcuda.so.1"), ("cudart.c", "libcudart_stand_in.so")):
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / library, HERE / source], check=True)
    paths = f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    environment = os.environ | {"LD_LIBRARY_PATH": paths, "LD_PRELOAD": str(folder / "libcudart_stand_in.so")}
    command = [sys.executable, "-m", f"tests.fake_cuda.{module}", *arguments]
    done = subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-9000:]
    return [json.loads(line) for line in done.stdout.splitlines()]
