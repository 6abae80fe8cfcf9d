"""The page of a fine-tuning: its figures as the terminal prints them, its pictures, and its data in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reports.of_run import report_on
from tests.reports.test_run_page import checked

WEIGHT = {
    "opt": {"model": "pcrl", "phase": "pretask", "train_list": ""},
    "run": {"samples": 60, "list_sha256": "3e4242", "resumed": [], "recipes": [{"hu": [-1000, 1000]}]},
    "epoch": 6,
    "step": 0,
    "file": "last.pt",
}


def page_of(folder: Path, results: dict[str, Any], data: dict[str, Any]) -> str:
    """The words of the page, with one space between cells."""
    options = {"phase": "finetune", "n": "chest", "data": "images", "weight": "/a/my_run/last.pt"}
    (folder / "run.json").write_text(json.dumps({"options": options, "data": {"list_sha256": "ab12", **data}}))
    (folder / "metrics.json").write_text(json.dumps(results))
    parser = checked(report_on(folder))
    return " ".join(" ".join(parser.words).split())


def test_nearest_neighbours_are_called_so(tmp_path: Path) -> None:
    """They are no run, and leave no run.json."""
    (tmp_path / "metrics.json").write_text(json.dumps({"phase": "knn", "task": "chest", "mean_auroc": 0.7}))
    words = " ".join(checked(report_on(tmp_path)).words)
    assert "Nearest neighbours on chest X-rays" in words
    for untrue in ("PCRL", "random values", "export.py"):
        assert untrue not in words


def test_classes_are_one_table_and_those_without_a_figure_a_line(tmp_path: Path) -> None:
    span = [0.09351563081145287, 0.12034366652369499]
    results = {
        "images": 128,
        "mean_auroc": 0.7102919357,
        "balanced_accuracy": 0.4,
        "auroc": {"Mass": 0.74067796, "Nodule": 0.5},
        "skipped": {"Edema": "no positives", "Hernia": "no positives", "Fibrosis": "no negatives"},
        "positives": {"Mass": 10, "Nodule": 70, "Edema": 0, "Hernia": 0, "Fibrosis": 128},
        "intervals": {
            "how": "95 %, bootstrap",
            "mean_auroc": span,
            "balanced_accuracy": [0, 1],
            "auroc": {"Mass": span},
        },
    }
    words = page_of(tmp_path, results, {"classes": ["Mass", "Nodule"], "windows": [], "weight": WEIGHT})
    for told in (
        "class positives AUROC 95 % interval Mass 10 0.7407 0.094 .. 0.120 Nodule 70 0.5000 mean of 2 classes 0.7103 "
        "0.094 .. 0.120 balanced accuracy 0.4000 0.000 .. 1.000 No positives: Edema, Hernia. No negatives: Fibrosis.",
        "classes Mass, Nodule",
        "weights at the start my_run/last.pt, 6 epochs on 60 samples",
    ):
        assert told in words, told
    for wrong in ("sha256", "Mass x", "opt model", "skipped", "0.0935", "[0"):
        assert wrong not in words, wrong


def test_dice_and_its_spread_are_one_table_and_sizes_and_windows_are_told_apart(tmp_path: Path) -> None:
    results = {
        "mean_dice": 0.05281571,
        "dice": {"front": 0.10563142, "mean": 0.05281571},
        "sd": {"front": 0.01448631, "mean": 0.00724315},
        "intervals": {"how": "95 %, bootstrap", "mean_dice": [0.04, 0.06], "dice": {"front": [0.09, 0.12]}},
        "by_volume": {"case_6": {"front": 0.128925}},
    }
    recipe = {"spacing_mm": [1.0, 1.5, 2.0], "windows": [[-1000, 400], None], "percentiles": [0.5, 99.5]}
    words = page_of(tmp_path, results, {"shape": [32, 32, 16], "list": "", "segmentation": recipe})
    for told in (
        "class Dice sd 95 % interval front 0.1056 0.0145 0.090 .. 0.120 mean 0.0528 0.0072 0.040 .. 0.060",
        "case_6 0.1289",
        "shape 32 x 32 x 16 spacing 1 x 1.5 x 2 mm windows -1000 .. 400 percentiles 0.5 .. 99.5",
    ):
        assert told in words, told
    assert "None" not in words


def test_pictures_of_the_test_part_are_on_the_page_and_it_stays_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8)
    for name in ("roc.png", "cases.png"):
        Image.fromarray(noise).save(tmp_path / name)
    assert "ROC curves of the test part." in page_of(tmp_path, {"mean_auroc": 0.5}, {})
    assert (tmp_path / "report.html").read_text().count("<img") == 2
    assert (tmp_path / "report.html").stat().st_size < 3_000_000
