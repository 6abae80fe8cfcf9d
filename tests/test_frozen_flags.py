"""The flags of the commands, their defaults and choices are those of flags.json: users' scripts depend on them.

After a change that is meant: ``python -m tests.test_frozen_flags``.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from utils.cli import Parser

FROZEN = Path(__file__).with_name("flags.json")
COMMANDS = ("main", "export", *(f"preprocess.{path.stem}" for path in sorted((ROOT / "preprocess").glob("[a-z]*.py"))))


class _ParsedError(Exception):
    """Carries a command's parser out of it."""


def flags(command: str) -> dict[str, dict[str, Any]]:
    """Each flag of a command with its default, choices and number of values."""
    module = importlib.import_module("options.command_line" if command == "main" else command)
    if command == "main":
        from dataclasses import fields

        from options import NO_EFFECT, Options

        known = {
            f"--{f.name}": {"default": f.default, "choices": f.metadata["argument"].get("choices")}
            for f in fields(Options)
        }
        return known | {f"--{name}": {"default": None, "choices": None} for name in ("config", *NO_EFFECT)}
    parser = _parser_of(module)
    return {
        " ".join(action.option_strings): {
            "default": "cores" if action.dest == "workers" else plain(action.default),  # of this machine
            "choices": plain(action.choices),
        }
        for action in parser._actions
        if action.option_strings
    }


def plain(value: Any) -> Any:
    """A default or choices as JSON has them; folders of the project relative to it."""
    if isinstance(value, Path) or (isinstance(value, str) and value.startswith(str(ROOT))):
        return str(Path(value).relative_to(ROOT))
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else value


def _parser_of(module: Any) -> argparse.ArgumentParser:
    """The parser that the command's function makes and then calls."""

    def parse(parser: Parser, *_: Any, **__: Any) -> None:
        raise _ParsedError(parser)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("parse", "parse_args"):
            patch.setattr(Parser, name, parse)
        with pytest.raises(_ParsedError) as caught:
            module.parse_args([]) if hasattr(module, "parse_args") else module.main()
    return caught.value.args[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_are_as_they_were(command: str) -> None:
    assert flags(command) == json.loads(FROZEN.read_text())[command]


if __name__ == "__main__":
    FROZEN.write_text(json.dumps({command: flags(command) for command in COMMANDS}, indent=1, sort_keys=True) + "\n")
