"""One of a thing is in the singular."""

from __future__ import annotations

from utils.words import counted


def test_counted() -> None:
    assert [counted(number, "scan") for number in (0, 1, 2)] == ["0 scans", "1 scan", "2 scans"]
    assert [counted(number, "class", "classes") for number in (1, 14)] == ["1 class", "14 classes"]
