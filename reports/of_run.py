"""A run's page, with what its method says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from methods import METHODS
from methods.base import Panel
from methods.spec import MethodSpec
from methods.supervised import Supervised
from reports.run_page import Run, read_run, write_report


def _pretrained(run: Run) -> bool:
    return run.phase == "pretask"


def spec_of(run: Run) -> MethodSpec | None:
    """The method of a pre-training; None if it is from a file, since no code is run for a page, and in other phases."""
    return METHODS.get(str(run.options.get("model", "pcrl"))) if _pretrained(run) else None


def panels_of(run: Run, spec: MethodSpec | None = None) -> Sequence[Panel]:
    """The panels of a run's curves; ``spec``: of its method, if it is at hand."""
    spec = spec or spec_of(run)
    if spec is None:
        return () if _pretrained(run) else Supervised.panels
    return spec.panels(run.options)


def report_on(folder: Path, spec: MethodSpec | None = None) -> Path:
    """Write the page of the run in a folder; -> its path. ``spec``: of its method, if it is at hand."""
    run = read_run(folder)
    return write_report(folder, panels_of(run, spec), spec or spec_of(run))
