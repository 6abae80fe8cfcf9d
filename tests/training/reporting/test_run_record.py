"""run.json names the commit, and leaves the clone alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from training.reporting import run_record


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.check_output(["git", "-C", str(folder), *who, *words], text=True).strip()


def test_the_commit_is_told_and_the_index_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_record, "ROOT", tmp_path)
    git(tmp_path, "init", "-q")
    (tmp_path / "file.py").write_text("1")
    git(tmp_path, "add", "file.py")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "file.py").touch()  # git would note that it has looked again
    (tmp_path / "new.txt").touch()
    index = tmp_path / ".git" / "index"
    before = index.stat()
    assert run_record._git_commit() == commit
    (tmp_path / "file.py").write_text("2")
    assert run_record._git_commit() == f"{commit}-dirty"
    assert (index.stat().st_ino, index.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    monkeypatch.setattr(run_record, "ROOT", tmp_path / "nowhere")
    assert run_record._git_commit() is None
