"""The page of one run, from what lies in its folder: run.json, metrics.jsonl, metrics.json and pictures.

Checkpoints are not read, so nothing is unpickled, and runs of earlier versions, or of one that was killed, have a page.
"""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from methods.base import Panel
from methods.spec import MethodSpec
from options import telling
from reports.chart import chart
from reports.facts import data_facts, first_weights, is_number, mapping, plain, short
from reports.html import Html, commands, details, joined, linked, page, picture, section, table, tag, tiles
from reports.remarks import remarks
from reports.results import results_table
from training.predict import RESULTS
from training.reporting.curves import Curves, curves, panels, read_rows
from training.reporting.reporter import MEANS, METRICS, PICTURES
from utils import json_text
from utils.console import warn
from utils.errors import UserError, reason
from utils.files import write_text

FILE_NAME = "report.html"
RECORD, VIEWS = "run.json", "views.png"
TEST_PICTURES = {
    "roc.png": "ROC curves of the test part.",
    "cases.png": "The worst and the best volumes of the test part: a slice of each, the label solid, the mask dashed.",
}
PHASES = {
    "pretask": "pre-training",
    "finetune": "fine-tuning",
    "linear": "training of a head",
    "knn": "nearest neighbours",
}
DATA = {"chest": "chest X-rays", "luna": "CT or MR crops", "nodules": "CT crops", "msd": "volumes with masks"}
LIMITS = (
    "A starting point for training, not a finished tool. Nothing here was validated for diagnosis, and nothing here is "
    "a medical device. The features follow the modality, body part, scanners and patients of the training images."
)
LICENCE = "The code: MIT. The weights: what the terms of the training images allow is for you to find out."
SCORES = {"mean_auroc": "mean AUROC, test part", "mean_dice": "mean Dice, test part", "mae": "mean error, test part"}


@dataclass(frozen=True)
class Run:
    """What a folder tells. ``record``: run.json. ``rows``: of metrics.jsonl. ``results``: metrics.json."""

    folder: Path
    record: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    results: Mapping[str, Any]

    @property
    def options(self) -> Mapping[str, Any]:
        return mapping(self.record.get("options"))

    @property
    def phase(self) -> str:
        """Of nearest neighbours, which are no run, the results alone tell it."""
        return str(self.options.get("phase") or self.results.get("phase") or "pretask")

    def name(self, spec: MethodSpec | None) -> str:
        """What it is, for people; ``spec``: of its method, None of one that is not known."""
        phase, n = self.phase, str(self.options.get("n") or self.results.get("task") or "")
        method = spec.title if spec else Path(str(self.options.get("model", "pcrl"))).stem
        words = f"{method} pre-training" if phase == "pretask" else PHASES.get(phase, phase)
        return f"{words[:1].upper()}{words[1:]} on {DATA.get(n, n or 'images')}"

    def pictures(self) -> list[Path]:
        """Of the reconstructions, in the order in which they were drawn; not those of a former run in the folder."""
        found = [path for path in (self.folder / PICTURES).glob("*.png") if not path.name.startswith(".")]
        return sorted(filter(self.is_own, found), key=lambda path: (self._step_of(path), path.name))

    def is_own(self, path: Path) -> bool:
        """Whether a file is there, and is not of a former run in the folder."""
        try:
            return path.stat().st_mtime >= self.started
        except OSError:
            return False

    def _step_of(self, path: Path) -> int:
        """When a picture was drawn; times of files say nothing of that in a copy of the folder."""
        unit, _, number = epoch_or_step(path).rpartition(" ")
        if unit == "epoch":
            return max((row["step"] for row in self.rows if row.get("epoch") == int(number)), default=sys.maxsize)
        return int(number) if unit else 0

    @property
    def started(self) -> float:
        """In seconds since 1970; 0 if it is not known."""
        try:
            return datetime.fromisoformat(str(self.record.get("started"))).timestamp()
        except ValueError:
            return 0.0


def _json(path: Path) -> Mapping[str, Any]:
    """What the file says; nothing if it is not there, and with a warning if it cannot be read."""
    if not path.exists():
        return {}
    try:
        return mapping(json_text.parse(path.read_text(encoding="utf-8", errors="replace")))
    except (OSError, ValueError):
        warn(f"{path} cannot be read; the page is made without it")
        return {}


