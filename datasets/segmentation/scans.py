"""Scans to be segmented: those of any folder, without labels. Free of torch.

A scan is a file of datasets/layout.py's SCANS, several of nnU-Net's (``<case>_0000.nii.gz`` ..) where the network reads
several channels, or a DICOM series.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datasets.ct.errors import ScanError
from datasets.ct.grid import upright
from datasets.ct.itk import read_file
from datasets.ct.label_headers import header_says_labels
from datasets.layout import SCANS, is_label_map, not_the_users, scan_suffix
from datasets.segmentation.files import CHANNEL, channels_of, stacked
from utils.console import say, warn
from utils.errors import UserError, reason
from utils.text import counted

if TYPE_CHECKING:  # pydicom takes a third of a second to load
    from datasets.ct.split_series import Part

LARGEST_MM = 3000  # of a scan
NOT_DICOM = (".npy", ".json", ".txt", ".csv", ".png", ".jpg", ".raw", ".zraw", ".gz", ".zip", ".pt", ".md")  # unopened


@dataclass(frozen=True)
class Scan:
    """``name``: its path below the data, without suffix. ``files``: of its channels, or the slices of a DICOM series.

    ``problem``: why it cannot be read, where finding it has shown that.
    """

    name: str
    files: tuple[Path, ...]
    problem: str = ""


def find_scans(data: Path, channels: int, without: Sequence[Path] = ()) -> list[Scan]:
    """The scans below ``data``, by name; label maps, hidden files and the folders ``without`` are passed over.

    ``channels``: that a network reads. With one, each file is a scan; nnU-Net's ``_0000`` is left out of names where
    all files have it. UserError if there are none, or two of one name.
    """
    scans: list[Scan] = []
    labels: list[str] = []
    parts: list[Part] = []
    for folder, names in _folders(data, without):
        below = folder.relative_to(data)
        volumes = [name for name in names if scan_suffix(name)]
        maps = [name for name in volumes if is_label_map(below / name) or header_says_labels(folder / name)]
        labels += [str(below / name) for name in maps]
        scans += _of_files(folder, below, sorted({*volumes} - {*maps}), channels)
        others = [folder / name for name in names if not scan_suffix(name) and not name.lower().endswith(NOT_DICOM)]
        scans += _of_dicom(others, below if below.name else Path(data.resolve().name), parts)
    scans, split = _whole(scans, parts, data)
    if labels:
        say(f"passed over in {data}: {counted(len(labels), 'label map')} ({labels[0]}{', ...' * (len(labels) > 1)})")
    if not scans:
        raise UserError(f"--data {data} holds no scans ({', '.join(SCANS)} or DICOM series){split and f'; {split}'}")
    if split:
        warn(split)
    scans.sort(key=lambda scan: scan.name)
    for scan, other in itertools.pairwise(scans):
        if scan.name == other.name:
            raise UserError(f"--data {data}: {scan.files[0]} and {other.files[0]} would have the same mask; rename one")
    return scans


def read_scan(scan: Scan, channels: int) -> tuple[np.ndarray, tuple[float, ...]]:
    """What a case of training has, of a scan: float32 (channels, X, Y, Z) in LPS, and the spacing in mm; ScanError."""
    if scan.problem:
        raise ScanError(scan.problem)
    try:
        if scan.files[0].name.lower().endswith(SCANS):
            images = [channel for file in scan.files for channel in channels_of(read_file(file))]
        else:
            from datasets.ct.dicom_series import read_series  # here: pydicom takes a third of a second to load

            images = channels_of(upright(read_series(scan.files)))
        if len(images) != channels:
            raise ScanError(f"it has {counted(len(images), 'channel')}, and the network reads {channels}")
        extent = [n * spacing for n, spacing in zip(images[0].GetSize(), images[0].GetSpacing(), strict=True)]
        if max(extent) > LARGEST_MM:
            sides = " x ".join(f"{side:.6g}" for side in extent)
            raise ScanError(f"it would measure {sides} mm: its spacing must be wrong")
        return stacked(images), images[0].GetSpacing()
    except (OSError, ValueError, RuntimeError) as error:
        why = reason(error) if isinstance(error, OSError) else " ".join(str(error).split())
        raise ScanError(why) from None


def _folders(data: Path, without: Sequence[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder below ``data`` once, whatever links lead there, with the names of its files."""
    seen = {os.path.realpath(folder) for folder in without}

    def refuse(error: OSError) -> None:
        raise UserError(f"--data {data}: {error.filename} cannot be read: {reason(error)}") from None

    for folder, below, names in os.walk(data, followlinks=True, onerror=refuse):
        real = os.path.realpath(folder)
        below[:] = sorted(name for name in below if not not_the_users(name))
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        yield Path(folder), sorted(name for name in names if not name.startswith("."))


def _of_files(folder: Path, below: Path, names: Sequence[str], channels: int) -> Iterator[Scan]:
    """The scans of the volumes in a folder."""
    stems = {name: name[: -len(scan_suffix(name))] for name in names}
    matches = {name: CHANNEL.fullmatch(stem) for name, stem in stems.items()}
    if channels == 1:
        short = all(match and match["channel"] == "0000" for match in matches.values())
        for name, match in matches.items():
            yield Scan(str(below / (match["case"] if match and short else stems[name])), (folder / name,))
        return
    cases: dict[str, dict[int, Path]] = {}
    for name, match in matches.items():
        if match:
            cases.setdefault(match["case"], {})[int(match["channel"])] = folder / name
        else:
            yield Scan(str(below / stems[name]), (folder / name,))
    for case, files in cases.items():
        there = sorted(files)
        if 0 not in files or len(files) > channels:  # these digits number scans, each with all channels in its file
            yield from (Scan(str(below / stems[file.name]), (file,)) for file in files.values())
            continue
        problem = "" if there == list(range(channels)) else f"it has the channels {there}, not 0 to {channels - 1}"
        yield Scan(str(below / case), tuple(files[number] for number in there), problem)


def _whole(scans: list[Scan], parts: Sequence[Part], data: Path) -> tuple[list[Scan], str]:
    """The scans without those of series that lie in several folders, and one line on these."""
    if not parts:
        return scans, ""
    from datasets.ct.split_series import split_in_words, split_series

    groups = split_series(parts)
    files = {file for group in groups for part in group for file in part.files}
    return [scan for scan in scans if scan.files[0] not in files], split_in_words(groups, data)


def _of_dicom(files: Sequence[Path], below: Path, parts: list[Part]) -> Iterator[Scan]:
    """The series of a folder, named after it if there is one alone; what may be parts of one goes to ``parts``."""
    if not files:
        return
    from datasets.ct.series import find_series  # here: pydicom takes a third of a second to load

    found = find_series(files)
    parts += found.parts
    for number, (uid, slices) in enumerate(found.series):
        name = below if len(found.series) == 1 else below / (uid or f"series_{number + 1}")
        yield Scan(str(name), slices)
    if found.left_out:
        names = ", ".join(file.name for file in found.left_out)
        warn(f"{below}: left out of their series, being localizers or of another size or orientation: {names}")
    if found.unreadable:
        file, why = found.unreadable[0]
        problem = f"{len(found.unreadable)} DICOM files cannot be read, the first is {file.name} ({why})"
        yield Scan(str(below / "unreadable"), tuple(file for file, _ in found.unreadable), problem)
