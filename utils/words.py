"""Words for people."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """``1 class``, ``3 classes``: the noun is given in the singular."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "x", "sh", "tch")) else "s"
    return f"{number} {noun}{ending}"
