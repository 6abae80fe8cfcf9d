"""Command lines that answer bad input with one clear line."""

from __future__ import annotations

import argparse
import difflib
import re
import shutil
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NoReturn

from utils.errors import UserError
from utils.version import VERSION

IGNORED = re.compile(r"ignored explicit argument (.*)")  # argparse's words: nothing is ignored


def help_format(prog: str) -> argparse.HelpFormatter:
    """How help is laid out: description and examples as they are written, flags in wide columns, no wider than 100."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=32, width=width)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are :class:`UserError`, and which names the flag that an unknown one stands for.

    ``synonyms``: flags that other programs have, without ``--`` -> what to do here. Any other unknown flag is answered
    with the flag that is spelled most like it.
    """

    def __init__(self, synonyms: Mapping[str, str] = MappingProxyType({}), **kwargs: object) -> None:
        self._synonyms = synonyms
        super().__init__(allow_abbrev=False, formatter_class=help_format, **kwargs)  # type: ignore[arg-type]

        self.add_argument("--version", action="version", version=f"PCRL {VERSION}", help=argparse.SUPPRESS)

    def error(self, message: str) -> NoReturn:
        message = IGNORED.sub(r"takes no value, but has \1", message)
        raise UserError(f"{message} (see --help)")

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse; an unknown flag is an error that names the nearest one."""
        known, unknown = self.parse_known_args(argv)
        if unknown:
            flag = next((word for word in unknown if word.startswith("-")), unknown[0])
            raise UserError(f"unknown argument {flag}{self._hint(flag.split('=')[0])} (see --help)")
        return known

    def _hint(self, flag: str) -> str:
        word = flag.lstrip("-").replace("-", "_").lower()
        if f"--{word}" in self._option_string_actions:  # written with a hyphen, or in capitals
            return f"; did you mean --{word}?"
        if advice := self._synonyms.get(word):
            return f"; {advice}"
        shown = [name for name, action in self._option_string_actions.items() if action.help != argparse.SUPPRESS]
        nearest = difflib.get_close_matches(flag, shown, n=1)
        return f"; did you mean {nearest[0]}?" if nearest else ""
