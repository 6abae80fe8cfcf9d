"""The page of a run, from what lies in its folder: ``python scripts/report.py RUN`` writes RUN/report.html."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a script, from any folder: imports start at the project's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from utils.requirements import say_missing_packages

    say_missing_packages()

from utils.cli import Parser
from utils.console import say
from utils.errors import UserError, run_cli


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page of each run that is named."""
    parser = Parser(usage="report.py RUN [RUN ...]", description=__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="*", type=Path, help="the --output of a run, of any version")
    parser.add_argument("--demo", metavar="FOLDER", type=Path, help="the folder of scripts/demo.sh")
    flags = parser.parse(argv)
    if not flags.runs and not flags.demo:
        raise UserError("name the folder of a run, its --output")
    from reports.demo_page import write_demo  # late: they take seconds to import
    from reports.of_run import report_on

    for run in flags.runs:
        say(f"written: {report_on(run)}")
    if flags.demo:
        say(f"written: {write_demo(flags.demo)}")
    return 0


if __name__ == "__main__":
    run_cli(main)
