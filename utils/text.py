"""Words for people."""

from __future__ import annotations


def printable(text: str, encoding: str = "utf-8") -> str:
    """What can be written of a text: bytes of a file's name that are none, and foreign letters, as escapes."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def counted(number: int, one: str, several: str = "") -> str:
    """``1 class``, ``3 classes``; ``several``: the plural, where it has another ending."""
    ending = "es" if one.endswith(("s", "x", "sh", "tch")) else "s"
    return f"{number} {one if number == 1 else several or one + ending}"
