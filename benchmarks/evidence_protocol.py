"""The protocol of docs/EVIDENCE.md as cells: what is run, in which order, and what each waits for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.evidence_data import VOLUMES_LABELLED

DRAWS = (0, 1, 2, 3, 4)
MORE_DRAWS = range(20)
DECIDING = {"nih": (50, 100)}  # the numbers of labels of the answer
MORE_OF = DECIDING | {"nodules": (5,), "hippocampus": (5,)}  # those of which there are more draws
SEARCH_DRAWS = (100, 101)  # of labels: the choices are made with others than the results
ALL_DRAWS = (*MORE_DRAWS, *SEARCH_DRAWS)
RATES = ("1e-4", "3e-4", "1e-3", "3e-3", "1e-2")  # of fine-tuning, AdamW: every arm tries all
SEARCH_RATE = RATES[1]  # where pre-trainings are compared
COMMON_RATE = RATES[2]  # of the second comparison, with one rate for all: the one that random values chose
Candidate = Mapping[str, str]  # flags of a pre-training, without their dashes
CANDIDATES: tuple[Candidate, ...] = (
    {"optimizer": "sgd", "lr": "3e-2", "moco_k": "16384"},
    {"optimizer": "sgd", "lr": "1e-1", "moco_k": "16384"},
    {"optimizer": "adamw", "lr": "1e-3", "moco_k": "16384"},
    {"optimizer": "adamw", "lr": "1e-3", "moco_k": "2048"},
)
CANDIDATES_3D: tuple[Candidate, ...] = tuple(
    {**each, "lr": "3e-4"} if each["optimizer"] == "adamw" else each for each in CANDIDATES
)
QUIET = ("--image_every", "0", "--log_every", "50", "--save_every", "100000", "--save_minutes", "2")
START = "START:"  # before the name of a cell: its weights


@dataclass(frozen=True)
class Arm:
    """What a network starts from. ``seeds``: of its pre-training, empty without one. ``weight``: of one without."""

    words: str
    flags: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    has_queue: bool = True
    weight: str = ""
    dims: tuple[int, ...] = (2, 3)


ARMS = {
    "random": Arm("random values", seeds=()),
    "pcrl": Arm("PCRL", seeds=(0, 1, 2)),
    "no_reconstruction": Arm("PCRL without reconstruction", ("--without", "reconstruction")),
    "no_contrast": Arm("PCRL without contrast", ("--without", "contrast"), has_queue=False),
    "no_mixup": Arm("PCRL without mixup", ("--without", "mixup")),
    "no_gate": Arm("PCRL without gate", ("--without", "gate")),
    "pcrlv2": Arm("PCRLv2", ("--model", "pcrlv2", "--weight", "none"), has_queue=False, dims=(2,)),
    "imagenet": Arm("ImageNet", seeds=(), weight="imagenet", dims=(2,)),
}


@dataclass(frozen=True)
class Task:
    """``labels``: how many are labelled. ``images``: to pre-train on. ``pretraining``: its flags but for its length.

    ``finetuning``: flags of (labels, draw). ``key``: the column of metrics.jsonl that chooses. ``searched``: the labels
    of the search. ``steps``, ``search_steps``, ``batch``: of pre-training. ``probe``: flags of ``--phase embed``.
    """

    name: str
    dims: int
    labels: tuple[int, ...]
    images: int
    pretraining: tuple[str, ...]
    finetuning: Callable[[int, int], tuple[str, ...]]
    key: str
    searched: int
    steps: int
    search_steps: int
    batch: int
    probe: tuple[str, ...] = ()
    more: tuple[str, ...] = ()  # flags of all runs


@dataclass(frozen=True)
class Cell:
    """One result. ``runs``: of main.py, one after the other; empty as long as what they depend on is not chosen.

    ``facts`` go into its file. ``needs``: cells that must have results; ``start``: the one whose weights are needed.
    """

    name: str
    kind: str
    task: str
    runs: tuple[tuple[str, ...], ...]
    needs: tuple[str, ...] = ()
    start: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


Results = Mapping[str, Mapping[str, Any]]  # by the cell's name


def epochs_for(steps: int, images: int, batch: int) -> int:
    """The epochs, of all images each, that come nearest to so many steps."""
    return max(1, round(steps / -(-images // batch)))


def candidates(task: Task, arm: Arm) -> list[dict[str, str]]:
    """What the arm's search tries: the same for all, less what would be the same run twice."""
    found: list[dict[str, str]] = []
    for each in CANDIDATES if task.dims == 2 else CANDIDATES_3D:
        tried = {name: value for name, value in each.items() if arm.has_queue or name != "moco_k"}
        found += [tried] if tried not in found else []
    return found


