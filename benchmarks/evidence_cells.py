"""Running a cell of the evidence: its runs of main.py as processes, and what is kept of them."""

from __future__ import annotations

import base64
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evidence_data import ROOT
from benchmarks.evidence_protocol import START, Cell, Task, data_of, draws_of
from benchmarks.evidence_stats import weighted_auroc
from utils.files import write_text

OF_THE_MACHINE = {"images_per_s", "data_wait", "memory_gb"}
ROWS = 30  # of a pre-training's losses that are kept
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of the linear probe; the best on the validation part is taken


class Unfinished(Exception):
    """The budget ended before the cell did; the next call goes on with it."""


class Failed(Exception):
    """A run ended with an error."""


@dataclass
class Machine:
    """Where things lie and run. ``gpu``: on the first one. ``stop``: asks all runs to save and end."""

    work: Path
    results: Path
    gpu: bool
    amp: str
    stop: threading.Event = field(default_factory=threading.Event)
    running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def folder(self, cell: str, number: int = 0) -> Path:
        """The output of a cell's run."""
        return self.work / "runs" / cell / str(number)

    def weights(self, cell: str) -> Path | None:
        """The last checkpoint of a cell's pre-training that came to its end."""
        found = sorted(self.folder(cell).glob("*_pretask_*.pt"))
        return found[0] if found else None

    def flags(self, run: Sequence[str]) -> list[str]:
        """The flags of a run as they are on this machine."""
        found = []
        for word in run:
            if word.startswith(START):
                path = self.weights(word.removeprefix(START))
                if path is None:
                    raise Failed(f"{word.removeprefix(START)} has left no weights")
                word = str(path)
            found.append(f"{self.work}{word.removeprefix('WORK')}" if word.startswith("WORK/") else word)
        found += ["--gpus", "0" if self.gpu else "", "--workers", "1" if self.gpu else "0"]
        if self.gpu and "--phase" not in run:
            found += ["--augment", "device"]
        return found if "embed" in run else [*found, "--amp", self.amp, "--resume", "auto"]

    def main(self, run: Sequence[str], output: Path) -> None:
        """One run of main.py to its end; nothing if it has come there before. Unfinished, or Failed, if it does not."""
        output.parent.mkdir(parents=True, exist_ok=True)
        begin_or_go_on(run, output)
        if done(run, output):
            return
        command = [sys.executable, str(ROOT / "main.py"), *self.flags(run), "--output", str(output)]
        log = output.with_suffix(".log")
        with open(log, "wb") as file:
            with self.lock:
                if self.stop.is_set():
                    raise Unfinished
                process = subprocess.Popen(
                    command,
                    stdout=file,
                    stderr=file,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                    start_new_session=True,  # a Ctrl-C in the terminal is ours to hand on, once
                )
                self.running.add(process)
            status = process.wait()
            with self.lock:
                self.running.discard(process)
        if status and self.stop.is_set():
            raise Unfinished
        if status:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            raise Failed(f"exit status {status}: {lines[-1] if lines else 'it said nothing'} ({log})")

    def end(self) -> None:
        """Ask all runs to save and end."""
        self.stop.set()
        with self.lock:
            for process in self.running:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)


def begin_or_go_on(run: Sequence[str], output: Path) -> None:
    """Delete what other flags have left in the folder, as after another choice of the search."""
    record, flags = output.with_suffix(".json"), json.dumps(list(run))
    if not record.exists() or record.read_text(encoding="utf-8") != flags:
        shutil.rmtree(output, ignore_errors=True)
        write_text(record, flags)


def done(run: Sequence[str], output: Path) -> bool:
    """Whether a run has come to its end in this folder."""
    last = "features.csv" if "embed" in run else "metrics.json" if "finetune" in run else "*_pretask_*.pt"
    return any(output.glob(last))


