"""The scores of the evidence's arms, by draw of labels, from the raw results; with intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.evidence_cells import truth, unpacked
from benchmarks.evidence_protocol import (
    COMMON_RATE,
    DECIDING,
    RATES,
    Results,
    best,
    data_of,
    draws_of,
    named,
    rate_cells,
)
from benchmarks.evidence_stats import (
    REPLICATES,
    Estimate,
    estimate,
    paired_difference,
    patient_weights,
    weighted_auroc,
)


class About(NamedTuple):
    """What the tables say of a task. ``what``: is labelled."""

    title: str
    what: str
    score: str
    dims: int


DATA = {
    "nih": About("NIH X-rays", "patients", "AUROC", 2),
    "nodules": About("Nodules in CT phantoms", "scans", "AUROC", 3),
    "hippocampus": About("Hippocampus", "volumes", "Dice", 3),
}
LENGTHS = {"": "", "_short": ", short pre-training"}
WIDTHS = {1: "", 2: ", half the channels", 4: ", a quarter of the channels", 8: ", an eighth of the channels"}
TASKS = {
    named(data + length, narrow): about._replace(title=about.title + long + wide)
    for data, about in DATA.items()
    for length, long in LENGTHS.items()
    for narrow, wide in WIDTHS.items()
}
KINDS = {"finetune": "fine-tuning", "common": f"fine-tuning at {COMMON_RATE} for all", "probe": "linear probe"}
FINDINGS = ("Infiltration", "Effusion", "Atelectasis")
MEAN = "mean of three findings"
RANDOM = "random"
Key = tuple[str, str, str, int]  # kind, label, arm, number of labelled


@dataclass
class Found:
    """The scores of a task: for each draw (1 + replicates,), the mean over the pre-trainings that have all draws.

    ``seeds``: the score itself of each of these pre-trainings, the mean over draws.
    """

    task: str
    scores: dict[Key, dict[int, np.ndarray]]
    seeds: dict[Key, dict[int, float]] = field(default_factory=dict)

    def select(self, kind: str, label: str, arm: str, count: int) -> dict[int, np.ndarray]:
        """By draw."""
        return self.scores.get((kind, label, arm, count), {})

    def labels(self, kind: str) -> list[str]:
        """In the order of the test part, those of a mean last."""
        return list(dict.fromkeys(label for of, label, _, _ in self.scores if of == kind))

    def counts(self, kind: str) -> list[int]:
        """Numbers of labelled patients."""
        return sorted({count for of, _, _, count in self.scores if of == kind})

    def score(self, kind: str, label: str, arm: str, count: int) -> Estimate | None:
        """The mean over draws."""
        found = self.select(kind, label, arm, count)
        return estimate(np.stack(list(found.values()))) if found else None

    def gain(self, kind: str, label: str, arm: str, count: int, base: str = RANDOM, first: int = 0) -> Estimate | None:
        """The paired difference to another arm, over the draws that both have, from the draw ``first`` on."""
        found, other = self.select(kind, label, arm, count), self.select(kind, label, base, count)
        both = sorted(draw for draw in found.keys() & other.keys() if draw >= first)
        if arm == base or not both:
            return None
        return paired_difference(np.stack([found[draw] for draw in both]), np.stack([other[draw] for draw in both]))

    def seed_gains(self, kind: str, label: str, arm: str, count: int) -> list[float]:
        """The difference to random values of each pre-training, without intervals; nothing where there is but one."""
        seeds = self.seeds.get((kind, label, arm, count), {})
        found, base = self.select(kind, label, arm, count), self.select(kind, label, RANDOM, count)
        if arm == RANDOM or len(seeds) < 2 or not found.keys() <= base.keys():
            return []
        mean = float(np.mean([base[draw][0] for draw in found]))
        return [value - mean for value in seeds.values()]

    def lacks_draws(self, found: Estimate, count: int) -> str:
        """In brackets, how many draws there are, if these are not all of so many labels; else nothing."""
        wanted = len(draws_of(self.task, count))
        return f" [{found.draws} of {wanted} draws]" if found.draws < wanted else ""


def collect(task: str, results: Results, folder: Path, replicates: int = REPLICATES) -> Found:
    """All scores of a task. A pre-training counts where it has all draws; while none has, those with the most do."""
    own = [cell for cell in results.values() if cell["task"] == task and cell["kind"] in KINDS]
    own = [cell for cell in own if is_current(cell, results)]
    if not own:
        return Found(task, {})
    true = truth(folder, task)
    weights = patient_weights(true["groups"], replicates)
    by_seed: dict[Key, dict[int, dict[int, np.ndarray]]] = defaultdict(lambda: defaultdict(dict))
    for cell in own:
        for count, draw, scores in _parts(cell):
            kinds = [cell["kind"], *(["common"] if is_common(cell, count) else [])]
            for label, score in _scores(scores, true, weights).items():
                for kind in kinds:
                    by_seed[kind, label, cell["arm"], count][cell["seed"]][draw] = score
    found = Found(task, {})
    for key, seeds in by_seed.items():
        most = max(map(len, seeds.values()))
        first = next(seed for seed, draws in sorted(seeds.items()) if len(draws) == most)
        both = sorted(seeds[first])
        whole = [seed for seed, draws in sorted(seeds.items()) if sorted(draws) == both]
        found.scores[key] = {draw: np.mean([seeds[seed][draw] for seed in whole], axis=0) for draw in both}
        found.seeds[key] = {seed: float(np.mean([seeds[seed][draw][0] for draw in both])) for seed in whole}
    return found


def is_common(cell: Mapping[str, Any], count: int) -> bool:
    """Whether a fine-tuning at the chosen rate is one of those at one rate for all, too."""
    return (
        cell["kind"] == "finetune"
        and count in DECIDING.get(data_of(cell["task"]), ())
        and any(run[run.index("--lr") + 1] == COMMON_RATE for run in cell["runs"])
    )


def is_current(cell: Mapping[str, Any], results: Results) -> bool:
    """Whether a fine-tuning has the learning rate that is chosen now: a later trial can choose another."""
    chosen = best(results, rate_cells(cell["task"], cell["arm"]))
    if cell["kind"] != "finetune" or chosen is None:
        return True
    (run,) = cell["runs"]
    return bool(run[run.index("--lr") + 1] == RATES[chosen])


def _parts(cell: Mapping[str, Any]) -> Iterable[tuple[int, int, Mapping[str, Any]]]:
    """The labelled, the draw and the scores: one of a fine-tuning, many of a probe."""
    if cell["kind"] != "probe":
        yield cell["labels"], cell["draw"], cell
    else:
        for name, scores in cell["probed"].items():
            labels, draw = map(int, name.split("_"))
            yield labels, draw, scores


def _scores(cell: Mapping[str, Any], true: Mapping[str, Any], weights: np.ndarray) -> dict[str, np.ndarray]:
    """The score by label in each replicate, and the mean over the findings."""
    if "dice" in cell:
        return {"Dice": weights @ np.array(cell["dice"]) / weights.sum(axis=1)}
    labels, ranks = true["labels"], cell["ranks"]
    found = {name: weighted_auroc(np.array(labels[name]), unpacked(text), weights) for name, text in ranks.items()}
    if set(FINDINGS) <= found.keys():
        found[MEAN] = np.mean([found[name] for name in FINDINGS], axis=0)
    return found
