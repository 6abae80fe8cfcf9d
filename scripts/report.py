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
    runs = parser.parse(argv).runs
    if not runs:
        raise UserError("name the folder of a run, its --output")
    from reports.of_run import report_on  # late: it takes seconds to import

    for run in runs:
        say(f"written: {report_on(run)}")
    return 0


if __name__ == "__main__":
    run_cli(main)
