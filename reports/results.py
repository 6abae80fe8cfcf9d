"""The figures of metrics.json, as the terminal prints them at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.facts import is_number, mapping, plain, short
from reports.html import Html, joined, table, tag
from utils.text import counted

MEASURES = {"auroc": "AUROC", "dice": "Dice"}  # of each class
BEFORE, AFTER = "positives", "sd"  # the columns beside it
MEANS_OF = {"auroc": "mean_auroc", "dice": "mean_dice"}
NOT_ALONE = {"skipped", "intervals", "by_volume", BEFORE, AFTER, *MEASURES}


def interval(span: Any) -> str:
    """``0.812 .. 0.874``; "" if it is none."""
    known = isinstance(span, list) and len(span) == 2 and all(map(is_number, span))
    return f"{span[0]:.3f} .. {span[1]:.3f}" if known else ""


def results_table(results: Mapping[str, Any]) -> Html:
    """What stands alone; a table by class; the classes that have no figure; volumes; then whatever else there is."""
    measure = next((name for name in MEASURES if mapping(results.get(name))), "")
    spans = mapping(results.get("intervals"))
    with_spans = {MEANS_OF.get(measure, ""), *(name for name in results if interval(spans.get(name)))}
    alone = {
        name.replace("_", " "): short(value) or plain(value, name)
        for name, value in results.items()
        if not isinstance(value, Mapping | list) and name not in with_spans
    }
    others = {
        name: value
        for name, value in results.items()
        if isinstance(value, Mapping | list) and value and not (name in NOT_ALONE and (measure or name == "intervals"))
    }
    return joined(
        filter(
            None,
            (
                table(alone),
                _judged(results, measure, [name for name in results if name in with_spans]),
                *_notes(results, spans),
                _volumes(mapping(results.get("by_volume"))),
                *(part for name, value in others.items() for part in (tag("h3", name.replace("_", " ")), _rest(value))),
            ),
        )
    )


def _judged(results: Mapping[str, Any], measure: str, figures: Sequence[str]) -> Html:
    """The classes, then the ``figures`` that are not of one class: each with its interval."""
    spans = mapping(results.get("intervals"))
    of_class, spans_of = mapping(results.get(measure)), mapping(spans.get(measure))
    before, after = ([name] if mapping(results.get(name)) else [] for name in (BEFORE, AFTER))
    mean, rows = MEANS_OF.get(measure, ""), []
    for name, value in of_class.items():
        span = spans_of.get(name)
        if name == "mean" and mean in figures:  # it stands among the classes, its interval does not
            value, span = results[mean], spans.get(mean)
        left, right = ([_cell(mapping(results[column]).get(name)) for column in side] for side in (before, after))
        rows.append([name, *left, _cell(value), *right, interval(span)])
    for name in figures:
        if "mean" not in of_class or name != mean:
            words = f"mean of {counted(len(of_class), 'class')}" if name == mean else name.replace("_", " ")
            rows.append(
                [words, *("" for _ in before), _cell(results[name]), *("" for _ in after), interval(spans.get(name))]
            )
    if not any(row[-1] for row in rows):
        rows = [row[:-1] for row in rows]
    percent = str(spans.get("how", "")).partition(",")[0]
    title, value = ("class", MEASURES[measure]) if measure else ("figure", "value")
    head = [title, *before, value, *after, f"{percent} interval".strip()]
    return table(rows, head[: len(rows[0])]) if rows else Html("")


def _notes(results: Mapping[str, Any], spans: Mapping[str, Any]) -> list[Html]:
    """Classes without a figure, by the reason; how the intervals were made."""
    skipped = mapping(results.get("skipped"))
    reasons = list(dict.fromkeys(map(str, skipped.values())))
    lines = [f"{why}: {', '.join(name for name in skipped if str(skipped[name]) == why)}" for why in reasons]
    lines += [f"intervals: {spans['how']}"] if spans.get("how") else []
    return [tag("p", f"{line[:1].upper()}{line[1:]}.", class_="dim") for line in lines]


def _volumes(rows: Mapping[str, Any]) -> Html:
    """Dice of each volume, by class."""
    classes = list(dict.fromkeys(name for row in rows.values() for name in mapping(row)))
    lines = [[name, *(_cell(mapping(row).get(each)) for each in classes)] for name, row in rows.items()]
    return joined([tag("h3", "by volume"), table(lines, ["volume", *classes])]) if classes else Html("")


def _rest(value: Any) -> Html:
    """Figures that this version does not know."""
    rows = [[key, plain(each)] for key, each in mapping(value).items()]
    return table(rows) if rows else tag("p", plain(value))


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.4f}" if is_number(value) else plain(value)