def read_run(folder: Path) -> Run:
    """What the folder of a run holds; UserError if it is none."""
    if not folder.is_dir():
        what = "this is not a folder" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {what}; give the --output of a run")
    rows = []
    if (folder / METRICS).is_file():
        rows = [row for row in read_rows(folder / METRICS) if isinstance(row, dict) and is_number(row.get("step"))]
    run = Run(folder, _json(folder / RECORD), rows, _json(folder / RESULTS))
    if not (run.record or run.rows or run.results):
        raise UserError(f"{folder}: it holds no run (neither {RECORD} nor {METRICS}); give the --output of a run")
    return run


def known_curves(run: Run) -> Curves:
    """All curves of a run."""
    return {name: lines for name, lines in curves(run.rows).items() if any(math.isfinite(v) for v in lines[1])}


def curve_figures(run: Run, of_method: Sequence[Panel], first: int | None = None) -> Html:
    """The panels of a run's curves; ``first``: so many of them."""
    found = known_curves(run)
    shown = [chart(panel, {name: found[name] for name in names}) for panel, names in panels(found, of_method)]
    figures = [figure for figure in shown if figure][:first]
    return tag("div", joined(figures), class_="grid") if figures else Html("")


def _last(run: Run, name: str) -> Any:
    """The last mean of an epoch, else the last value; None if there is none."""
    for row in reversed(run.rows):
        mean = mapping(row.get(MEANS)).get(name)
        if is_number(mean):
            return mean
    return next((row[name] for row in reversed(run.rows) if is_number(row.get(name))), None)


def key_figures(run: Run, spec: MethodSpec | None) -> Html:
    """What one looks for first."""
    epoch, step = (max((row.get(name, 0) for row in run.rows), default=0) for name in ("epoch", "step"))
    asked = run.options.get("epochs")
    values = {"epochs": f"{epoch} of {asked}" if asked else short(epoch), "steps": f"{step:,}" if step else ""}
    for name in ("loss", *(spec.headline if spec else ())):
        values[f"{name}, last epoch"] = short(_last(run, name))
    for name in sorted({name for row in run.rows for name in row if "probe" in name and "/" not in name}):
        values[name.replace("_", " ")] = short(_last(run, name))
    for name, words in SCORES.items():
        values[words] = short(run.results.get(name))
    values["images a second"] = short(_last(run, "images_per_s"))
    return tiles(values)


def epoch_or_step(path: Path) -> str:
    """``epoch 12`` of ``epoch_0012.png``."""
    match = re.fullmatch(r"(epoch|step)_0*(\d+)", path.stem)
    return f"{match[1]} {match[2]}" if match else path.stem


def reconstruction_figures(run: Run, spec: MethodSpec | None) -> Html:
    """The first and the last picture, side by side."""
    found = run.pictures()
    chosen = found if len(found) < 2 else [found[0], found[-1]]
    figures = [picture(path, f"After {epoch_or_step(path)}.") for path in chosen]
    if not any(figures):
        return Html("")
    words = [tag("p", spec.pictures, class_="dim")] if spec and spec.pictures else []
    return joined([*words, tag("div", joined(figures), class_="grid two")])


def test_pictures(run: Run) -> Html:
    """ROC curves of the test part, or its best and worst volumes."""
    figures = [
        picture(run.folder / name, words) for name, words in TEST_PICTURES.items() if run.is_own(run.folder / name)
    ]
    return tag("div", joined(figures), class_="grid two") if any(figures) else Html("")


def _command(run: Run) -> Html:
    words = run.record.get("command")
    if not isinstance(words, list) or not words:
        return Html("")
    return commands(f"python {shlex.join(map(str, words))}")


