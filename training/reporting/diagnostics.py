"""Looks at the epochs of a run and warns where it does not learn, or waits. docs/LEARNING.md says what to expect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

HELP = "see docs/TROUBLESHOOTING.md"
REPEAT_EPOCHS = 20  # between two warnings of the same kind
COLLAPSED_SPREAD = 0.02  # of normalised features; spread evenly they have 1
COLLAPSED_EPOCHS = 5
FULL = 0.99  # of the queue: real keys
FLAT_EPOCHS, FLAT_BLOCK, FLAT_CHANGE = 20, 5, 1e-3
LOW_LR = 0.2  # of the largest one: a loss that is flat below it is at its end
STARVED_SHARE, STARVED_SECONDS = 0.3, 10.0


def hardly_changes(values: list[float]) -> bool:
    """Whether the means of blocks of ``FLAT_BLOCK`` epochs are the same, but for ``FLAT_CHANGE`` of them.

    Blocks, since single epochs are noisy; several, since a curve that rises and falls has two that are equal.
    """
    blocks = [values[start : start + FLAT_BLOCK] for start in range(0, len(values), FLAT_BLOCK)]
    means = [sum(block) / len(block) for block in blocks]
    return max(means) - min(means) <= FLAT_CHANGE * max(abs(mean) for mean in means)


@dataclass
class Diagnostics:
    """What it has seen of the epochs; its fields are its state, as a checkpoint keeps it."""

    epochs: int = 0
    largest_lr: float = 0.0
    collapsed: int = 0  # epochs in a row
    losses: dict[str, list[float]] = field(default_factory=dict)  # of the last epochs, by term
    said: dict[str, int] = field(default_factory=dict)  # kind of warning -> the epoch after which it came last

    def __post_init__(self) -> None:
        self._starting = True  # the first epoch of a process waits for workers to start

    def state(self) -> dict[str, Any]:
        """Plain containers, from which ``Diagnostics(**state)`` goes on."""
        return asdict(self)

    def epoch(
        self,
        losses: Mapping[str, float],
        statistics: Mapping[str, float],
        lr: float,
        seconds: float,
        data_seconds: float,
    ) -> list[str]:
        """Take in an epoch: means of the losses to watch, the last statistics; -> what to warn of, mostly nothing."""
        self.epochs += 1
        self.largest_lr = max(self.largest_lr, lr)
        found = {
            "collapse": self._collapse(statistics),
            "flat": self._flat(losses, lr),
            "starved": self._starved(seconds, data_seconds),
        }
        new = {kind: text for kind, text in found.items() if text and self._may_say(kind)}
        self.said |= dict.fromkeys(new, self.epochs)
        self._starting = False
        return [f"{text}; {HELP}" for text in new.values()]

    def _may_say(self, kind: str) -> bool:
        return kind not in self.said or self.epochs - self.said[kind] >= REPEAT_EPOCHS

    def _collapse(self, statistics: Mapping[str, float]) -> str:
        spread = statistics.get("feature_spread")
        if spread is None or statistics.get("queue_filled", 1.0) < FULL:  # before that, all turn away from real keys
            return ""
        self.collapsed = self.collapsed + 1 if spread < COLLAPSED_SPREAD else 0
        if self.collapsed < COLLAPSED_EPOCHS:
            return ""
        return (
            f"the features of different images have been nearly the same for {self.collapsed} epochs (feature_spread "
            f"{spread:.3f}; 1 if evenly spread): the features have collapsed, or the images hardly differ"
        )

    def _flat(self, losses: Mapping[str, float], lr: float) -> str:
        flat = []
        for name, value in losses.items():
            values = self.losses[name] = [*self.losses.get(name, []), value][-FLAT_EPOCHS:]
            if len(values) == FLAT_EPOCHS and hardly_changes(values):
                flat.append(name)
        if not flat or lr < LOW_LR * self.largest_lr:
            return ""
        return (
            f"{' and '.join(flat)} changed by less than {FLAT_CHANGE:.1%} in {FLAT_EPOCHS} epochs while the learning "
            f"rate is still high: no further progress there"
        )

    def _starved(self, seconds: float, data_seconds: float) -> str:
        if self._starting or seconds < STARVED_SECONDS or data_seconds < STARVED_SHARE * seconds:
            return ""
        return (
            f"{data_seconds / seconds:.0%} of the epoch was spent waiting for data: use more --workers (if cores are "
            f"free), --augment device, or for X-rays a store (preprocess/chest_store.py)"
        )
