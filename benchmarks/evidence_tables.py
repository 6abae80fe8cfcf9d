"""Tables of the evidence's scores, what its searches chose, and what is missing, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.evidence_data import PATIENTS_LABELLED, SCANS_LABELLED, VOLUMES_LABELLED
from benchmarks.evidence_protocol import (
    ARMS,
    COMMON_RATE,
    DECIDING,
    RATES,
    Results,
    best,
    data_of,
    draws_of,
    rate_cells,
)
from benchmarks.evidence_scores import KINDS, RANDOM, TASKS, Found, is_current
from benchmarks.evidence_stats import Estimate

PCRL = "pcrl"
ALL = 0  # of the labelled
COUNTS = {"nih": (*PATIENTS_LABELLED, ALL), "nodules": (*SCANS_LABELLED, ALL), "hippocampus": VOLUMES_LABELLED}
Columns = Sequence[tuple[str, int]]  # (label, labelled)


def in_brackets(low: float, high: float, sign: str = "") -> str:
    """An interval."""
    return f"({low:{sign}.3f} to {high:{sign}.3f})"


def gain_words(gain: Estimate) -> str:
    """A difference with its interval."""
    return f"{gain.value:+.3f} {in_brackets(gain.low, gain.high, '+')}"


def score_words(found: Estimate | None) -> str:
    """A score with its interval."""
    return f"{found.value:.3f} {in_brackets(found.low, found.high)}" if found else ""


def _rows(found: Found, columns: Columns, title: str, rows: dict[str, list[str]]) -> str:
    """Markdown: a row for each name that has a cell."""
    heads = [f"{label}, {count} {TASKS[found.task].what}" for label, count in columns]
    lines = [title, "", "| | " + " | ".join(heads) + " |", "|---" * (len(columns) + 1) + "|"]
    return "\n".join(lines + [f"| {name} | " + " | ".join(row) + " |" for name, row in rows.items() if any(row)])


def table(found: Found, kind: str, columns: Columns, title: str, with_score: bool = True) -> str:
    """An arm a row: scores and differences to random values; without scores, those of random values alone.

    Where an arm has several pre-trainings, a second row has the difference of each.
    """
    rows: dict[str, list[str]] = {}
    for arm, about in ARMS.items():
        cells, each = [], []
        for label, count in columns:
            score, gain = found.score(kind, label, arm, count), found.gain(kind, label, arm, count)
            words = [score_words(score)] if with_score or gain is None else []
            words += [gain_words(gain)] if gain else []
            lacks = found.lacks_draws(gain or score, count) if score else ""
            cells.append("; ".join(words) + lacks)
            each.append(", ".join(f"{value:+.3f}" for value in found.seed_gains(kind, label, arm, count)))
        rows |= {about.words: cells, f"{about.words}, each pre-training": each}
    return _rows(found, columns, title, rows)


def against_parts(found: Found, kind: str, columns: Columns, title: str) -> str:
    """PCRL less each other pre-training; "" if there is no other."""
    rows = {}
    for arm in others(found, kind):
        gains = [(found.gain(kind, label, PCRL, count, arm), count) for label, count in columns]
        words = [gain_words(gain) + found.lacks_draws(gain, count) if gain else "" for gain, count in gains]
        rows[f"minus {ARMS[arm].words}"] = words
    return _rows(found, columns, title, rows) if rows else ""


def others(found: Found, kind: str) -> list[str]:
    """The arms, but for PCRL and random values, that have scores."""
    there = {arm for of, _, arm, _ in found.scores if of == kind}
    return [arm for arm in ARMS if arm in there - {PCRL, RANDOM}]


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


def rates(task: str, title: str, results: Results) -> str:
    """What each arm reached on the validation part at each learning rate of fine-tuning; "" before any has all."""
    lines = []
    for arm, about in ARMS.items():
        tried = rate_cells(task, arm)
        if (chosen := best(results, tried)) is not None:
            shown = [f"{results[name]['valid']:.3f}" for name in tried]
            shown[chosen] = f"**{shown[chosen]}**"
            lines.append(f"| {about.words} | {' | '.join(shown)} |")
    heads = [
        f"**{title}, fine-tuning**: {TASKS[task].score} on the validation part by learning rate, the chosen one bold"
    ]
    heads += ["", "| | " + " | ".join(RATES) + " |", "|---" * (len(RATES) + 1) + "|"]
    return "\n".join(heads + lines) if lines else ""


def missing(task: str, results: Results) -> list[str]:
    """What is not there of a task, a line an arm."""
    own = [cell for cell in results.values() if cell["task"] == task and is_current(cell, results)]
    lines = []
    for arm, about in ARMS.items():
        if TASKS[task].dims not in about.dims or (about.weight and "_small" in task):
            continue
        seeds = len(about.seeds) or 1
        wanted = {"finetune": sum(len(draws_of(task, count)) for count in COUNTS[data_of(task)]) * seeds}
        if data_of(task) == "nih":
            chosen = best(results, rate_cells(task, arm))
            alike = chosen is not None and RATES[chosen] == COMMON_RATE  # then these are the fine-tunings above
            wanted["common"] = 0 if alike else sum(len(draws_of(task, count)) for count in DECIDING["nih"]) * seeds
            wanted["probe"] = 3 if arm == RANDOM else seeds
        have = {kind: sum((cell["arm"], cell["kind"]) == (arm, kind) for cell in own) for kind in wanted}
        short = [f"{KINDS[kind]} {have[kind]} of {count}" for kind, count in wanted.items() if have[kind] < count]
        if short:
            lines.append(f"{about.words}: {', '.join(short)}")
    return lines
