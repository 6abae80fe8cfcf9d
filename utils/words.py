"""Numbers of things, in words for people."""

from __future__ import annotations


def counted(number: int, one: str, several: str = "") -> str:
    """``1 scan``, ``2 scans``; ``several``: the plural, where it is not ``one`` and an s."""
    return f"{number} {one if number == 1 else several or f'{one}s'}"
