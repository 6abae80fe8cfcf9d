"""The page of ``scripts/demo.sh``: what it made and learnt, in the order in which it did."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from PIL import Image

from datasets.ct.itk import read_file
from datasets.xray.lists import CHEST14_LABELS, read_list
from reports.facts import short
from reports.html import Html, commands, image_tag, joined, linked, page, picture, section, table, tag, text, tiles
from reports.of_run import panels_of, spec_of
from reports.run_page import FILE_NAME, Run, curve_figures, read_run, reconstruction_figures
from training.reporting.reporter import MEANS
from utils.errors import UserError, reason
from utils.files import write_text
from utils.image_grid import Picture, draw_sheet, middle_slices, upright

PARTS = ("chest", "luna", "knn_before", "knn_after", "finetuned", "scratch")
XRAYS, SHEET, SLICES = 6, "phantoms.png", "slices.png"
CURVES, LIKELIEST = 3, 3  # shown of a run, and of an image
TITLE = "PCRL: a demo on phantoms"
INTRODUCTION = (
    "This demo trains for a few minutes on two CPU cores; a real pre-training takes hours on a GPU. The demo shows "
    "that the steps work. It does not show how much pre-training helps: docs/EVIDENCE.md has measurements."
)
LEARNT = "No label was used. The mean error of the reconstruction went from {} in the first epoch to {} in the last."
PHANTOMS = (
    "All images of this demo are computer-generated: bodies, lungs, vessels, ribs and findings are drawn at random, "
    "and X-rays or CT scans of them are simulated. The labels are exact, and no image shows a real patient."
)
VIEWS = (
    "Crops of X-rays, and the two views that are made of each: rotated a little, brighter or darker, with holes. A "
    "target is its view, turned or flipped on purpose, holes and all: the network is told how, and has to follow."
)
LEARNS = (
    "The reconstructions are at the top of this page. The contrast first rises, while its queue fills with real keys, "
    "and needs a longer run to fall."
)
BRIEF = (
    "The same in 3D, for a few steps only: the curves have just begun, and the reconstructions are still poor. The "
    "pictures are arranged as those in 2D."
)
NEIGHBOURS = (
    "Each X-ray of the test part gets the labels of its nearest training X-rays, by the encoder's features. Nothing "
    "was trained on labels. An untrained network tells something, too, of what changes the brightness of large parts, "
    "as a wide heart does. In so short a pre-training these scores fall more often than they rise (benchmarks/LOG.md). "
    "The paper's runs take 290,000 steps."
)
AUROC = "AUROC: 0.5 is chance, 1 is perfect; in brackets the 95 % interval over test patients."
TUNED = (
    "Then the same network was trained for a few epochs on the training images with their labels, once from the "
    "pre-trained weights and once from random values. Where the intervals overlap, this demo does not decide which "
    "start is better. "
) + AUROC
PREDICTED = "Two X-rays without their labels, and what the fine-tuned network says of them."
BYTE, HU = (0.0, 255.0), (-1000.0, 400.0)
GO_ON = (
    "source .venv/bin/activate  # in each new terminal",
    "python main.py --data my_xrays --n chest --train_list none --ratio 1.0 --output my_run --report",
    "python preprocess/luna_pre.py --data my_scans --save my_pairs --preview 6",
    "python main.py --data my_pairs --n luna --ratio 1.0 --output my_3d_run --report",
)


def _findings(folder: Path) -> dict[str, str]:
    """The findings of each X-ray of the lists, by its name."""
    found = {}
    for part in ("train", "valid", "test"):
        listed = read_list(folder / f"chest_{part}.txt")
        labels = listed.labels if listed.labels is not None else [()] * len(listed.names)
        for name, given in zip(listed.names, labels, strict=True):
            words = [word for word, label in zip(CHEST14_LABELS, given, strict=False) if label]
            found[name] = ", ".join(words) or "no finding"
    return found


def draw_phantoms(folder: Path) -> None:
    """Sheets of X-rays with their findings, and of slices of a scan, beside the phantoms."""
    xrays, findings = folder / "phantoms" / "Chest14", _findings(folder / "phantoms" / "Chest14")
    names = sorted(findings, key=lambda name: (name.rpartition("_")[2], name))[:XRAYS]  # each of another patient
    row = []
    for name in names:
        with Image.open(xrays / "images" / name) as image:
            row.append(Picture(np.asarray(image.convert("L")), title=findings[name].replace(", ", "\n")))
    draw_sheet([row[: XRAYS // 2], row[XRAYS // 2 :]], BYTE, "", folder / SHEET)
    scan = read_file(sorted((folder / "phantoms" / "LUNA16").glob("subset*/*.mhd"))[0])
    voxels, spacing = sitk.GetArrayViewFromImage(scan).T.astype(np.float32), np.array(scan.GetSpacing())
    volume, voxel_mm = upright(voxels, spacing, np.reshape(scan.GetDirection(), (3, 3)))
    slices = [replace(each, title=name) for name, each in middle_slices(volume, voxel_mm).items()]
    draw_sheet([slices], HU, "", folder / SLICES)


def compared(first: Run, second: Run, head: Sequence[str]) -> Html:
    """AUROC of each finding, and their mean, of two runs, with intervals; ``head``: what the runs are."""
    runs = [run.results for run in (first, second)]
    names = runs[1].get("auroc", {})
    rows = [[name, *(auroc(results, name) for results in runs)] for name in names]
    mean = ["mean", *(auroc(results) for results in runs)]
    return table([*rows, mean], ["finding", *head])


def auroc(results: Mapping[str, Any], finding: str = "") -> str:
    """``0.71 (0.62 .. 0.79)``: of a finding, or the mean, from a run's metrics.json."""
    value, spans = results.get("mean_auroc"), results.get("intervals", {})
    span = spans.get("mean_auroc")
    if finding:
        value, span = results.get("auroc", {}).get(finding), spans.get("auroc", {}).get(finding)
    if value is None:
        return ""
    return f"{value:.2f} ({span[0]:.2f} .. {span[1]:.2f})" if span else f"{value:.2f}"