def is_kept(cell: Cell, results: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the cell's result is there, of the same runs and, of a probe, of as many draws."""
    kept = results.get(cell.name)
    return (
        kept is not None
        and kept["runs"] == [list(run) for run in cell.runs]
        and kept.get("draws", 0) >= cell.facts.get("draws", 0)
    )


def load_results(folder: Path) -> dict[str, dict[str, Any]]:
    """All results, by the names of their cells; what cannot be read is none."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(value, dict) and "runs" in value:
            found[path.stem] = value
    return found


def compute(cell: Cell, task: Task, machine: Machine) -> dict[str, Any]:
    """Run the cell and keep its result. Unfinished, or Failed, if there is none."""
    begin, outputs = time.monotonic(), [machine.folder(cell.name, number) for number in range(len(cell.runs))]
    for run, output in zip(cell.runs, outputs, strict=True):
        machine.main(run, output)
    result: dict[str, Any] = {"kind": cell.kind, **cell.facts}
    if cell.kind in ("search", "rate"):
        tuned = outputs[1:] if cell.kind == "search" else outputs
        result["valid"] = round(float(np.mean([best_valid(output, task.key) for output in tuned])), 5)
    elif cell.kind == "pretrain":
        result["rows"] = curve(outputs[0])
    elif cell.kind == "probe":
        result["probed"] = probe(outputs[0], machine, task)
    else:
        result["valid"] = round(best_valid(outputs[0], task.key), 5)
        result |= held_out_scores(outputs[0], truth(machine.results, task.name))
    result["device"] = "cuda" if machine.gpu else "cpu"
    result |= {"amp": machine.amp, "minutes": round((time.monotonic() - begin) / 60, 2)}
    result["runs"] = [list(run) for run in cell.runs]
    write_text(machine.results / f"{cell.name}.json", json.dumps(result) + "\n")
    if cell.kind != "pretrain":
        shutil.rmtree(machine.work / "runs" / cell.name)
    return result


def read_rows(output: Path) -> list[dict[str, Any]]:
    """The rows of a run's log."""
    from training.reporting import curves  # late: torch takes seconds to import, and --report needs none

    return curves.read_rows(output / "metrics.jsonl")


def best_valid(output: Path, key: str) -> float:
    """The best score on the validation part, which chose the epoch."""
    return float(max(row[key] for row in read_rows(output) if key in row))


def curve(output: Path) -> list[dict[str, float]]:
    """Some of the rows of a pre-training's log, the first and the last among them."""
    rows = read_rows(output)
    chosen = np.unique(np.linspace(0, len(rows) - 1, ROWS).astype(int))
    return [
        {
            name: float(f"{value:.4g}")
            for name, value in rows[index].items()
            if isinstance(value, int | float) and name not in OF_THE_MACHINE
        }
        for index in chosen
    ]


# What is kept of the test part: the order of its images, so that intervals can be made again --------------------------


def truth(results: Path, task: str) -> dict[str, Any]:
    """The files of a test part, the patient of each (``groups``), and their ``labels``, by name."""
    found: dict[str, Any] = json.loads((results / f"{data_of(task)}_test.json").read_text("utf-8"))
    return found


def packed(scores: np.ndarray) -> str:
    """The ranks of scores (N,), equal ones alike, as text."""
    return base64.b64encode(np.unique(scores, return_inverse=True)[1].astype("<u2").tobytes()).decode("ascii")


def unpacked(text: str) -> np.ndarray:
    """The ranks again."""
    return np.frombuffer(base64.b64decode(text), "<u2").astype(np.int64)


def ranked(true: Mapping[str, Any], scores: np.ndarray) -> dict[str, Any]:
    """AUROC and ranks of each label; ``scores``: (N, labels) in the order of the test part."""
    ones = np.ones((1, len(scores)))
    auroc = {
        name: round(float(weighted_auroc(np.array(true["labels"][name]), scores[:, column], ones)[0]), 5)
        for column, name in enumerate(true["labels"])
    }
    return {"auroc": auroc, "ranks": {name: packed(scores[:, column]) for column, name in enumerate(true["labels"])}}


def held_out_scores(output: Path, true: Mapping[str, Any]) -> dict[str, Any]:
    """What a fine-tuning found on its test part: ranks of the images, or Dice of the volumes."""
    if not true["labels"]:
        by_volume = json.loads((output / "metrics.json").read_text(encoding="utf-8"))["by_volume"]
        return {"dice": [round(float(np.mean(list(by_volume[name].values()))), 5) for name in true["files"]]}
    try:
        with open(output / "predictions.csv", encoding="utf-8", newline="") as file:
            rows = {Path(row.pop("file")).name: row for row in csv.DictReader(file)}
    except OSError:
        raise Failed(f"{output}: the fine-tuning has left no predictions.csv") from None
    return ranked(
        true, np.array([[float(rows[name][key]) for key in classes(rows[name], true)] for name in true["files"]])
    )


def classes(row: Mapping[str, str], true: Mapping[str, Any]) -> list[str]:
    """The columns of the labels in ``predictions.csv``: by name, or the last ones in their order."""
    names = list(true["labels"])
    return names if set(names) <= row.keys() else list(row)[-len(names) :]


def probe(output: Path, machine: Machine, task: Task) -> dict[str, Any]:
    """Logistic regression on the encoder's features, for each number of labelled patients and draw."""
    with open(output / "features.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    features = {Path(row[0]).name: np.array(row[1:], np.float64) for row in rows}
    own, true = machine.work / data_of(task.name), truth(machine.results, task.name)
    parts = {part: _with_labels(own / f"chest_{part}.txt", features) for part in ("valid", "test")}
    found = {}
    for count in task.labels:
        for draw in draws_of(task.name, count):
            x, y = _with_labels(own / f"draw{draw}.txt", features)
            found[f"{count}_{draw}"] = ranked(true, _probed(x[:count], y[:count], *parts["valid"], parts["test"][0]))
    return found


def _with_labels(path: Path, features: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    labels = np.array([[int(word) for word in line[1:]] for line in lines])
    return np.stack([features[line[0]] for line in lines]), labels


def _probed(x: np.ndarray, y: np.ndarray, valid: np.ndarray, true: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Scores (N, labels) of ``test``; the penalty is the best of all on ``valid``, whose labels are ``true``.

    A label that all of the labelled images share, or none has, is scored alike for all.
    """
    from sklearn.linear_model import LogisticRegression

    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, valid, test = ((part - mean) / scale for part in (x, valid, test))
    known = [column for column in range(y.shape[1]) if 0 < y[:, column].sum() < len(y)]
    ones, best, scores = np.ones((1, len(valid))), -np.inf, np.zeros((len(test), y.shape[1]))
    for penalty in PENALTIES:
        models = [LogisticRegression(C=penalty, max_iter=500).fit(x, y[:, column]) for column in known]
        areas = [
            weighted_auroc(true[:, column], model.decision_function(valid), ones)[0]
            for column, model in zip(known, models, strict=True)
        ]
        if models and np.nanmean(areas) > best:
            best = float(np.nanmean(areas))
            scores[:, known] = np.stack([model.decision_function(test) for model in models], axis=1)
    return scores
