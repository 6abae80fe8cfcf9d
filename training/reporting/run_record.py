"""``run.json``: what a run was started with, so that it can be explained and repeated."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from options import Options
from utils import json_text
from utils.files import write_text

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "numba",
    "scipy",
    "scikit-image",
    "SimpleITK",
    "pillow",
    "isal",
    "tensorboardX",
    "matplotlib",
    "monai",
    "scikit-learn",
)
ORIGIN_OPTIONS = ("model", "phase", "n", "b", "epochs", "ratio", "train_list")  # what a card tells of --weight's run
ROOT = Path(__file__).resolve().parents[2]


def _git_commit() -> str | None:
    try:
        # `describe --dirty` would write the index: in the way of a commit, and a lock that stays where it finds no room
        changed = _git("status", "--porcelain", "--untracked-files=no")
        return _git("describe", "--always", "--abbrev=40") + "-dirty" * bool(changed)
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def list_hash(names: Sequence[str]) -> str:
    """SHA-256 of the names of the training samples, in order."""
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def paths_hash(files: Sequence[str]) -> str:
    """SHA-256 of the paths of the training samples below the folder that has them all; "" if their names suffice.

    Files of several folders can share names, as those of CheXpert do: ``patient00001/study1/view1_frontal.jpg``.
    """
    if len({os.path.basename(file) for file in files}) == len(set(files)):
        return ""
    top = len(os.path.commonpath({os.path.dirname(file) for file in files}))
    return list_hash([file[top:].lstrip(os.sep) for file in files])


def labels_hash(files: Sequence[str], labels: np.ndarray) -> str:
    """SHA-256 of the names of labelled files and of their ``labels`` (N, classes), in order."""
    return list_hash([f"{os.path.basename(file)} {row}" for file, row in zip(files, labels.tolist(), strict=True)])


def read_run_record(folder: Path, list_sha256: str | None) -> dict[str, Any]:
    """``run.json`` in this folder; empty if there is none, or if it is of a run on other samples."""
    try:
        record = json_text.parse((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    of_this_run = isinstance(record, dict) and record.get("data", {}).get("list_sha256") == list_sha256
    return record if of_this_run and list_sha256 else {}


def origin(weight: str, made: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the run that ``--weight`` is of, under ``weight``; nothing if its file does not say.

    ``made``: what the file tells (models/weights.py).
    """
    if not {"opt", "run"} <= made.keys() or not made["run"]:
        return {}
    options = {name: made["opt"].get(name) for name in ORIGIN_OPTIONS}
    return {"weight": {**made, "file": os.path.basename(weight), "opt": options}}


def times(output: Path, list_sha256: str, checkpoint: Mapping[str, Any] | None) -> dict[str, Any]:
    """When the run started, now or as ``checkpoint`` has it, and when it was resumed, now being the last time.

    A checkpoint of an earlier version has no times: ``run.json`` may have them, else the start is not known, None.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    if checkpoint is None:
        return {"started": now, "resumed": []}
    before = checkpoint.get("run") or read_run_record(output, list_sha256)
    return {"started": before.get("started"), "resumed": [*before.get("resumed", []), now]}


def write_run_record(output: Path, options: Options, data: dict[str, Any], run: dict[str, Any]) -> None:
    """Write ``run.json``: command, options, data found, versions, commit and machine; ``run``: times, device, ..."""
    record = {
        "command": sys.argv,
        "options": options.plain(),
        "data": data,
        **run,
        "versions": _versions(),
        "commit": _git_commit(),
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "cpu_count": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
        },
    }
    write_text(output / "run.json", json.dumps(record, indent=2) + "\n")
