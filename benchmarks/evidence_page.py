"""The parts of docs/EVIDENCE.md and docs/EVIDENCE_TABLES.md that are written: answer, figure and tables."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.evidence_protocol import ARMS, COMMON_RATE, DECIDING, DRAWS, MORE_DRAWS, Results, data_of
from benchmarks.evidence_scores import FINDINGS, KINDS, MEAN, RANDOM, TASKS, Found
from benchmarks.evidence_stats import Estimate
from benchmarks.evidence_tables import PCRL, against_parts, gain_words, missing, others, rates, table

MARKS = "<!-- results: written by --report --write -->", "<!-- end of results -->"
PRIMARY = ("male", "Infiltration"), DECIDING["nih"]  # of fine-tuned PCRL against random values: the answer
FOUND_BY_FOUR_OF_FIVE = (1.96 + 0.84) / 1.96  # a true difference of so many half-widths of an interval, normal theory
CAPTION = (
    "*Scores on the test part, by labelled patients. Bands: 95 % over test patients. They leave out the chance of the\n"
    "draws of labels, so the overlap of two bands decides nothing. The three findings are Infiltration, Effusion and\n"
    "Atelectasis. [EVIDENCE_TABLES](EVIDENCE_TABLES.md) has the other tables; `--report` prints those of each label.*"
)
HEAD = "in the first row (interval over patients), then the differences to it (interval over patients and draws)"
NOT_YET = """> - **Not known yet**: the runs of the protocol below have only begun (`benchmarks/evidence.py --report`).
> - Earlier, after pre-trainings of 135 to 285 steps: on X-rays of phantoms PCRL helped with 60 labelled images (mean
>   AUROC 0.613 against 0.530), with fewer not in every run; on the Hippocampus it made no difference; 43 real X-rays
>   decided nothing."""


def verdict(gain: Estimate) -> str:
    """Whether the interval leaves zero out."""
    return "better" if gain.low > 0 else "worse" if gain.high < 0 else "not decided"


def answers(found: Found) -> list[str]:
    """The primary comparisons: the verdict on each label, the figures of each, and PCRL against the other arms."""
    verdicts, figures = [], []
    for label in PRIMARY[0]:
        words, judged = [], []
        for count in PRIMARY[1]:
            gain, score = (of("finetune", label, PCRL, count) for of in (found.gain, found.score))
            base = found.score("finetune", label, RANDOM, count)
            if not (gain and score and base):
                continue
            judged.append(f"{verdict(gain)} with {count} patients")
            few = found.lacks_draws(gain, count)
            words.append(f"with {count} patients {score.value:.3f} against {base.value:.3f}: {gain_words(gain)}{few}")
        alike = {word.partition(" with ")[0] for word in judged}
        both = f" with {' and with '.join(map(str, PRIMARY[1]))} patients"
        said = alike.pop() + both if len(alike) == 1 and len(judged) == len(PRIMARY[1]) else ", ".join(judged)
        verdicts.append(f"{label}: {said or 'not computed yet'}")
        figures += [f"**{label}**, {'; '.join(words)}"] if words else []
    lines = [f"AUROC of PCRL against random values: {'. '.join(figures)}."] if figures else []
    first = f"**Is PCRL better than random values, fine-tuned on few patients?** {'; '.join(verdicts)}."
    return [first, *lines, *_of_others(found)]


def of_new_draws(found: Found) -> str:
    """The primary differences in the draws that were added after the first five had been seen; "" if there are none."""
    words = []
    for label in PRIMARY[0]:
        for count in PRIMARY[1]:
            if gain := found.gain("finetune", label, PCRL, count, first=len(DRAWS)):
                words.append(f"{label}, {count} patients {gain_words(gain)}")
    return f"PCRL less random values, draws {len(DRAWS)} to {MORE_DRAWS[-1]} alone: {'; '.join(words)}" if words else ""


def _of_other_counts(found: Found) -> str:
    """PCRL less random values on the labels of the answer, with the other numbers of patients."""
    words = []
    for label in PRIMARY[0]:
        for count in found.counts("finetune"):
            if count not in PRIMARY[1] and (gain := found.gain("finetune", label, PCRL, count)):
                words.append(f"{label}, {count} patients {gain_words(gain)}")
    return f"PCRL, other numbers of patients: {'; '.join(words)}." if words else ""


def _counted(judged_on: Sequence[tuple[Found, str, int]], kind: str, arms: Sequence[str]) -> str:
    """In how many comparisons (scores, label, number of labelled) PCRL is better than each of these arms."""
    words = []
    for arm in arms:
        gains = [found.gain(kind, label, PCRL, count, arm) for found, label, count in judged_on]
        if judged := [verdict(gain) for gain in gains if gain]:
            worse = f" (worse in {judged.count('worse')})" if "worse" in judged else ""
            name = ARMS[arm].words.removeprefix("PCRL ")
            words.append(f"than {name} in {judged.count('better')} of {len(judged)}{worse}")
    return f"PCRL is better {', '.join(words)}" if words else ""


def _parts(found: Found) -> list[str]:
    """The arms that are PCRL without a part."""
    return [arm for arm in others(found, "finetune") if ARMS[arm].flags[:1] == ("--without",)]


def _of_others(found: Found) -> list[str]:
    """PCRL against its parts and other methods, each arm at its own learning rate and all at the same, in a line."""
    arms = others(found, "finetune")
    judged_on = [(found, label, count) for label in PRIMARY[0] for count in PRIMARY[1]]
    own, common = _counted(judged_on, "finetune", arms), _counted(judged_on, "common", [RANDOM, *arms])
    probed = _counted(judged_on, "probe", arms)
    more = f" At {COMMON_RATE} for all, {common} ([tables](EVIDENCE_TABLES.md))." if common else ""
    more += f" By the linear probe, {probed}." if probed else ""
    runs = [len(seeds) for (kind, _, arm, _), seeds in found.seeds.items() if kind == "finetune" and arm in arms]
    each = "one pre-training each" if max(runs, default=1) == 1 else f"{min(runs)} to {max(runs)} pre-trainings each"
    head = f"**PCRL against the others** ({each}), the same comparisons"
    return [f"{head}: {own}; else not decided.{more}"] if own else []


def reservations(found: Found, results: Results) -> list[str]:
    """What the answers rest on, in a line."""
    deciding = [("finetune", label, PCRL, count) for label in PRIMARY[0] for count in PRIMARY[1]]
    there = min((len(found.seeds.get(key, {})) for key in deciding), default=0)
    if not there:
        return []
    own = [cell for cell in results.values() if (cell["task"], cell["arm"]) == (found.task, PCRL)]
    on_cpu = {cell.get("device", "cpu") for cell in own} == {"cpu"}
    width = TASKS[found.task].title.partition(", ")[2]
    words = f"2D: {'so far ' * (there < len(ARMS[PCRL].seeds))}{there} of {len(ARMS[PCRL].seeds)} pre-trainings of PCRL"
    words += f", {width}" if width else ""
    words += ", trained on a processor" if on_cpu else ""
    gains = [gain for _, label, _, count in deciding if (gain := found.gain("finetune", label, PCRL, count))]
    if not gains:
        return [f"{words}."]
    ends = sorted(FOUND_BY_FOUR_OF_FIVE * (gain.high - gain.low) / 2 for gain in gains)
    return [
        f'{words}. "Not decided" does not mean "no difference": against random values, a true difference of '
        f"{ends[0]:.2f} to {ends[-1]:.2f} would be found in four of five such studies, if all pre-trainings were alike."
    ]


def in_3d(all_found: Sequence[Found]) -> list[str]:
    """PCRL against random values, and against its parts, in 3D: a line for all tasks."""
    words: list[str] = []
    all_found = [found for found in all_found if data_of(found.task) != "nih"]
    for found in all_found:
        title, what, score, _ = TASKS[found.task]
        for label in found.labels("finetune"):
            gains = [(count, found.gain("finetune", label, PCRL, count)) for count in found.counts("finetune")]
            shown = [
                f"{count} {what} {gain_words(gain)}{found.lacks_draws(gain, count)}, {verdict(gain)}"
                for count, gain in gains
                if gain
            ]
            seeds = {len(found.seeds["finetune", label, PCRL, count]) for count, gain in gains if gain}
            of = f"{' or '.join(map(str, sorted(seeds)))} of {len(ARMS[PCRL].seeds)} pre-trainings"
            words += [f"{title}, {of}, {score}: {'; '.join(shown)}"] if shown else []
    judged_on = [(found, *column) for found in all_found for column in _columns(found, "finetune", ())]
    parts = _counted(judged_on, "finetune", list(dict.fromkeys(arm for found in all_found for arm in _parts(found))))
    more = f" In these comparisons, {parts}; else not decided." if parts else ""
    return [f"**3D**, PCRL minus random values: {'. '.join(words)}.{more}"] if words else []


def page_tables(all_found: Sequence[Found], results: Results) -> str:
    """The part of docs/EVIDENCE.md that is written by --write: the answer, the figure, the tables that it rests on."""
    if not any(arm != RANDOM for found in all_found for _, _, arm, _ in found.scores):
        return NOT_YET
    in_2d = [found for found in all_found if data_of(found.task) == "nih"]  # the widest network first
    widest = in_2d[0] if in_2d else Found("nih", {})
    lines = [f"> - {line}" for line in (*answers(widest), *reservations(widest, results), *in_3d(all_found))]
    lines += ["", "![score against labels](images/evidence.svg)", "", CAPTION]
    for found in all_found:
        title, columns = TASKS[found.task].title, _columns(found, "finetune", PRIMARY[0])
        if columns:
            lines += ["", _table(found, "finetune", columns)]
            less = against_parts(found, "finetune", columns, _less(found, "finetune"))
            lines += ["", less] if less and data_of(found.task) == "nih" else []
        if gaps := missing(found.task, results):
            lines += ["", f"Not complete, done so far ({title}): {'; '.join(gaps)}."]
    return "\n".join(lines)


def more_tables(all_found: Sequence[Found], results: Results) -> str:
    """The part of docs/EVIDENCE_TABLES.md that is written by --write: what docs/EVIDENCE.md has no place for."""
    parts: list[str] = []
    for found in all_found:
        title = TASKS[found.task].title
        own = [rates(found.task, title, results)]
        if data_of(found.task) != "nih":
            own.append(against_parts(found, "finetune", _columns(found, "finetune", ()), _less(found, "finetune")))
        else:
            own.append(_of_other_counts(found))
            labels = {"finetune": (*FINDINGS[1:], MEAN), "common": PRIMARY[0], "probe": (*PRIMARY[0], MEAN)}
            for kind in labels:
                if columns := _columns(found, kind, labels[kind]):
                    less = against_parts(found, kind, columns, _less(found, kind))
                    own += [_table(found, kind, columns), less]
        parts += [f"## {title}", *own] if any(own) else []
    return "\n\n".join(filter(None, parts))


def _columns(found: Found, kind: str, labels: Sequence[str]) -> list[tuple[str, int]]:
    """These labels with the numbers of patients of the answer; of a task in 3D, its label with all numbers."""
    of_2d = data_of(found.task) == "nih"
    counts = [count for count in found.counts(kind) if not of_2d or count in PRIMARY[1]]
    return [(label, count) for label in found.labels(kind) if not of_2d or label in labels for count in counts]


def _table(found: Found, kind: str, columns: Sequence[tuple[str, int]]) -> str:
    title, _, score, _ = TASKS[found.task]
    return table(found, kind, columns, f"**{title}, {KINDS[kind]}**: {score} {HEAD}", with_score=False)


def _less(found: Found, kind: str) -> str:
    """The title of the table of PCRL against each other arm."""
    return f"**{TASKS[found.task].title}, {KINDS[kind]}**: PCRL minus each of the others"


def with_results(page: str, results: str) -> str:
    """The page with these results between its two marks."""
    before, _, rest = page.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n{results}\n{MARKS[1]}{after}"
