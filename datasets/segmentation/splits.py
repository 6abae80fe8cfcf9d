"""Which cases are trained on, which choose the epoch, and which are reported on. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils import json_text
from utils.errors import UserError
from utils.seeding import generator

VALID_SHARE = 0.1  # of the cases outside of the fold, one at least: they choose the epoch


@dataclass(frozen=True)
class Split:
    """Names of cases. ``valid`` chooses the epoch, ``test`` is reported on; no case is in two of them."""

    train: list[str]
    valid: list[str]
    test: list[str]


def cross_validation(names: Sequence[str], folds: int, fold: int, seed: int) -> Split:
    """Fold ``fold`` of ``folds`` as the test part. The names are permuted by the seed, then dealt to the folds.

    Over all folds each case is tested once. Of the others the first tenth of the permuted chooses the epoch.
    """
    if not 0 <= fold < folds:
        raise UserError(f"--fold {fold}: with --folds {folds} they are numbered 0 to {folds - 1}")
    if len(names) < max(folds, 3):
        raise UserError(f"--folds {folds}: there are only {len(names)} cases; each part needs at least one case")
    order = _permuted(names, seed)
    test = order[fold::folds]
    rest = [name for name in order if name not in set(test)]
    if len(rest) < 2:
        raise UserError(f"--folds {folds}: only {len(rest)} of {len(names)} cases are left for training and validation")
    count = _valid_count(len(rest))
    return Split(rest[count:], rest[:count], test)


def read_split(path: Path, names: Sequence[str], fold: int, seed: int) -> Split:
    """Entry ``fold`` of a file like nnU-Net's ``splits_final.json``: a list of {"train": names, "val": names}.

    ``val`` is the test part, and a tenth of ``train``, permuted by the seed, chooses the epoch. If there is a list
    ``test``, too, that is the test part, and ``val`` chooses the epoch.
    """
    entry = _entry(path, fold)
    unknown = [name for part in entry.values() for name in part if name not in set(names)]
    if unknown:
        raise UserError(f"--split {path}: there is no case {unknown[0]} ({len(unknown)} names are unknown)")
    listed = [name for part in entry.values() for name in part]
    twice = {name for name in listed if listed.count(name) > 1}
    if twice:
        raise UserError(f"--split {path}, entry {fold}: {min(twice)} occurs twice; each case may be in one part only")
    if "test" in entry:
        split = Split(_permuted(entry["train"], seed), sorted(entry["val"]), sorted(entry["test"]))
    else:
        order = _permuted(entry["train"], seed)
        count = _valid_count(len(order))
        split = Split(order[count:], order[:count], sorted(entry["val"]))
    if not (split.train and split.valid and split.test):
        raise UserError(f"--split {path}, entry {fold}: the training, validation or test part has no case")
    return split


def _permuted(names: Sequence[str], seed: int) -> list[str]:
    order = generator(seed, "cases").permutation(len(names))
    ordered = sorted(names)
    return [ordered[index] for index in order]


def _valid_count(count: int) -> int:
    return max(1, round(VALID_SHARE * count))


def _entry(path: Path, fold: int) -> dict[str, list[str]]:
    try:
        entries: Any = json_text.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--split {path} cannot be read as JSON: {error}") from None
    entries = entries if isinstance(entries, list) else [entries]
    if not 0 <= fold < len(entries):
        raise UserError(f"--fold {fold}: --split {path} has {len(entries)} entries, numbered from 0")
    entry = entries[fold]
    if not isinstance(entry, dict) or not {"train", "val"} <= entry.keys() <= {"train", "val", "test"}:
        raise UserError(f'--split {path}, entry {fold}: it has to be {{"train": [names], "val": [names]}}')
    for part, names in entry.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f'--split {path}, entry {fold}: "{part}" is no list of names')
    return entry
