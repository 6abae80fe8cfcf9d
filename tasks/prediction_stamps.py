"""Which files predictions were made of, so that an image that was replaced under its name is predicted again."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import xxhash

from datasets.layout import STAMPS
from utils import json_text
from utils.console import say
from utils.errors import UserError, reason
from utils.files import write_text
from utils.text import counted


def stamp_of(files: Iterable[str | Path]) -> str:
    """A text that changes when one of the files is written or replaced; "" if one is not there."""
    try:
        stats = [os.stat(file) for file in files]
    except OSError:
        return ""
    return xxhash.xxh3_64_hexdigest(repr([(each.st_size, each.st_mtime_ns) for each in stats]).encode())


def replaced(output: Path, stamps: Mapping[str, str]) -> list[str]:
    """The names whose files are not those that :func:`remember` was told of. What it was not told of is none."""
    former = _read(output)
    return [name for name, stamp in stamps.items() if stamp and former.get(name, stamp) != stamp]


def say_changed(names: Collection[str], what: str) -> None:
    """Say which of the images, each a ``what``, are predicted again; nothing if none is."""
    if names:
        more = ", ..." if len(names) > 1 else ""
        say(f"{counted(len(names), what)} changed since the last prediction ({min(names)}{more})")


def remember(output: Path, stamps: Mapping[str, str]) -> None:
    """Write down the stamps, by name, before anything is predicted. UserError if that cannot be."""
    known = _read(output) | {name: stamp for name, stamp in stamps.items() if stamp}
    try:
        write_text(output / STAMPS, json.dumps(known, indent=0) + "\n")
    except OSError as error:
        raise UserError(f"--output {output}: {STAMPS} cannot be written: {reason(error)}") from None


def _read(output: Path) -> dict[str, str]:
    try:
        found = json_text.parse((output / STAMPS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