def pretrain_run(task: Task, arm: Arm, chosen: Candidate, steps: int, seed: int) -> tuple[str, ...]:
    """The flags of a pre-training of this length."""
    settings = [word for name, value in chosen.items() for word in (f"--{name}", value)]
    epochs = epochs_for(steps, task.images, task.batch)
    warm_up = ("--warmup_epochs", "2") if epochs > 4 else ()
    length = ("--b", str(task.batch), "--epochs", str(epochs), *warm_up, "--ratio", "1.0", "--seed", str(seed))
    return (*task.pretraining, *task.more, *length, *settings, *QUIET, *arm.flags)


def tune_run(task: Task, labels: int, draw: int, rate: str, weight: str) -> tuple[str, ...]:
    """The flags of a fine-tuning; ``weight`` empty: from random values, which the draw seeds."""
    start = ("--weight", weight) if weight else ()
    flags = ("--phase", "finetune", *task.finetuning(labels, draw), *task.more, "--optimizer", "adamw", "--lr", rate)
    return (*flags, "--seed", str(draw), "--log_every", "50", *start)


def best(results: Results, names: Sequence[str]) -> int | None:
    """Which of the cells did best on the validation part; the first of equals. None: not all are there."""
    if not all(name in results for name in names):
        return None
    return max(range(len(names)), key=lambda index: float(results[names[index]]["valid"]))


def rate_cells(task: str, arm: str) -> list[str]:
    """The names of the cells in which an arm tries the learning rates of fine-tuning, in the order of RATES."""
    return [f"{task}_{arm}_rate{index}" for index in range(len(RATES))]


def has_arm(task: Task, arm: Arm) -> bool:
    """Whether the arm is among the task's: weights of others fit networks of the full width alone."""
    return task.dims in arm.dims and not (arm.weight and task.more)


def data_of(task: str) -> str:
    """The data of a task, which its forms for a processor share."""
    return re.sub(r"(_short)?(_small\d)?$", "", task)


def draws_of(task: str, labels: int) -> Sequence[int]:
    """The draws of so many labels."""
    return MORE_DRAWS if labels in MORE_OF.get(data_of(task), ()) else DRAWS


def plan(tasks: Sequence[Task], arms: Sequence[str], results: Results) -> list[Cell]:
    """All cells, those that answer most first: of seed 0 the first draws of labels of every arm, then all of them.

    The comparison at one learning rate for all comes last.
    """
    cells: dict[str, Cell] = {}
    seeds = sorted({seed for name in arms for seed in ARMS[name].seeds or (0,)})
    for seed in seeds:
        for task in tasks:
            for name in arms:
                arm = ARMS[name]
                if seed in (arm.seeds or (0,)) and has_arm(task, arm):
                    cells |= {cell.name: cell for cell in cells_of(task, name, seed, results)}
    return sorted(
        cells.values(),
        key=lambda cell: (cell.kind == "common", cell.facts.get("seed", 0), cell.facts.get("draw", 0) > DRAWS[-1]),
    )


