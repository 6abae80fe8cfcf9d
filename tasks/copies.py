"""Images that are in two parts of a task under two names, or in one with two labels: what spoils the results."""

from __future__ import annotations

import itertools
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from utils.console import say, warn
from utils.hashes import TooLateError, hash_of_content, hash_of_ends
from utils.progress import waiting
from utils.text import counted

READERS = 16  # threads: files on a network disk are slow to open, one after another
BATCH = 256  # files between two looks at the clock
LIMIT_S = 120.0  # of the search; other processes wait for it


def warn_of_copies(parts: Mapping[str, Sequence[str | Path]], limit_s: float = LIMIT_S) -> None:
    """Warn where files of two parts have the same content. ``parts``: the paths of each, by its name.

    Images in a store are no files of their own, and are not looked at. The search ends after ``limit_s`` seconds, and
    then says so.
    """
    try:
        with waiting("looking for images that are in two parts"):
            found = _equal_files(parts, time.monotonic() + limit_s)
    except TooLateError:
        say(
            f"images of the same content in two parts: not looked for to the end, as this takes more than {limit_s:g} s"
        )
        return
    for one, other in itertools.combinations(parts, 2):
        pairs = [(group[one][0], group[other]) for group in found if one in group and other in group]
        if pairs:
            count = sum(len(files) for _, files in pairs)
            copy, original = pairs[0][1][0], pairs[0][0]
            names = [Path(copy).name, Path(original).name]
            first = " is ".join(names if names[0] != names[1] else [copy, original])
            warn(
                f"{counted(count, f'{other} image has', f'{other} images have')} the content of {one} images under "
                f"another name ({first}{', ...' if count > 1 else ''}): the results on them are too good; remove them, "
                "or put them into one part"
            )


def warn_of_contradictions(part: str, files: Sequence[str], labels: np.ndarray) -> None:
    """Warn of images that a part lists twice, with different labels. ``labels``: (N, classes), of each of ``files``."""
    last = dict(zip(files, labels, strict=True))
    torn = {
        file for file, label in zip(files, labels, strict=True) if not np.array_equal(label, last[file], equal_nan=True)
    }
    if torn:
        first = next(file for file in files if file in torn)
        warn(
            f"{counted(len(torn), f'{part} image is', f'{part} images are')} listed with different labels (the first: "
            f"{first}): all of these lines count; keep one of them"
        )


def _equal_files(parts: Mapping[str, Sequence[str | Path]], end: float) -> list[dict[str, list[str]]]:
    """Groups of files with the same content that are in several parts: their paths, by part.

    TooLateError at ``end``, of the monotonic clock.
    """
    groups = [{part: sorted({str(file) for file in files}) for part, files in parts.items()}]
    with ThreadPoolExecutor(READERS) as readers:
        # From cheap to dear: few are read as a whole.
        for key in (_size, hash_of_ends, partial(hash_of_content, end=end)):
            files = sorted({file for group in groups for each in group.values() for file in each})
            keys: dict[str, str] = {}
            for batch in _batches(files):
                if time.monotonic() > end:
                    raise TooLateError
                found = zip(batch, readers.map(partial(_key, key), batch), strict=True)
                keys |= {file: value for file, value in found if value}
            groups = [parted for group in groups for parted in _parted(group, keys)]
    return sorted(groups, key=lambda group: min(itertools.chain(*group.values())))


def _batches(files: Sequence[str]) -> Iterator[Sequence[str]]:
    yield from (files[start : start + BATCH] for start in range(0, len(files), BATCH))


def _key(key: Callable[[str], str], file: str) -> str:
    """ "" of a file that cannot be read: it is in a store, or whoever reads it will tell."""
    try:
        return key(file)
    except OSError:
        return ""


def _parted(group: Mapping[str, Sequence[str]], keys: Mapping[str, str]) -> list[dict[str, list[str]]]:
    """The group by the keys of its files, without those whose key is in one part alone."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for part, files in group.items():
        for file in files:
            if file in keys:
                found[keys[file]][part].append(file)
    return [dict(each) for each in found.values() if len(each) > 1]


def _size(file: str) -> str:
    return str(os.stat(file).st_size)
