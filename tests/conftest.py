"""Small data sets and processes that the tests of the command line share."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.inprocess import run_captured

pytest.register_assert_rewrite("tests.page_rules")  # whose asserts are test_docs.py's
ROOT = Path(__file__).resolve().parents[1]
# Files that take 10 seconds or more, or start many processes: left out by -m "not slow".
SLOW = [
    "test_backbones",
    "test_bad_luck",
    "test_card",
    "test_docs",
    "test_evidence_runs",
    "test_export",
    "test_flags_in_phases",
    "test_former_runs",
    "test_full_disk",
    "test_gated",
    "test_launches",
    "test_luna_pre",
    "test_main",
    "test_nnunet",
    "test_onnx",
    "test_own_method",
    "test_parallel_runs",
    "test_patients",
    "test_pcrl_paper",
    "test_pcrlv2_runs",
    "test_phantoms",
    "test_predict_scans",
    "test_probe",
    "test_processes",
    "test_published_v2",
    "test_quickstart",
    "test_redeal",
    "test_resume",
    "test_run_page",
    "test_scans",
    "test_scripts",
    "test_segmenter_card",
    "test_trackers",
    "test_unheard",
    "test_weights",
    "test_weights_of_others",
]
Run = Callable[..., subprocess.CompletedProcess[str]]


FULL = ("--narrow", 1)  # for a run whose test checks sizes or names of the full network


def main_command(*argv: object) -> list[str]:
    """``python main.py ...``; the network has an eighth of its channels unless ``argv`` says otherwise (FULL)."""
    narrow = () if "--narrow" in argv else ("--narrow", 8)
    return [sys.executable, str(ROOT / "main.py"), *map(str, (*argv, *narrow))]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)


def run_main(*argv: object, cwd: Path | None = None, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """``python main.py ...`` as a user starts it, from any folder, with a narrow network."""
    command = main_command(*argv)
    return run_captured(command[1:], cwd, timeout)


def run_preprocess(name: str, *argv: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``python preprocess/NAME.py ...`` as a user starts it, from any folder."""
    return run_captured([str(ROOT / "preprocess" / f"{name}.py"), *map(str, argv)], cwd)


def rows(output: Path) -> list[dict]:
    """The rows of a run's metrics.jsonl."""
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def write_pairs(folder: Path, scans: int = 3, pairs: int = 2, shape: tuple[int, ...] = (16, 16, 16)) -> Path:
    """Smooth pairs of overlapping crops, as luna_pre.py leaves them."""
    rng = np.random.default_rng(0)
    for scan in range(scans):
        subset = folder / f"subset{scan % 7}"
        subset.mkdir(parents=True, exist_ok=True)
        for k in range(pairs):
            coarse = rng.random((2, 4, 4, 4))
            pair = coarse.repeat(shape[0] // 4, 1).repeat(shape[1] // 4, 2).repeat(shape[2] // 4, 3)
            np.save(subset / f"1.2.{scan}_img_{k}.npy", pair.astype(np.float32))
    return folder


def write_xrays(folder: Path, count: int = 2, size: int = 96) -> Path:
    """Smooth grey images with NIH names, and their list."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"{i + 1:08d}_000.png" for i in range(count)]
    for name in names:
        coarse = (rng.random((6, 6)) * 255).astype(np.uint8)
        Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(folder / "images" / name)
    (folder / "chest_train.txt").write_text("".join(f"{name} {' '.join(['0'] * 14)}\n" for name in names))
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def xrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_xrays(tmp_path_factory.mktemp("xrays"))
