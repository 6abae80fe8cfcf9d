"""Runs a command's jobs, one a scan, and says what is wrong where all scans are broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from preprocess.jobs.flags import KILLED
from preprocess.jobs.parallel import run_parallel
from preprocess.jobs.settle import Job, Sources
from utils.console import say
from utils.errors import UserError
from utils.progress import progress


class Outcome(Protocol):
    """What became of a scan; ``problem``: why it is broken."""

    @property
    def name(self) -> str: ...
    @property
    def problem(self) -> str: ...


Made = TypeVar("Made", bound=Outcome)


def run_jobs(
    make: Callable[[Job], Made], broken: Callable[[str, str], Made], jobs: Sequence[Job], workers: int, sources: Sources
) -> list[Made]:
    """What became of the scans, by name. ``broken``: the outcome of a scan of this name with this problem."""
    outcomes = []
    with progress(len(jobs), "scan") as bar:
        for job, outcome in run_parallel(make, jobs, min(workers, len(jobs))):
            outcomes.append(outcome or broken(job.scan.name, KILLED))
            sources.note(job)
            bar.update()
    sources.save()
    return sorted(outcomes, key=lambda outcome: outcome.name)


def tell(outcomes: Sequence[Outcome], summary: str, data: Path) -> bool:
    """Say the ``summary``, and return whether a scan is broken; UserError if all are."""
    broken = [outcome for outcome in outcomes if outcome.problem]
    if len(broken) == len(outcomes) == 1:
        raise UserError(f"{broken[0].name}: {broken[0].problem}")
    say(summary)
    if len(broken) == len(outcomes):
        raise UserError(f"--data {data}: none of its {len(broken)} scans can be read")
    return bool(broken)