def predictions_table(path: Path, images: Path, findings: Mapping[str, str]) -> Html:
    """Each image of ``predictions.csv``, its likeliest findings, and those that were put into the phantom.

    ``images``: the folder of the images.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file)
    except (OSError, ValueError):
        return Html("")
    rows = []
    for name, *values in lines:
        known = zip(header[1:], values, strict=False)
        scores = sorted(((float(value), key) for key, value in known if value), reverse=True)[:LIKELIEST]
        told = ", ".join(f"{key} {score:.2f}" for score, key in scores)
        seen = joined([image_tag(images / Path(name).name, name), text(name)])
        rows.append([seen, told, findings.get(Path(name).name, "")])
    return table(rows, ["X-ray", "likeliest findings", "put into the phantom"])


def _what_was_learnt(chest: Run, tuned: Run, scratch: Run) -> Html:
    """What a reader wants to know first."""
    first, last = (short(value) for value in reconstruction_errors(chest))
    figures = {
        "reconstruction error, first and last epoch": f"{first} to {last}" if first else "",
        "fine-tuned, from the pre-trained weights: AUROC": auroc(tuned.results),
        "fine-tuned, from random values: AUROC": auroc(scratch.results),
    }
    return section(
        "What was learnt",
        tiles(figures),
        tag("p", LEARNT.format(first, last)) if first else Html(""),
        reconstruction_figures(chest, spec_of(chest)),
        tag("p", TUNED),
        compared(tuned, scratch, ("from the pre-trained weights", "from random values")),
    )


def _curves(run: Run) -> Html:
    return curve_figures(run, panels_of(run), CURVES)


def _neighbours(before: Run, after: Run, folder: Path) -> Html:
    kind = "nearest neighbours, {} encoder: AUROC"
    figures = {kind.format("untrained"): auroc(before.results), kind.format("pre-trained"): auroc(after.results)}
    head = ("untrained encoder", "pre-trained encoder")
    parts = (tag("p", linked(NEIGHBOURS, folder)), tiles(figures), tag("p", AUROC), compared(before, after, head))
    return section("How good the features are without labels", *parts)


def _drawn(folder: Path) -> dict[str, str]:
    """The findings of each X-ray, once the sheets of phantoms are drawn."""
    try:
        draw_phantoms(folder)
        return _findings(folder / "phantoms" / "Chest14")
    except (OSError, IndexError) as error:
        raise UserError(f"{folder}: its phantoms cannot be shown ({error}); run scripts/demo.sh again") from None


def write_demo(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a demo; -> its path. UserError if a part of the demo is missing."""
    chest, luna, before, after, tuned, scratch = (read_run(folder / name) for name in PARTS)
    findings = _drawn(folder)
    steps = max(row["step"] for row in chest.rows)
    predicted = predictions_table(folder / "predicted" / "predictions.csv", folder / "unseen", findings)
    sheets = (
        picture(folder / SHEET, "X-rays of six phantoms, and what was put into them."),
        picture(folder / SLICES, "The middle slices of a CT scan of a phantom."),
    )
    body = [
        tag("h1", TITLE),
        tag("p", linked(INTRODUCTION, folder)),
        _what_was_learnt(chest, tuned, scratch),
        section("What the fine-tuned network predicts", tag("p", PREDICTED) if predicted else Html(""), predicted),
        section(
            f"Phantoms: {len(findings)} X-rays and a few CT scans",
            tag("p", PHANTOMS),
            tag("div", *sheets, class_="grid two"),
        ),
        section("What the network sees", picture(folder / "views" / "views.png", VIEWS)),
        section(
            f"Pre-training in 2D: {steps:,} steps", tag("p", LEARNS), curve_figures(chest, panels_of(chest), CURVES)
        ),
        _neighbours(before, after, folder),
        section(
            "Pre-training in 3D",
            tag("p", BRIEF),
            _curves(luna),
            reconstruction_figures(luna, None),
        ),
        section("Go on with your own images", commands(*GO_ON)),
    ]
    try:
        write_text(folder / FILE_NAME, page(TITLE, *body))
    except OSError as error:
        raise UserError(f"{folder / FILE_NAME} cannot be written ({reason(error)})") from None
    return folder / FILE_NAME


def reconstruction_errors(run: Run) -> tuple[float | None, float | None]:
    """Of the first and of the last epoch, their means."""
    means = [row[MEANS]["reconstruction"] for row in run.rows if "reconstruction" in row.get(MEANS, {})]
    return (means[0], means[-1]) if means else (None, None)
