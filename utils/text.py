"""Words for people."""

from __future__ import annotations

from collections.abc import Sequence


def printable(text: str, encoding: str = "utf-8") -> str:
    """What can be written of a text: bytes of a file's name that are none, and foreign letters, as escapes."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def listing(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def counted(number: int, one: str, several: str = "") -> str:
    """``1 class``, ``3 classes``; ``several``: the plural, where it has another ending."""
    ending = "es" if one.endswith(("s", "x", "sh", "tch")) else "s"
    return f"{number} {one if number == 1 else several or one + ending}"
