"""What the cells of ``benchmarks/evidence.py`` say: prints all tables; with ``--write`` the page and the figures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from benchmarks import evidence_earlier
from benchmarks.evidence_cells import load_results, truth
from benchmarks.evidence_curves import curves
from benchmarks.evidence_data import OF_THE_PLACE, ROOT
from benchmarks.evidence_page import answers, more_tables, of_new_draws, page_tables, reservations, with_results
from benchmarks.evidence_protocol import ARMS, Results, data_of
from benchmarks.evidence_scores import KINDS, TASKS, Found, collect
from benchmarks.evidence_stats import REPLICATES, weighted_auroc
from benchmarks.evidence_tables import against_parts, choices, missing, table
from utils.files import write_text

PAGE, MORE, RECIPES = (ROOT / "docs" / f"{name}.md" for name in ("EVIDENCE", "EVIDENCE_TABLES", "RECIPES"))
FIGURE = ROOT / "docs" / "images" / "evidence.svg"


def full_tables(found: Found, results: Results) -> str:
    """All tables of a task, what was chosen, and what is missing."""
    title, _, score, _ = TASKS[found.task]
    about = f"{score} on the test part (95 % over patients); difference to random values (95 % over patients and draws)"
    parts = []
    for kind, words in KINDS.items():
        for label in found.labels(kind):
            columns = [(label, count) for count in found.counts(kind)]
            parts.append(table(found, kind, columns, f"{title}, {words}, {label}: {about}"))
            less = f"{title}, {words}, {label}: PCRL minus each of the others"
            parts += [shown] if (shown := against_parts(found, kind, columns, less)) else []
    for what, lines in (
        ("validation scores of what was tried, the chosen first", choices(found.task, results)),
        ("missing", missing(found.task, results)),
    ):
        parts += ["\n".join([f"{title}, {what}:", *(f"- {line}" for line in lines)])] if lines else []
    parts += [shown for arm in ARMS if (shown := curves(found.task, results, arm))]
    return "\n\n".join(parts)


def told_by_the_place(folder: Path) -> str:
    """How far the label that goes with the place of collection tells the others, in a line; "" where it is not kept."""
    true = truth(folder, "nih") if (folder / "nih_test.json").exists() else {}
    if "place" not in true:
        return ""
    place, ones = np.array(true["place"]), np.ones((1, len(true["place"])))
    areas = {name: weighted_auroc(np.array(labels), place, ones)[0] for name, labels in true["labels"].items()}
    words = ", ".join(f"{name} {area:.3f}" for name, area in areas.items())
    return f"NIH X-rays, AUROC of the label {OF_THE_PLACE} alone, which goes with the place of collection: {words}"


def report(folder: Path, write: bool = False, replicates: int = REPLICATES) -> None:
    """Print all tables; with ``write`` put the results and the figure into the docs, which else stay as they are."""
    results = load_results(folder)
    tasks = [task for task in TASKS if any(cell["task"] == task for cell in results.values())]
    all_found = [collect(task, results, folder, replicates) for task in tasks or ["nih"]]
    for found in all_found:
        print(full_tables(found, results) + "\n")
        if data_of(found.task) == "nih":
            lines = (*answers(found), *reservations(found, results))
            print("\n".join(["The answer:", *(f"- {line}" for line in lines)]) + "\n")
            print(f"{line}\n" if (line := of_new_draws(found)) else "", end="")
    if line := told_by_the_place(folder):
        print(line + "\n")
    if write:
        from benchmarks.evidence_figure import draw

        in_2d = [found.task for found in all_found if data_of(found.task) == "nih"]  # as the recipe's text says
        shown = "\n\n".join(filter(None, (curves(task, results) for task in in_2d)))
        pages = {PAGE: page_tables(all_found, results), MORE: more_tables(all_found, results), RECIPES: shown}
        written = [evidence_earlier.PICTURE]
        for page, part in pages.items():
            if part:
                write_text(page, with_results(page.read_text(encoding="utf-8"), part))
                written.append(page)
        if any(found.scores for found in all_found):
            draw(all_found, FIGURE)
            written.append(FIGURE)
    print("The earlier protocol:\n")
    evidence_earlier.report(write)
    if write:
        print(f"\nwritten: {', '.join(os.path.relpath(path, ROOT) for path in written)}")
