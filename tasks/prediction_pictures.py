"""Pictures of a test part: ``roc.png``, the ROC curve of each class, and ``cases.png``, the best and worst volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from datasets.ct.itk import read_file
from datasets.segmentation.files import channels_of, stacked
from datasets.segmentation.msd import PERCENTILES, Volume
from tasks.class_scores import class_scores
from tasks.prediction_files import mask_path
from utils.files import atomic_path
from utils.image_grid import shortened
from utils.text import counted

ROC, CASES = "roc.png", "cases.png"
CURVES = 20  # at most, those of the classes with most positives
SHOWN = 3  # volumes of the best, and of the worst
DPI = 110


def draw_roc(output: Path, labels: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> None:
    """Write ``roc.png``: of labels of 0 and 1 (NaN: not known) and scores, both (N, classes)."""
    from matplotlib.figure import Figure  # late: it takes a second to import
    from sklearn.metrics import roc_curve

    found = class_scores(labels, scores, classes)
    columns = {name: column for column, name in enumerate(found.positives) if name in found.auroc}
    drawn = sorted(columns, key=lambda name: -found.positives[name])[:CURVES]
    figure = Figure(figsize=(8.6, 5.4), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle=":")
    for number, name in enumerate(drawn):
        label, score = labels[:, columns[name]], scores[:, columns[name]]
        known = ~np.isnan(label)
        false, true, _ = roc_curve(label[known], score[known])
        words = f"{_plain(name)}  {found.auroc[name]:.3f}  ({found.positives[name]})"
        style = "-" if number < 10 else "--"  # ten colours, twice
        axis.plot(false, true, color=f"C{number % 10}", linestyle=style, linewidth=1.3, label=words)
    several = f", the {CURVES} most frequent of {len(columns)} classes" if len(columns) > CURVES else ""
    title = f"{counted(len(labels), 'test image')}, mean AUROC {found.mean:.3f}{several}"
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", title=title)
    axis.set(xlabel="1 - specificity (false positives)", ylabel="sensitivity (true positives)")
    axis.grid(alpha=0.3)
    if drawn:
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.02, 1)}
        axis.legend(**place, title="AUROC (positives)", title_fontsize=8, alignment="left", fontsize=8, frameon=False)
    _save(figure, output / ROC)


def draw_cases(
    output: Path, volumes: Sequence[Volume], rows: Mapping[str, Sequence[float]], classes: Sequence[str]
) -> None:
    """Write ``cases.png``: of the worst and the best volumes an axial slice with outlines.

    It is the slice with most of any class in the label, in the mask where the label is empty: a poor mask may be
    largest where there is nothing to find.

    ``rows``: Dice of each of the ``classes``, by the volume's name. Images are read anew, and masks from ``masks/``.
    """
    from matplotlib.figure import Figure  # late: it takes a second to import
    from matplotlib.lines import Line2D

    ordered = sorted(volumes, key=lambda volume: float(np.mean(rows[volume.name])))
    few = min(SHOWN, len(ordered) // 2)
    chosen = {"worst": ordered[:few], "best": ordered[len(ordered) - few :][::-1]} if few else {"": ordered}
    lines = [(name, shown) for name, shown in chosen.items() if shown]
    figure = Figure(figsize=(3.1 * len(lines[0][1]) + 0.4, 3.3 * len(lines) + 0.5), layout="constrained")
    figure.suptitle("solid: the label; dashed: the mask", fontsize=10)
    handles = [Line2D([], [], color=f"C{number % 10}", label=_plain(name)) for number, name in enumerate(classes)]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    for (name, shown), axes in zip(lines, figure.subplots(len(lines), len(lines[0][1]), squeeze=False), strict=True):
        for volume, axis in zip(shown, axes, strict=True):
            _draw_case(axis, output, volume)
            dice = ", ".join(f"{value:.3f}" for value in rows[volume.name])
            axis.set_title(f"{shortened(volume.name)}\nDice {dice}", fontsize=8, parse_math=False)
        axes[0].set_ylabel(name, fontsize=9)
    _save(figure, output / CASES)


def _draw_case(axis: Any, output: Path, volume: Volume) -> None:
    channel = channels_of(read_file(volume.files[0]))[0]
    image, truth = stacked([channel])[0], np.asarray(volume.truth)
    (mask,) = channels_of(read_file(mask_path(output, volume.name), nearest=True), nearest=True)
    found = sitk.GetArrayFromImage(mask).T
    z = fullest_slice(truth if truth.any() else found)
    low, high = np.percentile(image, PERCENTILES)
    width, depth, _ = channel.GetSpacing()
    axis.imshow(image[:, :, z].T, "gray", vmin=low, vmax=max(high, low + 1e-6), aspect=depth / width)
    for labels, style, thickness in ((truth, "solid", 1.4), (found, "dashed", 1.0)):
        for number in np.unique(labels[:, :, z][labels[:, :, z] > 0]):
            inside = np.pad((labels[:, :, z] == number).T.astype(float), 1)
            places = np.arange(-1, inside.shape[1] - 1), np.arange(-1, inside.shape[0] - 1)
            axis.contour(*places, inside, [0.5], colors=f"C{(number - 1) % 10}", linestyles=style, linewidths=thickness)
    axis.set(xticks=[], yticks=[], xlim=(-0.5, image.shape[0] - 0.5), ylim=(image.shape[1] - 0.5, -0.5))


def fullest_slice(labels: np.ndarray) -> int:
    """The slice along the last axis of labels (X, Y, Z) with most voxels of any class; the first of several."""
    return int((labels > 0).sum(axis=(0, 1)).argmax())


def _plain(name: str) -> str:
    """A class as a legend has it: a $ begins no formula."""
    return shortened(name).replace("$", r"\$")


def _save(figure: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)
