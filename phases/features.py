"""``--phase embed``: the encoder's features of a folder of images; and what other phases need to make features."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.ct.crop_records import windows_of
from datasets.ct.luna import SingleCrops, find_luna, form_there, training_list
from datasets.loader import PairDataset
from datasets.xray.files import find_chest
from datasets.xray.labelled import SingleXRays
from models.classifier import Encoder
from options import Options
from tasks.base import plain_loader
from training.devices import Devices
from training.network import new_unet, start_from_weight
from training.precision import Native
from training.predict import predict
from training.run import prepare_output
from utils.console import say, warn
from utils.errors import UserError, reason
from utils.files import atomic_path
from utils.locks import exclusive
from utils.process_group import ProcessGroup
from utils.text import counted

ARRAY, TABLE = "features.npy", "features.csv"
SUBSETS = range(10)  # of LUNA16, all


@dataclass(frozen=True)
class UnlabelledImages:
    """``find``: (folder, list) -> files. ``samples``: (files, channels, size) -> the images, ``per_file`` of each."""

    find: Callable[[Path, str | None], Sequence[str | Path]]
    samples: Callable[[Sequence[str | Path], int, int], PairDataset]
    per_file: int = 1


def _find_crops(data: Path, train_list: str | None) -> Sequence[str | Path]:
    """The pairs of all subsets, whichever method they were cut for. Says if a list that is there leaves some out."""
    if train_list is None and (there := training_list(data, None)):
        say(f"scans: those of {there}; for all give --train_list none")
    return find_luna(data, train_list, ratio=1.0, subsets=SUBSETS, pattern=form_there(data))


IMAGES = {
    "chest": UnlabelledImages(
        find_chest, lambda files, channels, size: SingleXRays(files, channels=channels, size=size)
    ),
    "luna": UnlabelledImages(_find_crops, lambda files, channels, size: SingleCrops(files), per_file=2),
}


def one_process(options: Options, ranks: ProcessGroup) -> None:
    """UserError if there are several processes: features are made by one."""
    if ranks.size > 1:
        raise UserError(f"--phase {options.phase} runs in one process; leave --parallel ddp or torchrun out")


def encoder_of(
    options: Options, shape: Sequence[int], devices: Devices, windows: Sequence[Mapping[str, Any]]
) -> Encoder:
    """The encoder of ``--weight``, in evaluation mode; ``shape``: spatial size of an image.

    ``windows``: of CT crops, as far as they are known.
    """
    if not options.weight:
        warn(f"--phase {options.phase} without --weight: the encoder has random weights")
    encoder = Encoder(new_unet(options, shape))
    start_from_weight(options, encoder, windows)
    return encoder.to(devices.main).eval()


def embed(options: Options, devices: Devices, ranks: ProcessGroup) -> None:
    """Write the pooled deepest feature of each image: an array (N, channels), and a table with the images' names."""
    one_process(options, ranks)
    images = IMAGES[options.n]
    files = images.find(Path(options.data), options.train_list or None)
    loader = plain_loader(options, images.samples(files, options.inchannel, options.size), devices, ranks)
    windows = windows_of(map(str, files)) if options.dims == 3 else []
    encoder = encoder_of(options, loader.first_sample["image"].shape[1:], devices, windows)
    output = prepare_output(options.output)
    with exclusive(output):
        if (output / ARRAY).exists():
            warn(f"{output / ARRAY} and {TABLE} are there already: they will be replaced")
        features, _ = predict(devices.wrap(encoder), loader, Native(devices.main, enabled=False))
        names = [os.path.relpath(file, options.data) for file in files]
        if images.per_file > 1:
            names = [f"{name}:{number}" for name in names for number in range(images.per_file)]
        try:
            _write(output, names, features)
        except OSError as error:
            raise UserError(f"--output {output}: the features cannot be written: {reason(error)}") from None
    say(f"{counted(len(features), 'image')}, {features.shape[1]} values each: {output / ARRAY}, {output / TABLE}")


def _write(output: Path, names: Sequence[str], features: np.ndarray) -> None:
    with atomic_path(output / ARRAY) as temporary, open(temporary, "wb") as file:
        np.save(file, features)
    with (
        atomic_path(output / TABLE) as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(["name", *(f"feature_{number}" for number in range(features.shape[1]))])
        table.writerows([name, *(f"{value:.8g}" for value in row)] for name, row in zip(names, features, strict=True))
