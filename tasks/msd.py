"""``--n msd``: 3D segmentation of a folder in the layout of the Medical Segmentation Decathlon or of nnU-Net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.ct.data_files import data_files
from datasets.ct.stored_grid import stored_grid
from datasets.segmentation.files import (
    ORIENTATION,
    Case,
    Description,
    find_cases,
    read_case,
    read_description,
    read_spacing,
)
from datasets.segmentation.msd import PERCENTILES, Patches, Recipe, Volume, load_volume
from datasets.segmentation.splits import Split, cross_validation, read_split
from methods.supervised import Supervised
from models.segmenter import build_segmenter
from options import Options
from tasks.base import Results, Task, mirrors, training_loader
from tasks.copies import warn_of_copies
from tasks.dice import dice, dice_ce_loss
from tasks.intervals import PERCENT, mean_interval, recorded, shown, warn_if_few
from tasks.prediction_files import mask_path, write_mask
from tasks.prediction_pictures import draw_cases
from tasks.sliding import OVERLAP, Windows, segment, softmax_of
from training.devices import Devices
from training.evaluation import EvalResult
from training.network import in_memory_format, start_from_weight
from training.precision import Precision
from training.reporting.run_record import list_hash
from utils.console import say, warn
from utils.errors import UserError, reason
from utils.process_group import ProcessGroup
from utils.progress import SHORT_S, progress
from utils.text import counted

SMALLEST = 8  # voxels along an axis of a patch, of which the deepest map has one


@dataclass(frozen=True)
class Data:
    """The volumes of each part, the names of the classes from 1 on, and how the volumes were prepared."""

    train: list[Volume]
    valid: list[Volume]
    test: list[Volume]
    classes: list[str]
    recipe: Recipe

    @property
    def windows(self) -> list[dict[str, Any]]:
        """Of the channels that are CT; of images without such a channel the percentiles."""
        return [{"hu": window} for window in self.recipe.windows if window] or [{"percentiles": PERCENTILES}]

    def facts(self, patch: Sequence[int]) -> dict[str, Any]:
        """All that turns a file into what the network sees, and its outputs into a mask, plain: for the model card."""
        windows = [list(window) if window else None for window in self.recipe.windows]
        return {
            "segmentation": {
                "classes": self.classes,
                "orientation": ORIENTATION,
                "spacing_mm": list(self.recipe.spacing_mm),
                "windows": windows,
                "percentiles": list(PERCENTILES),
                "patch": list(patch),
                "overlap": OVERLAP,
            }
        }


def choose_cases(options: Options, cases: Sequence[Case]) -> Split:
    """The parts that ``--folds``, ``--fold``, ``--split`` and ``--train_cases`` ask for."""
    names = [case.name for case in cases]
    if options.split:
        split = read_split(Path(options.split), names, options.fold, options.seed)
    else:
        split = cross_validation(names, options.folds, options.fold, options.seed)
    wanted = options.train_cases or len(split.train)
    if wanted > len(split.train):
        raise UserError(f"--train_cases {wanted}: this split has {counted(len(split.train), 'case')} to train on")
    return Split(split.train[:wanted], split.valid, split.test)


def make_recipe(options: Options, description: Description, train: Sequence[Case]) -> Recipe:
    """How volumes are prepared: spacing and intensity windows, by flags or by what training cases have."""
    spacing = options.spacing or tuple(np.median([read_spacing(case) for case in train], axis=0).tolist())
    channels = len(read_case(train[0]).image)
    is_ct = description.is_ct or [False] * channels
    if len(is_ct) != channels:
        raise UserError(
            f"{options.data}: dataset.json lists {counted(len(is_ct), 'channel')}, but {train[0].name} has {channels}"
        )
    if options.modality:
        is_ct = [options.modality == "ct"] * channels
    window = (float(options.hu_min), float(options.hu_max))
    if not any(is_ct) and window != (Options.hu_min, Options.hu_max):
        warn(
            "--hu_min and --hu_max have no effect: no channel is CT (in dataset.json a channel called CT is); for CT "
            "give --modality ct"
        )
    return Recipe(tuple(spacing), tuple(window if ct else None for ct in is_ct))


def read_data(options: Options) -> Data:
    """Find, split and prepare the volumes."""
    data, cache = Path(options.data), Path(options.cache) if options.cache else None
    cases = {case.name: case for case in find_cases(data)}
    description = read_description(data)
    split = choose_cases(options, list(cases.values()))
    recipe = make_recipe(options, description, [cases[name] for name in split.train])
    if cache:
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--cache {cache}: {reason(error)}; give a folder that can be written to") from None
    parts = (split.train, split.valid, split.test)
    with progress(sum(map(len, parts)), "volume", "prepared", delay_s=SHORT_S) as steps:

        def prepared(name: str) -> Volume:
            volume = load_volume(cases[name], recipe, cache)
            steps.update()
            return volume

        train, valid, test = ([prepared(name) for name in part] for part in parts)
    classes = class_names(description, [*train, *valid, *test])
    say(
        f"cases: {len(train)} to train on, {len(valid)} to choose the epoch, {len(test)} to test; classes: "
        f"{', '.join(classes)}; spacing {' x '.join(f'{mm:g}' for mm in recipe.spacing_mm)} mm; grey values: "
        f"{', '.join(map(_in_words, recipe.windows))}"
    )
    warn_of_absent(classes, {"training": train, "validation": valid, "test": test})
    warn_if_few(len(test), "test case")
    return Data(train, valid, test, classes, recipe)


def _look_for_copies(data: Data) -> None:
    parts = {"training": data.train, "validation": data.valid, "test": data.test}
    warn_of_copies({name: [file for volume in part for file in _voxels_of(volume)] for name, part in parts.items()})


def _voxels_of(volume: Volume) -> list[Path]:
    """The file with the voxels of its first channel; none if they are in several, of which many can be all air."""
    found = list(data_files(volume.files[0])) or [volume.files[0]]
    return found if len(found) == 1 else []


def _in_words(window: tuple[float, float] | None) -> str:
    low, high = window or PERCENTILES
    return f"{low:g} to {high:g} HU" if window else f"percentiles {low:g} to {high:g} of each volume"


def classes_in(truth: np.ndarray) -> set[int]:
    """The classes of which a volume has voxels, without the background."""
    return set(np.flatnonzero(np.bincount(np.ravel(truth))).tolist()) - {0}


def warn_of_absent(classes: Sequence[str], parts: Mapping[str, Sequence[Volume]]) -> None:
    """Warn of classes of which no volume of a part has a voxel; UserError if that is so of all."""
    for part, volumes in parts.items():
        there = set().union(*(classes_in(volume.truth) for volume in volumes))
        if not there:
            raise UserError(f"all labels of the {part} volumes are background: give this part other volumes")
        if absent := [name for number, name in enumerate(classes, 1) if number not in there]:
            result = "; its mean Dice leaves them out" if part != "training" else ""
            warn(f"no {part} volume has a voxel of {', '.join(absent)}{result}")


def class_names(description: Description, volumes: Sequence[Volume]) -> list[str]:
    """Names of the classes from 1 on: of ``dataset.json``, or by number up to the largest in the labels."""
    found = sorted(set().union(*(classes_in(volume.truth) for volume in volumes)))
    largest = max(found, default=0)
    names = description.classes or [f"class {number}" for number in found]
    if not names:
        raise UserError("all labels are background: there is nothing to segment")
    if not description.classes and largest > len(names):
        values = ", ".join(map(str, [0, *found][:5])) + ", ..." * (len(found) > 4)
        raise UserError(
            f"the labels have the values {values}: number the classes 0 (background), 1, 2, ... without gaps, or name "
            "all of them in dataset.json"
        )
    if largest > len(names):
        raise UserError(f"a label has the class {largest}, but dataset.json lists only {len(names)} and background")
    return names


@dataclass(frozen=True)
class Scores:
    """Dice of each class (columns) for each volume, by its name.

    ``there``: whether a volume has voxels of the class: without, its Dice is 1 or 0 and says nothing.
    """

    classes: Sequence[str]
    rows: dict[str, list[float]]
    there: Sequence[bool]

    def columns(self) -> dict[str, np.ndarray]:
        """Dice over the volumes, of each class that is there and of their mean."""
        values = np.array(list(self.rows.values()))
        own = {name: column for name, column, there in zip(self.classes, values.T, self.there, strict=True) if there}
        return {**own, "mean": np.mean(list(own.values()), axis=0)}

    def results(self, seed: int = 0) -> Results:
        """The table: mean and standard deviation over the volumes, and the mean's interval, if there are several."""
        title, several = counted(len(self.rows), "test volume"), len(self.rows) > 1
        columns = {name: (float(values.mean()), float(values.std())) for name, values in self.columns().items()}
        spans = {name: mean_interval(values, list(self.rows), seed) for name, values in self.columns().items()}
        width = max(map(len, (title, *columns)))
        lines = [f"{title:<{width}}    Dice      sd" + f"  {f'{PERCENT} % interval':<14}" * several]
        for name, (mean, deviation) in columns.items():
            spread = f"{deviation:.4f}  {shown(spans[name])}" if several else f"{'-':>6}"
            lines.append(f"{name:<{width}}  {mean:.4f}  {spread}")
        dice_of = {name: mean for name, (mean, _) in columns.items()}
        values = {
            "volumes": len(self.rows),
            "mean_dice": dice_of["mean"],
            "dice": dice_of,
            "sd": {name: deviation for name, (_, deviation) in columns.items()},
            **recorded({"mean_dice": spans.pop("mean"), "dice": spans}, list(self.rows), "case"),
            "by_volume": {name: dict(zip(self.classes, row, strict=True)) for name, row in self.rows.items()},
        }
        return Results(values, {f"dice/{name}": mean for name, mean in dice_of.items()}, "\n".join(lines))


