"""What the cells of ``benchmarks/evidence.py`` say: tables with intervals, what is missing, and the page."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import evidence_earlier
from benchmarks.evidence_cells import load_results, truth, unpacked
from benchmarks.evidence_curves import curves
from benchmarks.evidence_data import ROOT
from benchmarks.evidence_protocol import ARMS, DRAWS, Results, data_of, named
from benchmarks.evidence_stats import (
    REPLICATES,
    Estimate,
    estimate,
    paired_difference,
    patient_weights,
    weighted_auroc,
)
from utils.files import write_text

PAGE, RECIPES = ROOT / "docs" / "EVIDENCE.md", ROOT / "docs" / "RECIPES.md"
FIGURE = ROOT / "docs" / "images" / "evidence.svg"
MARKS = "<!-- results: written by --report --write -->", "<!-- end of results -->"


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
KINDS = {"finetune": "fine-tuning", "probe": "linear probe"}
FINDINGS = ("Infiltration", "Effusion", "Atelectasis")
MEAN = "mean of three findings"
PRIMARY = ("male", "Infiltration"), (50, 100)  # of fine-tuned PCRL against random values: what the answer is made of
RANDOM = "random"
CAPTION = (
    "*Scores on the test part, by labelled patients; bands: 95 % over patients. The three findings are Infiltration,\n"
    "Effusion and Atelectasis. `--report` prints the tables of each label, for all numbers of patients.*"
)
NOT_YET = """> - **Not known yet**: the runs of the protocol below have only begun (`benchmarks/evidence.py --report`).
> - Earlier, after pre-trainings of 135 to 285 steps: on X-rays of phantoms PCRL helped with 60 labelled images (mean
>   AUROC 0.613 against 0.530), with fewer not in every run; on the Hippocampus it made no difference; 43 real X-rays
>   decided nothing."""


@dataclass
class Found:
    """The scores of a task: by (kind, label, arm, number of labelled), for each draw (1 + replicates,)."""

    task: str
    scores: dict[tuple[str, str, str, int], dict[int, np.ndarray]]

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

    def gain(self, kind: str, label: str, arm: str, count: int) -> Estimate | None:
        """The paired difference to random values, over the draws that both have."""
        found, base = self.select(kind, label, arm, count), self.select(kind, label, RANDOM, count)
        both = sorted(found.keys() & base.keys())
        if arm == RANDOM or not both:
            return None
        return paired_difference(np.stack([found[draw] for draw in both]), np.stack([base[draw] for draw in both]))


def collect(task: str, results: Results, folder: Path, replicates: int = REPLICATES) -> Found:
    """All scores of a task; of an arm with several pre-trainings their mean."""
    own = {name: cell for name, cell in results.items() if cell["task"] == task and cell["kind"] in KINDS}
    if not own:
        return Found(task, {})
    true = truth(folder, task)
    weights = patient_weights(true["groups"], replicates)
    seeds: dict[tuple[str, str, str, int, int], list[np.ndarray]] = defaultdict(list)
    for cell in own.values():
        for labels, draw, scores in _parts(cell):
            for label, score in _scores(scores, true, weights).items():
                seeds[cell["kind"], label, cell["arm"], labels, draw].append(score)
    found: dict[tuple[str, str, str, int], dict[int, np.ndarray]] = defaultdict(dict)
    for (kind, label, arm, labels, draw), values in seeds.items():
        found[kind, label, arm, labels][draw] = np.mean(values, axis=0)
    return Found(task, dict(found))


def _parts(cell: Mapping[str, Any]) -> Iterable[tuple[int, int, Mapping[str, Any]]]:
    """The labelled, the draw and the scores: one of a fine-tuning, many of a probe."""
    if cell["kind"] == "finetune":
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


# In words -----------------------------------------------------------------------------------------------------------


def in_brackets(low: float, high: float, sign: str = "") -> str:
    """An interval."""
    return f"({low:{sign}.3f} to {high:{sign}.3f})"


def score_words(found: Estimate | None, gain: Estimate | None) -> str:
    """A score with its interval; the difference to random values with its own; the draws if they are not all there."""
    if found is None:
        return ""
    words = f"{found.value:.3f} {in_brackets(found.low, found.high)}"
    if gain:
        words += f"; {gain.value:+.3f} {in_brackets(gain.low, gain.high, '+')}"
    return words + (f" [{found.draws} of {len(DRAWS)} draws]" if found.draws < len(DRAWS) else "")


def table(found: Found, kind: str, columns: Sequence[tuple[str, int]], title: str, with_score: bool = True) -> str:
    """Markdown: an arm a row. ``columns``: (label, labelled). Without scores: differences, and scores of random."""
    what = TASKS[found.task].what
    heads = [f"{label}, {count} {what}" for label, count in columns]
    lines = [title, "", "| | " + " | ".join(heads) + " |", "|---" * (len(columns) + 1) + "|"]
    for arm, about in ARMS.items():
        cells = []
        for label, count in columns:
            score, gain = found.score(kind, label, arm, count), found.gain(kind, label, arm, count)
            if with_score or gain is None:
                cells.append(score_words(score, gain))
            else:
                cells.append(f"{gain.value:+.3f} {in_brackets(gain.low, gain.high, '+')}")
        if any(cells):
            lines.append(f"| {about.words} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(gain: Estimate) -> str:
    """Whether the interval leaves zero out."""
    return "better" if gain.low > 0 else "worse" if gain.high < 0 else "not decided"


def answers(found: Found) -> list[str]:
    """The primary comparisons, a line each."""
    lines = []
    for label in PRIMARY[0]:
        for count in PRIMARY[1]:
            gain, score = found.gain("finetune", label, "pcrl", count), found.score("finetune", label, "pcrl", count)
            base = found.score("finetune", label, RANDOM, count)
            if not (gain and score and base):
                lines.append(f"**{label}, {count} patients**: not computed yet.")
                continue
            few = f" [{gain.draws} of {len(DRAWS)} draws]" if gain.draws < len(DRAWS) else ""
            lines.append(
                f"**{label}, {count} patients**: PCRL {score.value:.3f}, random values {base.value:.3f}, difference "
                f"{gain.value:+.3f} {in_brackets(gain.low, gain.high, '+')}: {verdict(gain)}{few}."
            )
    return lines


def reservations(task: str, results: Results) -> list[str]:
    """What the answers rest on, in a line, where it is less than the whole protocol."""
    width = TASKS[task].title.partition(", ")[2]
    words = [f"The networks have {width} and were trained on a processor."] if width else []
    seeds = [seed for seed in ARMS["pcrl"].seeds if f"{task}_pcrl_probe_seed{seed}" in results]
    if len(seeds) < len(ARMS["pcrl"].seeds):
        words.append(f"{len(seeds)} of {len(ARMS['pcrl'].seeds)} pre-trainings of PCRL so far.")
    return [" ".join(words)] if words else []


def choices(task: str, results: Results) -> list[str]:
    """What the searches chose, a line an arm, with the validation scores of all that was tried."""
    lines = []
    for arm, about in ARMS.items():
        words = []
        for kind, what in (("search", "pre-training"), ("rate", "fine-tuning")):
            tried = [
                cell for cell in results.values() if (cell["task"], cell["arm"], cell["kind"]) == (task, arm, kind)
            ]
            tried.sort(key=lambda cell: -cell["valid"])
            if tried:
                shown = (f"{' '.join(cell['tried'].values())} {cell['valid']:.3f}" for cell in tried)
                words.append(f"{what} {', '.join(shown)}")
        if words:
            lines.append(f"{about.words}: {'; '.join(words)}")
    return lines


def missing(task: str, results: Results) -> list[str]:
    """What is not there of a task, a line an arm; the numbers of labelled are those of any arm."""
    own = [cell for cell in results.values() if cell["task"] == task]
    counts = {cell["labels"] for cell in own if cell["kind"] == "finetune"}
    lines = []
    for arm, about in ARMS.items():
        if TASKS[task].dims not in about.dims or (about.weight and "_small" in task):
            continue
        seeds = len(about.seeds) or 1
        wanted = {"finetune": (len(counts) or (2 if "hippocampus" in task else 4)) * len(DRAWS) * seeds}
        if data_of(task) == "nih":
            wanted["probe"] = 3 if arm == RANDOM else seeds
        have = {kind: sum((cell["arm"], cell["kind"]) == (arm, kind) for cell in own) for kind in wanted}
        short = [f"{KINDS[kind]} {have[kind]} of {count}" for kind, count in wanted.items() if have[kind] < count]
        if short:
            lines.append(f"{about.words}: {', '.join(short)}")
    return lines


def full_tables(found: Found, results: Results) -> str:
    """All tables of a task, what was chosen, and what is missing."""
    title, _, score, _ = TASKS[found.task]
    about = f"{score} on the test part (95 % over patients); difference to random values (95 % over patients and draws)"
    parts = []
    for kind, words in KINDS.items():
        for label in found.labels(kind):
            columns = [(label, count) for count in found.counts(kind)]
            parts.append(table(found, kind, columns, f"{title}, {words}, {label}: {about}"))
    for what, lines in (
        ("validation scores of what was tried, the chosen first", choices(found.task, results)),
        ("missing", missing(found.task, results)),
    ):
        parts += ["\n".join([f"{title}, {what}:", *(f"- {line}" for line in lines)])] if lines else []
    parts += [shown for arm in ARMS if (shown := curves(found.task, results, arm))]
    return "\n\n".join(parts)


def page_tables(all_found: Sequence[Found], results: Results) -> str:
    """The part of docs/EVIDENCE.md that is written by --write: the answer, the figure, the tables that it rests on."""
    if not any(arm != RANDOM for found in all_found for _, _, arm, _ in found.scores):
        return NOT_YET
    in_2d = [found for found in all_found if data_of(found.task) == "nih"]  # the widest network first
    widest = in_2d[0] if in_2d else Found("nih", {})
    lines = [f"> - {line}" for line in answers(widest)]
    lines += [f"> - {line}" for line in reservations(widest.task, results)]
    lines += ["", "![score against labels](images/evidence.svg)", "", CAPTION]
    for found in all_found:
        title, _, score, _ = TASKS[found.task]
        for kind, words in KINDS.items():
            labels = [name for name in (*PRIMARY[0], MEAN, "nodule", "Dice") if name in found.labels(kind)]
            few = [count for count in found.counts(kind) if data_of(found.task) != "nih" or count in PRIMARY[1]]
            columns = [(label, count) for label in labels for count in few]
            if columns:
                head = f"**{title}, {words}**: {score} in the first row, then differences to it"
                lines += ["", table(found, kind, columns, head, with_score=False)]
        if gaps := missing(found.task, results):
            lines += ["", f"Missing ({title}): {'; '.join(gaps)}."]
    return "\n".join(lines)


def with_results(page: str, results: str) -> str:
    """The page with these results between its two marks."""
    before, _, rest = page.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n{results}\n{MARKS[1]}{after}"


def report(folder: Path, write: bool = False, replicates: int = REPLICATES) -> None:
    """Print all tables; with ``write`` put the results and the figure into the docs, which else stay as they are."""
    results = load_results(folder)
    tasks = [task for task in TASKS if any(cell["task"] == task for cell in results.values())]
    all_found = [collect(task, results, folder, replicates) for task in tasks or ["nih"]]
    for found in all_found:
        print(full_tables(found, results) + "\n")
        if data_of(found.task) == "nih":
            print("The answer:\n" + "\n".join(f"- {line}" for line in answers(found)) + "\n")
    if write:
        from benchmarks.evidence_figure import draw

        write_text(PAGE, with_results(PAGE.read_text(encoding="utf-8"), page_tables(all_found, results)))
        written = [PAGE, evidence_earlier.PICTURE]
        if shown := "\n\n".join(filter(None, (curves(found.task, results) for found in all_found))):
            write_text(RECIPES, with_results(RECIPES.read_text(encoding="utf-8"), shown))
            written.append(RECIPES)
        if any(found.scores for found in all_found):
            draw(all_found, FIGURE)
            written.append(FIGURE)
    print("The earlier protocol:\n")
    evidence_earlier.report(write)
    if write:
        print(f"\nwritten: {', '.join(os.path.relpath(path, ROOT) for path in written)}")