def cells_of(task: Task, name: str, seed: int, results: Results) -> Iterator[Cell]:
    """The cells of one arm and seed: search, pre-training, learning rate of fine-tuning, and the results."""
    arm, known = ARMS[name], f"{task.name}_{name}"
    whose = {"task": task.name, "arm": name}
    start, weight = "", arm.weight
    if arm.seeds:
        tried = candidates(task, arm)
        searches = [f"{known}_search{index}" for index in range(len(tried))]
        for search, each in zip(searches, tried, strict=True):
            first = pretrain_run(task, arm, each, task.search_steps, 0)
            judged = [tune_run(task, task.searched, draw, SEARCH_RATE, START + search) for draw in SEARCH_DRAWS]
            yield Cell(search, "search", task.name, (first, *judged), facts={**whose, "tried": each})
        chosen = best(results, searches)
        start = f"{known}_pretrain_seed{seed}"
        runs = [] if chosen is None else [pretrain_run(task, arm, tried[chosen], task.steps, seed)]
        yield Cell(start, "pretrain", task.name, tuple(runs), tuple(searches), facts={**whose, "seed": seed})
        weight = START + start
    yield from _results_of(task, whose, seed, start, weight, results)


def _results_of(
    task: Task, whose: Mapping[str, Any], seed: int, start: str, weight: str, results: Results
) -> Iterator[Cell]:
    """The cells that follow a pre-training, if there is one."""
    known, name, arm = f"{task.name}_{whose['arm']}", task.name, ARMS[whose["arm"]]
    if task.probe:
        for drawn in (seed,) if arm.seeds or arm.weight else (0, 1, 2):  # of random values, as for PCRL
            flags = (*task.probe, *task.more, "--seed", str(drawn), *(("--weight", weight) if weight else ()))
            needs = (start,) if start else ()
            facts = {**whose, "seed": drawn, "draws": max(len(draws_of(name, count)) for count in task.labels)}
            yield Cell(f"{known}_probe_seed{drawn}", "probe", name, (flags,), needs, start, facts)
    rates = rate_cells(name, whose["arm"])
    of_seed_0 = f"{known}_pretrain_seed0" if start else ""
    first = START + of_seed_0 if start else weight
    for rate, value in zip(rates, RATES, strict=True):
        judged = tuple(tune_run(task, task.searched, draw, value, first) for draw in SEARCH_DRAWS)
        needs = (of_seed_0,) if start else ()
        yield Cell(rate, "rate", name, judged, needs, of_seed_0, {**whose, "tried": {"lr": value}})
    chosen = best(results, rates)
    for labels in sorted(task.labels, key=lambda count: (count not in (50, 100), count)):
        for draw in draws_of(name, labels):
            runs = [] if chosen is None else [tune_run(task, labels, draw, RATES[chosen], weight)]
            facts = {**whose, "seed": seed, "labels": labels, "draw": draw}
            waits = tuple(cell for cell in (*rates, start) if cell)
            which = f"labels{labels}_draw{draw}_seed{seed}"
            yield Cell(f"{known}_{which}", "finetune", name, tuple(runs), waits, start, facts)
            if labels in DECIDING.get(data_of(name), ()) and (chosen is None or RATES[chosen] != COMMON_RATE):
                runs = [] if chosen is None else [tune_run(task, labels, draw, COMMON_RATE, weight)]
                yield Cell(f"{known}_common_{which}", "common", name, tuple(runs), waits, start, facts)


# Tasks: what their flags are, once the data are there ---------------------------------------------------------------


def counted_in(own: Path, suffix: str = "") -> tuple[int, ...]:
    """How many can be labelled, by what the preparation has left."""
    names = (path.name.removesuffix("_draw0" + suffix) for path in own.glob("labelled*_draw0" + suffix))
    return tuple(sorted(int(name.removeprefix("labelled")) for name in names))


def lines_of(path: Path) -> int:
    """How many lines a list has."""
    return len(path.read_text(encoding="utf-8").splitlines())


def named(task: str, narrow: int) -> str:
    """The name of a task whose networks have a part of the channels: its results stand by themselves."""
    return task if narrow == 1 else f"{task}_small{narrow}"


def narrowed(narrow: int) -> tuple[str, ...]:
    """The flags of all runs of such a task."""
    return ("--narrow", str(narrow)) if narrow > 1 else ()