def machine_table(run: Run) -> Html:
    """When, where and with what it ran."""
    machine, versions = mapping(run.record.get("machine")), mapping(run.record.get("versions"))
    resumed = run.record.get("resumed")
    rows = {
        "started": run.record.get("started"),
        "resumed": plain(resumed) if resumed else None,
        "device": str(run.record.get("device", "")).removeprefix("device: "),
        "precision": run.record.get("precision"),
        "processes": run.record.get("world_size"),
        "machine": plain(machine),
        "commit": run.record.get("commit"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return table({name: value for name, value in rows.items() if value})


def card(run: Run, spec: MethodSpec | None) -> Html:
    """The model card: what its weights are, and are not."""
    options, data = run.options, mapping(run.record.get("data"))
    network = [f"{name} {options[name]}" for name in ("backbone", "norm", "narrow", "inchannel") if options.get(name)]
    rows = {
        "what": run.name(spec),
        "network": ", ".join(network),
        "trained on": f"{data['samples']} samples" if data.get("samples") else "",
        "weights at the start": first_weights(data, options),
        "limits": LIMITS,
        "licence": LICENCE,
        "method": spec.citation if spec else "",
    }
    return joined([table({name: value for name, value in rows.items() if value}), next_steps(run)])


def next_steps(run: Run) -> Html:
    """Commands that go on with what this run has learnt."""
    options, phase = run.options, run.options.get("phase", "pretask")
    last, best = (shlex.quote(str(run.folder / name)) for name in ("last.pt", "best.pt"))
    steps = {}
    if phase in ("finetune", "linear"):
        steps["Apply it to new images (docs/PREDICT.md):"] = (
            f"python main.py --phase predict --weight {best} --data NEW_IMAGES --output predicted"
        )
    if phase == "pretask" and options.get("n") == "chest":
        steps["Fine-tune it on labels (docs/LABELS.md), a table with names of images and columns of labels:"] = (
            f"python main.py --phase finetune --n chest --weight {last} --data FOLDER --train_list TABLE.csv "
            "--split 70,10,20 --ratio 1.0 --output finetuned"
        )
    if options.get("narrow", 1) == 1:
        told = best if phase in ("finetune", "linear") else last  # the results are those of the best epoch
        export = f"python export.py --checkpoint {told} --save weights"
        steps["Weights for other libraries, with a card of their own (docs/EXPORT.md):"] = export
    else:
        steps[
            f"A network of --narrow {options['narrow']} is for trying things out; other libraries have no such one."
        ] = ""
    pairs = ((tag("p", linked(words, run.folder)), commands(command)) for words, command in steps.items())
    return joined(part for pair in pairs for part in pair)


def in_words(run: Run) -> Html:
    """What the curves of a pre-training say."""
    said = remarks(run.rows) if run.options.get("phase", "pretask") == "pretask" else []
    return tag("p", linked(" ".join(said), run.folder)) if said else Html("")


def run_sections(run: Run, of_method: Sequence[Panel], spec: MethodSpec | None) -> list[Html]:
    """All sections of a run's page."""
    options = {name: value for name, value in telling(run.options).items() if value not in ("", None)}
    return [
        section("Results", results_table(run.results), test_pictures(run)),
        section("Curves", in_words(run), curve_figures(run, of_method)),
        section("Reconstructions", reconstruction_figures(run, spec)),
        section("Views", picture(run.folder / VIEWS, "What pre-training sees of the first samples.")),
        section("Data", table(data_facts(mapping(run.record.get("data")), run.options))),
        section("Run", _command(run), machine_table(run), details("All options", table(options))),
        section("Model card", card(run, spec)) if run.options else Html(""),
    ]


def write_report(folder: Path, of_method: Sequence[Panel] = (), spec: MethodSpec | None = None) -> Path:
    """Write ``report.html`` into the folder of a run; -> its path. UserError if there is no run, or no room.

    ``of_method``: the panels of its curves. ``spec``: what its method says of itself, None where it is not known.
    """
    run = read_run(folder)
    name = run.name(spec)
    head = [tag("h1", name), tag("p", f"{folder}", class_="dim"), key_figures(run, spec)]
    path = folder / FILE_NAME
    try:
        write_text(path, page(f"{name}: {folder.name}", *head, *run_sections(run, of_method, spec)))
    except OSError as error:
        raise UserError(f"{path} cannot be written ({reason(error)})") from None
    return path
