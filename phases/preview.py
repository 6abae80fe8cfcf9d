"""``--preview N``: what pre-training would see of the first N samples, as a picture, ``views.png`` in ``--output``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from datasets.ct.crop_records import direction_of
from datasets.layout import GLOBAL, PAIR
from options import Options
from phases.pretask import check_flags, views_of
from training.devices import Devices
from training.reporting.pictures import draw_samples
from training.run import prepare_output
from utils.console import say
from utils.image_grid import shortened, upright
from utils.process_group import ProcessGroup
from utils.text import counted, printable

FILE_NAME = "views.png"


def in_turn(files: Sequence[str]) -> list[str]:
    """The first pair of each scan, then the second of each, and so on; single images stay in their order."""
    seen: Counter[str] = Counter()
    rounds: list[list[str]] = []
    for file in files:
        match = PAIR.fullmatch(Path(file).name) or GLOBAL.fullmatch(Path(file).name)
        scan = match["uid"] if match else file
        if seen[scan] == len(rounds):
            rounds.append([])
        rounds[seen[scan]].append(file)
        seen[scan] += 1
    return [file for each in rounds for file in each]


def _upright(crop: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """A crop (1, X, Y, Z) as patients lie in a scan, whatever the order in which it is stored."""
    return np.ascontiguousarray(upright(crop[0], np.ones(3), direction)[0])[None]


def preview(options: Options, devices: Devices, ranks: ProcessGroup) -> None:
    """Draw the uncorrupted crops, the views and their targets, as the first epoch has them; of scans, in turn."""
    if not ranks.first:
        return
    check_flags(options)
    views = views_of(options)
    found = views.find(Path(options.data), options.train_list or None, options.ratio)
    files = in_turn(found)[: options.preview]
    say(f"drawing the views of {counted(len(files), 'sample')} of {len(found):,}")
    dataset = views.samples(files, options.seed, options.inchannel, options.size, True)
    samples = {}
    for index, file in enumerate(files):
        shown = views.shown(dataset[0, index])
        if options.dims == 3:
            direction = direction_of(file)
            shown = {name: torch.from_numpy(_upright(image.numpy(), direction)) for name, image in shown.items()}
        samples[f"{index + 1}: {shortened(printable(Path(file).stem))}"] = shown
    path = prepare_output(options.output) / FILE_NAME
    draw_samples(samples, views.windows, f"{counted(len(files), 'sample')} of {options.data}", path)
    say(f"saved {path}")
