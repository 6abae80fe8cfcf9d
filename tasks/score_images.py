"""Predictions of a classifier: a row of ``predictions.csv`` for each X-ray or nodule candidate."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.ct.crop_records import window_in_words, windows_of
from datasets.ct.nodules import CandidateCrops, find_candidates
from datasets.loader import PairDataset
from datasets.xray.files import ALL_IMAGES, HoldsOthers, find_chest
from datasets.xray.labelled import SingleXRays
from datasets.xray.store import Store, is_store
from options import Options
from tasks.base import plain_loader
from tasks.finetuned import Finetuned
from tasks.outputs import as_numbers
from tasks.prediction_files import TABLE, PartialTable, Row, number_text, recover, write_rows
from tasks.prediction_job import Predicted, PredictionJob
from tasks.prediction_stamps import remember, replaced, say_changed, stamp_of
from tasks.sliding import mirror_images
from utils.console import say, warn
from utils.errors import UserError
from utils.process_group import SINGLE
from utils.progress import progress
from utils.text import counted


class _Readable(Dataset[dict[str, Tensor]]):
    """Samples with ``read`` 1; zeros with 0 in the place of one that cannot be read, so that the others go on."""

    def __init__(self, samples: PairDataset, shape: Sequence[int]) -> None:
        self.samples, self.shape = samples, tuple(shape)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        """The sample of this (epoch, index)."""
        try:
            return {"image": self.samples[key]["image"], "read": torch.ones(())}
        except UserError:
            return {"image": torch.zeros(self.shape), "read": torch.zeros(())}

    def why(self, index: int) -> str:
        """What is wrong with one that could not be read."""
        try:
            self.samples[0, index]
        except UserError as error:
            return str(error)
        return "the first attempt to read it failed, the second succeeded; run the command again"


def score_images(job: PredictionJob) -> Predicted:
    """Write the probabilities of all images in ``--data`` that are not yet in the table."""
    options, output, ranks, first = job.options, job.output, job.ranks, job.folds[0]
    with ranks.raise_on_all():
        rows = _candidates(options, first) if first.n == "nodules" else _xrays(options, first)
        if ranks.first:
            job.begin()
            _forget_replaced(job, rows)
    with ranks.raise_on_all():
        there = recover(output, first.classes)
    done = [row for row in rows if row["file"] in there]
    if done:
        say(f"{len(done)} of {counted(len(rows), 'image')} are in {output / TABLE} already")
    own = [row for row in rows if row["file"] not in there][ranks.rank :: ranks.size]
    problems = itertools.chain(*ranks.gather_when_done(lambda: _score(job, own) if own else []))
    with ranks.raise_on_all():
        if ranks.first:
            there = recover(output, first.classes)
            found = [(row, there[row["file"]]) for row in rows if row["file"] in there]
            now = [{**row, **{name: values[name] for name in first.classes}} for row, values in found]
            write_rows(output, first.classes, now)
            PartialTable.remove_all(output)
    return Predicted(len(rows), "image", output / TABLE, list(problems))


def _forget_replaced(job: PredictionJob, rows: Sequence[Row]) -> None:
    """Take from the table the rows of images that were replaced since; says so."""
    data, output, classes = job.options.data, job.output, job.folds[0].classes
    store = Store(data) if is_store(data) else None
    paths = {row["file"]: os.path.join(data, row["file"]) for row in rows}
    stamps = {file: stamp_of(store.files(path) if store else [path]) for file, path in paths.items()}
    there = recover(output, classes)
    if gone := there.keys() & replaced(output, stamps):
        say_changed(gone, "image")
        write_rows(output, classes, [row for file, row in there.items() if file not in gone])
        PartialTable.remove_all(output)
    remember(output, stamps)


def _xrays(options: Options, first: Finetuned) -> list[Row]:
    try:
        files = find_chest(Path(options.data), ALL_IMAGES)
    except HoldsOthers as error:
        raise UserError(
            f"--data {options.data} holds {error.what}, and {first.path} was trained on X-rays; give a folder of "
            "X-rays, or another --weight"
        ) from None
    return [{"file": os.path.relpath(file, options.data)} for file in files]


def _candidates(options: Options, first: Finetuned) -> list[Row]:
    """The crops in ``--data``; warns where they were cut with another window than those of the training."""
    rows = find_candidates(Path(options.data))
    windows = windows_of(os.path.join(options.data, row["file"]) for row in rows)
    there, here = ({window_in_words(each) for each in side} - {""} for side in (first.windows, windows))
    if there and here and there != here:
        words = f"{' and '.join(sorted(here))}, not {' and '.join(sorted(there))}"
        warn(f"{options.data}: crops have the window {words} as in the training of {first.path}; cut the crops again")
    return rows


def _score(job: PredictionJob, rows: Sequence[Row]) -> list[str]:
    """Add a row for each image to this rank's part of the table; -> what is wrong with those that cannot be read."""
    options, first = job.options, job.folds[0]
    networks = [job.ready(fold) for fold in job.folds]
    files = [os.path.join(options.data, row["file"]) for row in rows]
    samples: PairDataset
    if first.n == "nodules":
        samples, shape = CandidateCrops(files, first.shape), (1, *first.shape)
    else:
        samples = SingleXRays(files, channels=options.inchannel, size=options.size)
        shape = (options.inchannel, options.size, options.size)
    readable = _Readable(samples, shape)
    loader = plain_loader(options, readable, job.devices, SINGLE)

    @torch.no_grad()
    def numbers(image: Tensor) -> np.ndarray:
        """(B, C, ...) -> the mean over the folds and the mirror images, (B, classes)."""
        found = []
        for fold, network in zip(job.folds, networks, strict=True):
            copies = []
            for axes in mirror_images(fold.mirrored if options.tta else ()):
                with job.precision.autocast():
                    outputs = job.devices.wrap(network)(image.flip([axis + 2 for axis in axes]) if axes else image)
                copies.append(as_numbers(outputs.float().cpu().numpy(), **fold.numbers))
            found.append(np.mean(copies, axis=0))
        return np.mean(found, axis=0)

    problems, begin = [], 0
    with PartialTable(job.output, job.ranks.rank) as table, progress(len(rows), "image", "predicted") as steps:
        for batch in loader.epoch(0):
            values, read = numbers(batch["image"]), batch["read"].tolist()
            if not np.isfinite(values).all():
                raise UserError(f"--weight {options.weight}: its outputs are not finite; give another checkpoint")
            for index, (ok, row_values) in enumerate(zip(read, values, strict=True), start=begin):
                if ok:
                    texts = zip(first.classes, map(number_text, row_values), strict=True)
                    table.add({**rows[index], **dict(texts)})
                else:
                    problems.append(readable.why(index))
            begin += len(read)
            table.flush()
            steps.update(len(read))
    return problems
