"""Benchmarks answer --help, and say what is not installed; they measure when they are asked to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = sorted((ROOT / "benchmarks").glob("*.py"))
SCRIPTS = [path for path in FILES if "\n    main()" in path.read_text(encoding="utf-8")]


def test_every_benchmark_has_a_parser() -> None:
    assert len(SCRIPTS) > 5
    for path in SCRIPTS:
        text = path.read_text(encoding="utf-8")
        assert "ArgumentParser(" in text, path.name


def test_a_package_for_development_that_is_missing_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "torchio.py").write_text("raise ModuleNotFoundError('no torchio', name='torchio')")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['luna_sample.py']\n"
    script += f"import runpy; runpy.run_path({str(ROOT / 'benchmarks/luna_sample.py')!r}, run_name='__main__')"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.startswith("error: the package torchio is not installed here")
    assert ran.stderr.rstrip().endswith("pip install -r requirements-dev.txt")
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("name", ["luna_pre.py"])
def test_help_is_help(name: str) -> None:
    ran = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / name), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "--quick" in ran.stdout
