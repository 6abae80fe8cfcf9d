"""Command lines that answer bad input with one clear line."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn

from utils.errors import UserError


def help_format(prog: str) -> argparse.HelpFormatter:
    """How help is laid out: description and examples as they are written, flags in wide columns."""
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=32, width=100)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are :class:`UserError`, and which names the nearest known flag."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(allow_abbrev=False, formatter_class=help_format, **kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse; an unknown flag is an error that names the nearest one."""
        known, unknown = self.parse_known_args(argv)
        if unknown:
            flag = next((word for word in unknown if word.startswith("-")), unknown[0])
            nearest = difflib.get_close_matches(flag.split("=")[0], self._option_string_actions, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise UserError(f"unknown argument {flag}{hint} (see --help)")
        return known
