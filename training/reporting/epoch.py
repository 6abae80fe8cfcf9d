"""What a step reports, and the sums over an epoch's steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class StepReport:
    """One training step: its numbers, its pictures, and where its time went."""

    epoch: int  # from 0
    step: int  # steps of the epoch done, this one counted
    lr: float
    loss: float
    terms: Mapping[str, float]
    good: bool  # false: loss or gradient were not finite, and nothing was updated
    images: Mapping[str, Tensor]
    statistics: Mapping[str, Tensor]
    faults: Sequence[str]  # why samples were replaced by others
    samples: int
    seconds: float
    data_seconds: float  # of them, waiting for the batch


@dataclass
class EpochTotals:
    """Sums over the steps of an epoch; of the loss terms, over the good ones."""

    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    good: int = 0
    samples: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    statistics: dict[str, float] = field(default_factory=dict)  # the last known of each

    def add(self, report: StepReport) -> None:
        """Take in one step."""
        self.steps += 1
        self.samples += report.samples
        self.seconds += report.seconds
        self.data_seconds += report.data_seconds
        self.faults += report.faults
        if report.good:
            self.good += 1
            for name, value in {"loss": report.loss, **report.terms}.items():
                self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Of the loss and its terms, over the good steps."""
        return {name: value / max(1, self.good) for name, value in self.sums.items()}
