"""Looks at the epochs of a run and warns where it does not learn, or waits. docs/LEARNING.md says what to expect."""

from __future__ import annotations

from collections.abc import Mapping

HELP = "see docs/TROUBLESHOOTING.md"
COLLAPSED_SPREAD = 0.05  # of normalised features; spread evenly they have 1
COLLAPSED_EPOCHS = 3
FULL = 0.99  # of the queue: real keys
FLAT_EPOCHS, FLAT_CHANGE = 10, 1e-3
LOW_LR = 0.05  # of the largest one: a loss that is flat below it is at its end
STARVED_SHARE, STARVED_SECONDS = 0.3, 10.0


class Watch:
    """Each warning comes at most once in a run; after ``--resume`` the watch begins anew."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._largest_lr = 0.0
        self._collapsed = 0
        self._epochs = 0
        self._said: set[str] = set()

    def epoch(
        self,
        means: Mapping[str, float],
        statistics: Mapping[str, float],
        lr: float,
        seconds: float,
        data_seconds: float,
    ) -> list[str]:
        """Take in an epoch: means of the loss terms, the last statistics; -> what to warn of, mostly nothing."""
        self._epochs += 1
        self._largest_lr = max(self._largest_lr, lr)
        found = {
            "collapse": self._collapse(statistics),
            "flat": self._flat(means, lr),
            "starved": self._starved(seconds, data_seconds),
        }
        new = {kind: text for kind, text in found.items() if text and kind not in self._said}
        self._said |= new.keys()
        return [f"{text}; {HELP}" for text in new.values()]

    def _collapse(self, statistics: Mapping[str, float]) -> str:
        spread = statistics.get("feature_spread")
        if spread is None or statistics.get("queue_filled", 1.0) < FULL:  # before that, all turn away from real keys
            return ""
        self._collapsed = self._collapsed + 1 if spread < COLLAPSED_SPREAD else 0
        if self._collapsed < COLLAPSED_EPOCHS:
            return ""
        return (
            f"the features of different images are nearly the same since {self._collapsed} epochs (spread "
            f"{spread:.3f}; evenly spread they have 1): they have collapsed, or the images hardly differ"
        )

    def _flat(self, means: Mapping[str, float], lr: float) -> str:
        if "loss" not in means:
            return ""
        self._losses = [*self._losses, means["loss"]][-FLAT_EPOCHS:]
        low, high = min(self._losses), max(self._losses)
        change = (high - low) / max(abs(high), 1e-12)
        if len(self._losses) < FLAT_EPOCHS or change > FLAT_CHANGE or lr < LOW_LR * self._largest_lr:
            return ""
        return (
            f"the loss has changed by less than {FLAT_CHANGE:.1%} in {FLAT_EPOCHS} epochs: nothing is learned any more"
        )

    def _starved(self, seconds: float, data_seconds: float) -> str:
        if self._epochs == 1 or seconds < STARVED_SECONDS or data_seconds < STARVED_SHARE * seconds:
            return ""
        return (
            f"{data_seconds / seconds:.0%} of the epoch was spent waiting for data: more --workers if there are cores, "
            f"--augment device, or for X-rays a store (preprocess/chest_store.py)"
        )
