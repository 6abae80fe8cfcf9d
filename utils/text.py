"""Words for people."""

from __future__ import annotations


def counted(number: int, one: str, several: str = "") -> str:
    """``1 class``, ``3 classes``; ``several``: the plural, where it has another ending."""
    ending = "es" if one.endswith(("s", "x", "sh", "tch")) else "s"
    return f"{number} {one if number == 1 else several or one + ending}"
