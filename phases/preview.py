"""``--preview N``: what pre-training would see of the first N samples, as a picture, ``views.png`` in ``--output``."""

from __future__ import annotations

from pathlib import Path

from datasets.registry import DATASETS
from options import Options
from training.devices import Devices
from training.pictures import draw_samples
from training.run import prepare_output
from utils.console import say
from utils.ranks import Ranks

FILE_NAME = "views.png"
COLUMNS = {"crop": "gt", "view": "input", "target": "mask"}  # words for people <- keys of a sample


def preview(options: Options, devices: Devices, ranks: Ranks) -> None:
    """Draw the uncorrupted crops, the views and their targets, as the first epoch has them."""
    if not ranks.first:
        return
    source = DATASETS[options.n]
    files = source.find(Path(options.data), options.train_list or None, options.ratio)[: options.preview]
    dataset = source.pairs(files, options.seed, options.inchannel, options.size, True)
    samples = {}
    for index, file in enumerate(files):
        sample = dataset[0, index]
        samples[f"{index + 1}: {Path(file).stem[-20:]}"] = {
            f"{column} {view}": sample[f"{key}{view}"] for view in (1, 2) for column, key in COLUMNS.items()
        }
    path = prepare_output(options.output) / FILE_NAME
    draw_samples(samples, source.window, f"the first {len(files)} samples of {options.data}", path)
    say(f"saved {path}")
