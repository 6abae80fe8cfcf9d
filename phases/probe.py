"""``--probe_every``: what features of a pre-training under way tell about labels, by neighbours and a linear fit.

Half of the patients teach, the other half is judged, the same ones each time. Nothing here touches the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.ct.crop_records import window_in_words, windows_of
from datasets.ct.nodules import NoduleCrops, read_crops
from datasets.loader import Loader, PairDataset
from datasets.xray.label_columns import REGRESSION
from datasets.xray.labelled import SingleXRays
from datasets.xray.labels import Labelled, find_probe
from datasets.xray.patients import split_by_patient
from methods.base import Method
from models.unet import UNetNetwork, z_normal
from options import Options
from tasks.base import plain_loader
from tasks.chest import labelling
from tasks.class_scores import NEIGHBOURS, NO_NEGATIVES, NO_POSITIVES, neighbour_scores
from tasks.kinds import Kind, kind_of
from tasks.nodules import TARGET
from training.devices import Devices
from training.evaluation import EvalResult
from training.network import check_size
from training.precision import Precision
from training.predict import evaluating, predict
from training.reporting.run_record import labels_hash, list_hash
from utils.console import say, warn
from utils.errors import UserError
from utils.process_group import SINGLE, ProcessGroup
from utils.text import counted

STRENGTHS = np.logspace(-1, 5, 13)  # of the ridge, of which each fit takes the best by leaving one out


@dataclass(frozen=True)
class Probe:
    """A judge of a method between epochs, by labels. The first rank computes; it draws nothing at random.

    ``teaches``: the rows of the loader's samples that the others are judged by. ``z_normalised``: whether the encoder's
    images are. ``fingerprint``: of the images, their labels, and who teaches.
    """

    loader: Loader
    labels: np.ndarray
    teaches: np.ndarray
    kind: Kind
    every: int
    z_normalised: bool
    ranks: ProcessGroup
    fingerprint: str

    def due(self, epoch: int) -> bool:
        """Whether it is time, ``epoch`` epochs being completed; before the first as well."""
        return epoch % self.every == 0

    def __call__(self, method: Method, precision: Precision) -> EvalResult:
        def result() -> EvalResult:
            with evaluating(method):
                features, _ = predict(
                    lambda image: method.features(z_normal(image) if self.z_normalised else image),
                    self.loader,
                    precision,
                )
            return self.judged(features)

        return self.ranks.first_alone(result)

    def judged(self, features: np.ndarray) -> EvalResult:
        """The results of both probes on the rows that do not teach; the linear one's is the score."""
        known, others = self.teaches, ~self.teaches
        k = min(NEIGHBOURS, -(-int(known.sum()) // 4))  # of few images all would be neighbours, and all alike
        neighbours = neighbour_scores(features[known], self.labels[known], features[others], k)
        linear = linear_scores(features[known], self.labels[known], features[others])
        results = {
            name: self.kind.judged(self.labels[others], scores)
            for name, scores in (("knn", neighbours), ("linear", linear))
        }
        figure = self.kind.headline[0]
        values = {name: result.values[figure] for name, result in results.items()}
        for name, result in results.items():
            single = {key: value for key, value in result.values.items() if key.startswith(f"{figure}/")}
            values |= {f"{name}/{key.partition('/')[2]}": value for key, value in single.items()}
        over = results["linear"].over.values()
        return EvalResult(
            results["linear"].score, values, {figure: f"{figure.upper()}{''.join(f', {o}' for o in over)}"}
        )


def linear_scores(features: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Ridge regression of the labels, each by itself, on standardised features: (M, classes) for ``queries`` (M, C).

    ``features``: (N, C). ``labels``: (N, classes); images whose label is NaN, not known, do not count for it.
    """
    from sklearn.linear_model import RidgeCV

    spread = features.std(axis=0, dtype=np.float64)
    mean, scale = features.mean(axis=0, dtype=np.float64), np.where(spread > 0, spread, 1)
    inputs, asked = (features - mean) / scale, (queries - mean) / scale
    scores = np.zeros((len(queries), labels.shape[1]))
    for column in range(labels.shape[1]):
        known = ~np.isnan(labels[:, column])
        targets = labels[known, column].astype(np.float64)
        if len(set(targets)) > 1:
            scores[:, column] = RidgeCV(alphas=STRENGTHS).fit(inputs[known], targets).predict(asked)
        elif len(targets):
            scores[:, column] = targets[0]
    return scores


def build_probe(
    options: Options,
    method: Method,
    network: UNetNetwork,
    devices: Devices,
    ranks: ProcessGroup,
    training: Sequence[str] = (),
) -> Probe | None:
    """The probe that ``--probe_list`` or ``--probe_data`` asks for; UserError if nothing can be told by it.

    ``training``: the files trained on, whose window a probe's crops should have.
    """
    if not options.probe_every:
        return None
    if type(method).features is Method.features:
        raise UserError(f"--probe_every: --model {options.method_name} does not define Method.features, so no probes")
    samples, found, kind, teaches = _xrays(options) if options.dims == 2 else _crops(options)
    for part, rows in (("training", teaches), ("test", ~teaches)):
        _warn_of_undefined(kind, part, found.labels[rows])
        kind.check(
            f"probe's {part}",
            found.labels[rows],
            judged=True,
            flags="--probe_list" if options.dims == 2 else "--probe_data",
        )
    loader = plain_loader(options, samples, devices, SINGLE)
    check_size(network.unet, loader.first_sample["image"].shape[1:], options.probe_data or options.data)
    what = "a number" if kind.target.kind == REGRESSION else counted(len(kind.target.classes), "class")
    say(
        f"probe: {what}; fitted on {int(teaches.sum())} images, tested on {int((~teaches).sum())} images of other "
        f"patients; after every {counted(options.probe_every, 'epoch')}"
    )
    if options.dims == 3 and ranks.first:
        _warn_of_window(options, found.files, training)
    fingerprint = list_hash([labels_hash(found.files, found.labels), str(teaches.tolist())])
    return Probe(loader, found.labels, teaches, kind, options.probe_every, network.z_normalised, ranks, fingerprint)


def _warn_of_window(options: Options, crops: Sequence[str], training: Sequence[str]) -> None:
    """Warn if the probe's crops have another window of grey values than the pairs trained on, where both are known."""
    own, others = windows_of(crops), windows_of(training)
    if own and others and not all(window in others for window in own):
        words = (" and ".join(map(window_in_words, windows)) for windows in (own, others))
        warn(f"--probe_data {options.probe_data}: crops with the window {next(words)}, but pairs with {next(words)}")


def _warn_of_undefined(kind: Kind, part: str, labels: np.ndarray) -> None:
    """Warn of classes that a part of the probe's images has no positives or no negatives of."""
    why = kind.undefined(labels)
    images = f"the {counted(len(labels), f'{part} image')}"
    for reason, have in ((NO_POSITIVES, f"none of {images} has"), (NO_NEGATIVES, f"none of {images} is without")):
        if classes := [name for name in why if why[name] == reason]:
            left_out = "left out" if part == "test" else "not learned"
            these = "this class is" if len(classes) == 1 else "these classes are"
            warn(f"probe: {have} {', '.join(classes)}; {these} {left_out}")


def _xrays(options: Options) -> tuple[PairDataset, Labelled, Kind, np.ndarray]:
    target, found, teaching = find_probe(Path(options.data), options.probe_list, labelling(options))
    teaches = np.array(teaching) if teaching else _half(found.patients, options.seed, options.probe_list)
    samples = SingleXRays(found.files, channels=options.inchannel, size=options.size)
    kind = kind_of(target, found.labels[teaches], bool(np.isnan(found.labels).any()))
    return samples, found, kind, teaches


def _crops(options: Options) -> tuple[PairDataset, Labelled, Kind, np.ndarray]:
    crops = read_crops(Path(options.probe_data))
    labels = np.array([[crop.label] for crop in crops], np.float32)
    found = Labelled([crop.file for crop in crops], labels, [crop.uid for crop in crops])
    teaches = _half(found.patients, options.seed, options.probe_data)
    return NoduleCrops(crops, options.seed, balanced=False), found, kind_of(TARGET, labels), teaches


def _half(patients: Sequence[str], seed: int, what: str) -> np.ndarray:
    """Whether each image is of the half of the patients that teaches."""
    teaching, _ = split_by_patient(patients, (1, 1), seed, what)
    rows = np.zeros(len(patients), bool)
    rows[teaching] = True
    return rows
