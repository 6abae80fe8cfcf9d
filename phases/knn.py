"""``--phase knn``: how well an image's neighbours know its labels, a check of an encoder without any training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.loader import Loader
from options import Options
from phases.features import encoder_of, one_process
from tasks import CLASSIFICATIONS
from tasks.base import plain_loader
from tasks.class_scores import NEIGHBOURS, neighbour_scores
from tasks.classification import INTERVALS
from tasks.leftover import with_labelled_list, with_ratio
from training.checkpoint import LAST
from training.devices import Devices
from training.precision import Native
from training.predict import predict, write_results
from training.run import prepare_output, write_texts
from utils.console import say
from utils.errors import UserError
from utils.locks import exclusive
from utils.process_group import ProcessGroup
from utils.progress import waiting
from utils.text import counted


def run_knn(options: Options, devices: Devices, ranks: ProcessGroup) -> None:
    """Score each test image by the labels of its nearest training images."""
    one_process(options, ranks)
    if (Path(options.output) / LAST).exists():
        raise UserError(f"--output {options.output} holds a training run; give another folder")
    options = with_ratio(with_labelled_list(options), ranks)
    data = CLASSIFICATIONS[options.n](options)
    train, test = (plain_loader(options, part.samples, devices, ranks) for part in (data.train, data.test))
    encoder = encoder_of(options, train.first_sample["image"].shape[1:], devices, data.windows)
    kind = data.kind()
    data.announce(options.ratio, judged=["test"])
    precision = Native(devices.main, enabled=False)

    def described(part: Loader) -> tuple[np.ndarray, np.ndarray]:
        features, labels = predict(devices.wrap(encoder), part, precision)
        assert labels is not None
        return features, labels

    output = prepare_output(options.output)
    with exclusive(output):
        (features, labels), (test_features, test_labels) = described(train), described(test)
        k = min(NEIGHBOURS, len(features))
        with waiting(f"looking for the {counted(k, 'neighbour')} of {counted(len(test_features), 'test image')}"):
            scores = neighbour_scores(features, labels, test_features, k)
        with waiting(INTERVALS):
            results = kind.results(test_labels, scores, data.test.patients, data.train.labels, options.seed)
        write_texts(output, data.written)
        run = {"phase": options.phase, "task": options.n, "weight": options.weight or "none", "neighbours": k}
        write_results(output, run | results.values)
    by = f"{counted(k, 'neighbour')} among {counted(len(features), 'training image')}"
    say(f"results on the test part, by {by}:\n{results.table}")
