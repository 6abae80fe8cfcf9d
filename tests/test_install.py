"""`pip install .` from a clone installs what the project needs, and none of its modules."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytest.importorskip("setuptools", minversion="68", reason="pip brings its own when it builds")
FILES = ("pyproject.toml", "requirements.txt", "LICENSE", "utils/__init__.py", "utils/version.py")


def test_an_installation_has_the_requirements_and_the_version_and_no_modules(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    code = "from setuptools import build_meta; print(build_meta.prepare_metadata_for_build_wheel('metadata'))"
    (tmp_path / "metadata").mkdir()
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    (made,) = (tmp_path / "metadata").glob("*.dist-info")
    lines = (made / "METADATA").read_text().splitlines()
    needed = {line.split(": ")[1].replace(" ", "") for line in lines if line.startswith("Requires-Dist: ")}
    wanted = (ROOT / "requirements.txt").read_text().splitlines()
    packages = [line.split(";")[0].strip() for line in wanted if line and not line.startswith("#")]
    assert {each.split(";")[0] for each in needed} == {_sorted_bounds(each) for each in packages}
    version = subprocess.run([sys.executable, str(ROOT / "main.py"), "--version"], capture_output=True, text=True)
    assert f"Version: {version.stdout.split()[-1]}" in lines
    assert not (made / "top_level.txt").read_text().strip()


def _sorted_bounds(requirement: str) -> str:
    """As packaging writes it: bounds in alphabetical order."""
    name = requirement.split("<")[0].split(">")[0].split("!")[0].split("=")[0]
    return name + ",".join(sorted(requirement.removeprefix(name).replace(" ", "").split(",")))