def build_msd(options: Options, devices: Devices, ranks: ProcessGroup) -> Task:
    """Segmentation of the volumes in ``--data``, judged by mean Dice on whole volumes, on the grid of their files."""
    data = read_data(options)
    if ranks.first and not options.goes_on:
        _look_for_copies(data)
    patch = options.patch_shape
    mirror = mirrors(options.mirror, data.classes)
    samples = Patches(data.train, patch, options.patches, options.seed, mirror)
    loader = training_loader(options, samples, devices, ranks)
    single = max(patch) == SMALLEST and (options.norm == "in" or (options.norm == "bn" and 1 in loader.batch_sizes))
    if single:
        raise UserError(
            f"--patch {options.patch}: the deepest map is one voxel, which --norm {options.norm} cannot normalise in a "
            "batch of one patch; give larger patches, or another --b"
        )
    channels, classes = len(data.train[0].image), len(data.classes) + 1
    network = build_segmenter(channels, classes, options.norm, options.seed, options.narrow)
    start = start_from_weight(options, network, data.windows)
    network = in_memory_format(network, options, devices.main)
    frozen = network.encoder() if options.phase == "linear" else []
    windows = Windows(patch, options.b, devices.main)
    method = Supervised(network, dice_ce_loss(), frozen, ("dice",), devices.wrap, ranks).to(devices.main)

    def scores(volumes: Sequence[Volume], precision: Precision, output: Path | None = None) -> Scores:
        """Volumes are dealt to the ranks. ``output``: for masks."""
        own = volumes[ranks.rank :: ranks.size]
        probabilities = softmax_of(method.predict, precision)

        def own_rows() -> dict[str, list[float]]:
            rows = {}
            with progress(len(own), "volume", "segmented", delay_s=SHORT_S) as steps:
                for volume in own:
                    found = segment(probabilities, volume.image, windows, volume.truth.shape)
                    truth = torch.from_numpy(np.array(volume.truth))
                    rows[volume.name] = dice(torch.from_numpy(found), truth, len(data.classes) + 1)
                    if output:
                        write_mask(mask_path(output, volume.name), found, stored_grid(volume.files))
                    steps.update()
            return rows

        all_rows = {name: row for part in ranks.gather_when_done(own_rows) for name, row in part.items()}
        there = set().union(*(classes_in(volume.truth) for volume in volumes))
        rows = {volume.name: all_rows[volume.name] for volume in volumes}
        return Scores(data.classes, rows, [number in there for number in range(1, classes)])

    def validate(precision: Precision) -> EvalResult:
        means = {name: float(values.mean()) for name, values in scores(data.valid, precision).columns().items()}
        mean = means.pop("mean")
        return EvalResult(-mean, {"dice": mean} | {f"dice/{name}": value for name, value in means.items()})

    def test(precision: Precision, output: Path) -> Results:
        found = scores(data.test, precision, output)
        if ranks.first:
            draw_cases(output, data.test, found.rows, data.classes)
        return found.results(options.seed)

    files = [volume.name for volume in data.train]
    judges = {"judged_by": data.valid, "tested_by": data.test}
    names = {name: list_hash([volume.name for volume in volumes]) for name, volumes in judges.items()}
    return Task(method, loader, files, validate, test, start=start, facts=data.facts(patch) | names)
