"""Find the scans of a data folder: LUNA16's ``subset0..9``, or anyone's CT or MR in files or DICOM series."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import SimpleITK as sitk

from datasets.layout import SUBSET, subset_folder, uid_on_disk
from utils.errors import UserError
from utils.native import native_output

SUFFIXES = (".mhd", ".mha", ".nrrd", ".nii", ".nii.gz")


@dataclass(frozen=True)
class Scan:
    """One scan: where its pairs go (``subset``, ``uid``) and where it comes from.

    ``files`` is one file, or the slices of a DICOM series in order. ``problem`` says why it cannot be
    used, where finding it has shown that already.
    """

    subset: int
    uid: str
    files: tuple[Path, ...]
    problem: str = ""

    @property
    def name(self) -> str:
        """``subset0/uid``, as messages and the output folder have it."""
        return f"{subset_folder(self.subset)}/{self.uid}"


def find_scans(data: Path, fold: int | None = None) -> list[Scan]:
    """All scans below ``data``, or those of the subset ``fold``; sorted, with uids that differ.

    Where ``data`` holds folders named subset0..9 with scans in them, as LUNA16 does, only these count.
    Otherwise all scans below ``data`` belong to subset 0. The uid is the file's name or the DICOM
    SeriesInstanceUID; where two scans share it, it is the path below ``data``.

    Raises:
        UserError: no such folder, no scan in it, or none of that fold.
    """
    if not data.is_dir():
        raise UserError(f"--data {data}: no such folder")
    folders = sorted(path for path in data.iterdir() if SUBSET.fullmatch(path.name) and path.is_dir())
    scans = [scan for folder in folders for scan in _scans_below(folder, int(folder.name[-1]))]
    scans = _with_different_uids(scans or list(_scans_below(data, 0)), data)
    if not scans:
        raise UserError(f"--data {data}: no scan found; it should hold {', '.join(SUFFIXES)} files or DICOM series")
    chosen = [scan for scan in scans if fold in (None, scan.subset)]
    if not chosen:
        there = ", ".join(str(subset) for subset in sorted({scan.subset for scan in scans}))
        raise UserError(f"--fold {fold}: {data} has no scan of that subset, only of subset {there}")
    return sorted(chosen, key=lambda scan: (scan.subset, scan.uid))


def _scans_below(top: Path, subset: int) -> Iterator[Scan]:
    for folder, _, names in os.walk(top):
        files = [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
        for file in files:
            if suffix := _suffix(file):
                yield Scan(subset, file.name[: -len(suffix)], (file,))
        slices = [file for file in files if not _suffix(file) and _is_dicom(file)]
        if slices:
            yield from _series(Path(folder), slices, subset)


def _suffix(file: Path) -> str:
    return next((suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix)), "")


def _is_dicom(file: Path) -> bool:
    if file.name == "DICOMDIR":  # an index of other files
        return False
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _series(folder: Path, slices: list[Path], subset: int) -> Iterator[Scan]:
    """The DICOM series of one folder, then a broken one if some of its files belong to none."""
    reader = sitk.ImageSeriesReader
    with native_output():
        series = {
            uid: [Path(file) for file in reader.GetGDCMSeriesFileNames(str(folder), uid)]
            for uid in reader.GetGDCMSeriesIDs(str(folder))
        }
    for uid, files in series.items():
        yield Scan(subset, uid.strip() or folder.name, tuple(files))  # anonymised files may lack the uid
    readable = {file.name for files in series.values() for file in files}
    unreadable = tuple(file for file in slices if file.name not in readable)
    if unreadable:
        problem = f"{len(unreadable)} DICOM files cannot be read, the first is {unreadable[0].name}"
        yield Scan(subset, f"{folder.name}_unreadable", unreadable, problem)


def _with_different_uids(scans: list[Scan], data: Path) -> list[Scan]:
    times = Counter(scan.uid for scan in scans)
    named = []
    for scan in scans:
        if times[scan.uid] > 1:
            path = scan.files[0].relative_to(data)
            parts = path.parts if len(scan.files) == 1 else (*path.parent.parts, scan.uid)
            scan = replace(scan, uid="_".join(parts))
        named.append(scan)
    for uid, count in Counter(scan.uid for scan in named).items():
        if count > 1:
            raise UserError(f"--data {data}: {count} scans would be called {uid}; rename their files")
    return [replace(scan, uid=uid_on_disk(scan.uid)) for scan in named]
