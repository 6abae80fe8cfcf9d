"""The commands that prepare data as processes of their own, whose workers are begun anew; other tests fork both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, run_preprocess
from tests.preprocess.test_luna_pre import SMALL, contents


def run(name: str, *argv: object) -> None:
    command = [sys.executable, ROOT / "preprocess" / f"{name}.py", *argv, "--workers", 2]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_each_makes_its_files(tmp_path: Path) -> None:
    sample = tmp_path / "sample"
    run("phantoms", "--save", sample, "--scans", 1, "--patients", 1, "--size", 64)
    run("luna_pre", "--data", sample / "LUNA16", "--save", tmp_path / "pairs", *SMALL)
    run("nodule_crops", "--data", sample / "LUNA16", "--save", tmp_path / "crops", "--max_negatives", 2)
    run("chest_store", "--data", sample / "Chest14", "--save", tmp_path / "store")
    assert len(list(tmp_path.glob("pairs/subset0/*_img_*.npy"))) == 4
    assert len((tmp_path / "crops" / "labels.csv").read_text().splitlines()) > 2
    assert (tmp_path / "store" / "shard_00000.bin").stat().st_size == 2 * 64 * 64
    forked = run_preprocess("luna_pre", "--data", sample / "LUNA16", "--save", tmp_path / "forked", *SMALL)
    assert forked.returncode == 0, forked.stderr
    assert contents(tmp_path / "forked") == contents(tmp_path / "pairs")
