"""A run's page, with what its method says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from methods import METHODS
from methods.base import Panel
from methods.pcrl_report import curve_panels
from methods.pcrlv2 import PCRLv2
from methods.supervised import Supervised
from reports.run_page import Run, read_run, write_report


def panels_of(run: Run) -> Sequence[Panel]:
    """The panels of the method of a run; none of a method from a file: no code is run for a page."""
    options = run.options
    if options.get("phase", "pretask") != "pretask":
        return Supervised.panels
    loss = options.get("loss", "mse")
    of_pcrl = curve_panels(loss if loss in ("mse", "l1") else "mse")
    known = {"pcrl": of_pcrl, "pcrl_paper": of_pcrl, "pcrlv2": PCRLv2.panels}
    return known.get(str(options.get("model", "pcrl")), ())


def citation_of(run: Run) -> str:
    """What to cite."""
    model = str(run.options.get("model", "pcrl"))
    return METHODS[model].citation if model in METHODS else ""


def report_on(folder: Path) -> Path:
    """Write the page of the run in a folder; -> its path."""
    run = read_run(folder)
    return write_report(folder, panels_of(run), citation_of(run))
