"""A data set of one's own, added as CONTRIBUTING.md says, is looked at and trained on like those of the project."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from options.flags import DIMS
from options.help_texts import EXAMPLES_OF, KINDS, TITLES
from phases import PHASES
from tests.conftest import ROOT, write_xrays

LINES = (  # file, what stands before the new words, and the new words
    ("options/flags.py", "DIMS = {", '"mine": 2, '),
    ("options/flags.py", '"pretask": (', '"mine", '),
    ("options/help_texts.py", "KINDS = {", '"mine": "X-rays of my own", '),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with one data set more, which has the images and views of ``chest``."""
    folder = tmp_path_factory.mktemp("project")
    for entry in ROOT.iterdir():
        if entry.name in ("options", "datasets"):
            shutil.copytree(entry, folder / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif entry.name != "main.py" and not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
    shutil.copy(ROOT / "main.py", folder)
    for file, before, words in LINES:
        text = (folder / file).read_text()
        assert text.count(before) == 1
        (folder / file).write_text(text.replace(before, before + words))
    with (folder / "datasets" / "registry.py").open("a") as registry:
        registry.write('DATASETS["mine"] = DATASETS["chest"]\n')
    return folder


@pytest.mark.parametrize(
    ("flags", "made"),
    [
        ("--help --phase pretask --n mine", ""),
        ("--preview 2 --output look", "look/views.png"),
        ("--dry_run --output dry", ""),
        ("--epochs 1 --report --output run", "run/pcrl_mine_pretask_1.0_1.pt"),
    ],
)
def test_the_lines_of_the_guide_are_enough(flags: str, made: str, project: Path, tmp_path: Path) -> None:
    write_xrays(tmp_path / "data", count=4, size=64)
    own = "--n mine --data data --train_list none --ratio 1.0 --workers 0 --size 64 --narrow 8 --b 4 --moco_k 32"
    argv = [sys.executable, project / "main.py", "--gpus", "", *own.split(), *flags.split()]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / made).exists()
    assert "X-rays of my own" in done.stdout or "--help" not in flags


def test_help_has_words_for_every_kind_of_data_and_phase() -> None:
    assert set(KINDS) == set(DIMS)
    assert set(TITLES) == set(EXAMPLES_OF) == set(PHASES)