def nih(work: Path, steps: int = 5000, search_steps: int = 1000, tuning: int = 300, narrow: int = 1) -> Task:
    """Sex and findings on NIH X-rays at 64 x 64, by labelled patients, an image each.

    ``narrow``: a part of the channels alone, for processors; that is a task of its own.
    """
    own, data = work / "nih", ("--n", "chest", "--size", "64", "--data", "WORK/nih")
    labels = counted_in(own, ".txt")

    def finetuning(count: int, draw: int) -> tuple[str, ...]:
        epochs = epochs_for(tuning, count, 16)
        of = ("--train_list", f"WORK/nih/labelled{count}_draw{draw}.txt", "--ratio", "1.0")
        return (*data, *of, "--b", "16", "--epochs", str(epochs), "--val_every", str(max(1, epochs // 10)))

    return Task(
        named("nih", narrow),
        2,
        labels,
        images=(images := lines_of(own / "chest_train.txt")),
        pretraining=(*data, "--train_list", "WORK/nih/chest_train.txt"),
        finetuning=finetuning,
        key="val_auroc",
        searched=labels[-2:][0],
        steps=steps,
        search_steps=search_steps,
        batch=min(64, images),
        probe=("--phase", "embed", *data, "--train_list", "WORK/nih/all.txt", "--b", "64"),
        more=narrowed(narrow),
    )


def nodules(work: Path, on_gpu: bool, narrow: int = 1) -> Task:
    """Nodule or not in crops of phantoms, by labelled scans. ``narrow``: as for the X-rays."""
    own = work / "nodules"
    scans = counted_in(own)

    def finetuning(labels: int, draw: int) -> tuple[str, ...]:
        folder = own / f"labelled{labels}_draw{draw}"
        rows = (folder / "labels.csv").read_text(encoding="utf-8").splitlines()
        header = rows[0].split(",")
        subset, label = header.index("subset"), header.index("label")
        kinds = [row.split(",")[label] for row in rows[1:] if row.split(",")[subset] == "0"]
        epochs = epochs_for(300, 2 * min(kinds.count("0"), kinds.count("1")), 8)
        of = ("--n", "nodules", "--data", f"WORK/nodules/{folder.name}", "--ratio", "1.0", "--b", "8")
        return (*of, "--epochs", str(epochs), "--val_every", str(max(1, epochs // 10)))

    searched = scans[-2:][0]
    return _in_3d("nodules", own, scans, finetuning, "val_auroc", searched, on_gpu, narrow)


def hippocampus(work: Path, on_gpu: bool, narrow: int = 1) -> Task:
    """Segmentation of the hippocampus, by labelled volumes: the first in the order of --seed, the draw."""

    def finetuning(labels: int, draw: int) -> tuple[str, ...]:
        epochs = 180 * 2 // (labels * max(1, 10 // labels))
        cases = ("--split", "WORK/hippocampus/split.json", "--train_cases", str(labels))
        patches = ("--patch", "32,32,16", "--patches", str(max(1, 10 // labels)), "--spacing_mm", "1.5,1.5,1.5")
        of = ("--n", "msd", "--data", "WORK/hippocampus/labelled", *cases, *patches, "--b", "2")
        return (*of, "--epochs", str(epochs), "--val_every", str(max(1, epochs // 3)))

    return _in_3d("hippocampus", work / "hippocampus", VOLUMES_LABELLED, finetuning, "val_dice", 20, on_gpu, narrow)


def _in_3d(
    data: str,
    own: Path,
    labels: tuple[int, ...],
    finetuning: Callable[[int, int], tuple[str, ...]],
    key: str,
    searched: int,
    on_gpu: bool,
    narrow: int,
) -> Task:
    """``on_gpu``: 3,000 steps of batch 16 of pre-training, else 1,500 of batch 8; a fifth of them in the search."""
    name = named(data if on_gpu else f"{data}_short", narrow)
    images = sum(1 for _ in (own / "pairs").glob("subset*/*_img_*.npy"))
    steps, batch = (3000, 16) if on_gpu else (1500, 8)
    return Task(
        name,
        3,
        labels,
        images,
        pretraining=("--n", "luna", "--data", f"WORK/{data}/pairs"),
        finetuning=finetuning,
        key=key,
        searched=searched,
        steps=steps,
        search_steps=steps // 5,
        batch=batch,
        more=narrowed(narrow),
    )
