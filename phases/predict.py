"""``--phase predict``: a fine-tuned network, or the mean of several, applied to new images."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from options import SEGMENTATION, Options
from tasks.finetuned import Finetuned, read_folds
from tasks.prediction_files import MASKS, PROBABILITIES
from tasks.prediction_job import PredictionJob
from tasks.score_images import score_images
from tasks.segment_scans import segment_scans
from training.checkpoint import LAST
from training.devices import Devices
from training.precision import Native
from training.run import prepare_output
from utils import json_text
from utils.console import say, warn
from utils.errors import Unfinished, UserError, reason
from utils.files import write_text
from utils.locks import exclusive
from utils.process_group import ProcessGroup
from utils.text import counted

RECORD = "predict.json"
DIFFERENT = {"weights": "other weights", "data": "another --data", "tta": "another --tta"}


def predict(options: Options, devices: Devices, ranks: ProcessGroup) -> None:
    """Write ``predictions.csv``, or a mask of each scan, for all images in ``--data``; what is there is left.

    Unfinished if some of them cannot be read.
    """
    with ranks.raise_on_all():
        folds = read_folds(options.weights, options.n)
    first, output = folds[0], Path(options.output)
    if not options.n:
        say(f"--n {first.n}, of {first.path}; classes: {', '.join(first.classes)}")
    if options.save_probabilities and first.n != SEGMENTATION:
        warn(f"--save_probabilities has no effect with --n {first.n}")
    if options.tta and not any(fold.mirrored for fold in folds):
        warn(f"--tta has no effect: {first.path} was trained without mirroring")
    options = first.options(options)
    native = options.amp == "native" or (options.amp == "auto" and devices.main.type == "cuda")
    with ExitStack() as stack:

        def begin() -> None:
            prepare_output(options.output)
            if (output / LAST).exists():
                raise UserError(f"--output {output} holds a training run; give another folder")
            stack.enter_context(exclusive(output, _folders_of_masks(output)))
            _settle(output, folds, options)

        work = segment_scans if first.n == SEGMENTATION else score_images
        try:
            result = work(PredictionJob(options, folds, output, devices, Native(devices.main, native), ranks, begin))
        except KeyboardInterrupt:
            say("stopped; run the same command again to continue; finished predictions are kept")
            raise
    problems = sorted(result.problems)
    for problem in problems:
        warn(problem)
    say(f"predictions of {counted(result.found - len(problems), result.what)}: {result.where}")
    if problems:
        raise Unfinished(f"{len(problems)} of {counted(result.found, result.what)} could not be read; see above")


def _folders_of_masks(output: Path) -> list[str]:
    """Where a killed run may have left a file that is not whole."""
    top = (output / name for name in (MASKS, PROBABILITIES))
    return [str(each.relative_to(output)) for root in top for each in (root, *root.rglob("*")) if each.is_dir()]


def _settle(output: Path, folds: list[Finetuned], options: Options) -> None:
    """Write down what the predictions in the folder are of; UserError if those that are there are of something else."""
    first, path = folds[0], output / RECORD
    record: dict[str, Any] = {
        "weights": [{"file": fold.path, "sha256": fold.digest} for fold in folds],
        "n": first.n,
        "kind": first.numbers["kind"],
        "classes": list(first.classes),
        "data": str(Path(options.data).resolve()),
        "tta": options.tta,
    }
    there = (output / MASKS).exists() or any(output.glob("predictions.*"))
    if there and not path.exists():
        raise UserError(f"--output {output} holds predictions without a {RECORD}; give another folder")
    if there:  # else what was begun there came to nothing
        try:
            former = json_text.parse(path.read_text(encoding="utf-8"))
            if not isinstance(former, dict) or not isinstance(former.get("weights"), list):
                raise ValueError("it names no weights")
            digests = [sorted(str(each["sha256"]) for each in one["weights"]) for one in (former, record)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} cannot be read ({error}); give another --output") from None
        other = [DIFFERENT[name] for name in ("data", "tta") if former.get(name) != record[name]]
        other += [DIFFERENT["weights"]] * (digests[0] != digests[1])
        if other:
            raise UserError(f"--output {output} holds predictions with {' and '.join(other)}; give another folder")
        return
    try:
        write_text(path, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"--output {output}: {RECORD} cannot be written: {reason(error)}") from None
