"""Find the scans of a data folder: LUNA16's ``subset0..9``, or anyone's CT or MR in files or DICOM series."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.ct.label_headers import header_says_labels
from datasets.layout import (
    LABELS_ALONE,
    SCANS,
    SUBSET,
    is_label_map,
    not_the_users,
    scan_suffix,
    subset_folder,
    uid_on_disk,
)
from utils.console import say, warn
from utils.errors import UserError, reason
from utils.text import counted, listing

if TYPE_CHECKING:  # pydicom takes a third of a second to load
    from datasets.ct.split_series import Part

NOT_DICOM = (".npy", ".json", ".txt", ".csv", ".png", ".jpg", ".raw", ".zraw", ".gz", ".zip", ".pt", ".md")  # unopened
NAMED = 3  # files that a line names of many
OTHER_FORMATS = re.compile(  # of volumes, that are not read: beside the data of .hdr and .nhdr files, .img and others
    r".*\.(n?hdr|mg[hz]|mnc|gipl|gipl\.gz|(nii|dcm|mhd|mha|nrrd|hdr)\.(gz|bz2|xz|zst|zip))", re.IGNORECASE | re.DOTALL
)
LABEL_HEADER = "label map by its header"


@dataclass(frozen=True)
class Scan:
    """One scan: where its pairs go (``subset``, ``uid``) and where it comes from.

    ``files`` is one file, or the slices of a DICOM series in any order. ``problem`` says why it cannot be
    used, where finding it has shown that already. ``shared_uid``: what several scans would be called, which have
    other uids therefore.
    """

    subset: int
    uid: str
    files: tuple[Path, ...]
    problem: str = ""
    shared_uid: str = ""

    @property
    def name(self) -> str:
        """``subset0/uid``, as messages and the output folder have it."""
        return f"{subset_folder(self.subset)}/{self.uid}"


@dataclass
class _Found:
    """Scans, and what was met beside them."""

    scans: list[Scan] = field(default_factory=list)
    labels: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    parts: list[Part] = field(default_factory=list)
    split: list[list[Part]] = field(default_factory=list)

    def leave_out_split(self) -> None:
        """Take out the scans of series that lie in several folders: none of them is whole."""
        from datasets.ct.series import SINGLE  # here: pydicom takes a third of a second to load
        from datasets.ct.split_series import split_series

        self.split = split_series(self.parts)
        files = {file for group in self.split for part in group for file in part.files}
        self.scans = [scan for scan in self.scans if scan.files[0] not in files]
        self.passed_over[SINGLE] -= sum(len(part.files) == 1 for group in self.split for part in group)
        self.passed_over = +self.passed_over


@dataclass(frozen=True)
class _Folder:
    """A folder below the data: the subset it belongs to (None: none), the names of its files."""

    path: Path
    subset: int | None
    names: tuple[str, ...]


def find_scans(data: Path, fold: int | None = None) -> list[Scan]:
    """All scans below ``data``, or those of the subset ``fold``; sorted, with uids that differ.

    Where folders named subset0..9 with scans in them lie below ``data``, as LUNA16 has them, only these count.
    Otherwise all scans belong to subset 0. The uid is the file's name or the DICOM SeriesInstanceUID; where two scans
    share it, it is the path below ``data``. Links to folders are followed, hidden folders and files are not. Label maps
    and DICOM objects without an image of the body are passed over; one line counts them.

    Raises:
        UserError: no such folder, no scan in it, or none of that fold.
    """
    if not data.is_dir():
        raise UserError(f"--data {data}: " + ("this is not a folder" if data.exists() else "no such folder"))
    folders = list(_folders(data, data, None, set()))
    found = _search([folder for folder in folders if folder.subset is not None], data)
    if found.scans or found.split:
        _tell_outside([folder for folder in folders if folder.subset is None], data)
    else:
        found = _search([replace(folder, subset=0) for folder in folders], data)
    scans = _with_different_uids(found.scans, data)
    passed = _passed_over(found, data)
    notes = [note for note in (_of_other_formats(found.others), _split(found, data)) if note]
    if not scans:
        what = f"no scan found; it should hold {', '.join(SCANS)} files or DICOM series"
        raise UserError(f"--data {data}: {what}" + "".join(f" ({note})" for note in (passed, *notes) if note))
    if passed:
        say(passed)
    for note in notes:
        warn(note)
    chosen = [scan for scan in scans if fold in (None, scan.subset)]
    if not chosen:
        there = ", ".join(str(subset) for subset in sorted({scan.subset for scan in scans}))
        raise UserError(f"--fold {fold}: {data} has no scan of that subset, only of subset {there}")
    return sorted(chosen, key=lambda scan: (scan.subset, scan.uid))


def _folders(folder: Path, data: Path, subset: int | None, seen: set[str]) -> Iterator[_Folder]:
    """The folder and all below it, each once, whatever links lead to it; what is a folder's own comes before links."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        with os.scandir(folder) as listed:
            entries = sorted((entry for entry in listed if not not_the_users(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"--data {data}: {folder} cannot be read: {reason(error)}") from None
    # Whatever their names: some unpack case.nii.gz to case.nii/case.nii.
    below = [entry for entry in entries if (os.path.isdir(entry) if entry.is_symlink() else entry.is_dir())]
    names = {entry.name for entry in entries} - {entry.name for entry in below}
    yield _Folder(folder, subset, tuple(sorted(names)))
    for entry in sorted(below, key=lambda entry: (entry.is_symlink(), entry.name)):
        match = SUBSET.fullmatch(entry.name)
        yield from _folders(Path(entry.path), data, int(match["number"]) if match else subset, seen)


def _search(folders: Sequence[_Folder], data: Path) -> _Found:
    found = _Found()
    seen = {os.path.realpath(folder.path) for folder in folders}  # folders, then files that links lead to
    for folder in folders:
        others: list[Path] = []
        for name in folder.names:
            file = folder.path / name
            suffix = scan_suffix(name)
            if file.is_symlink() and os.path.exists(file):  # a link to nowhere is a scan that is missing
                real = os.path.realpath(file)
                if real in seen or (os.path.dirname(real) in seen and _counts(os.path.basename(real), suffix)):
                    continue  # it counts where it lies
                seen.add(real)
            if not suffix:
                (found.others if OTHER_FORMATS.fullmatch(name) else others).append(file)
            elif _is_label_map(file, data):
                found.labels.append(file)
            elif header_says_labels(file):
                found.passed_over[LABEL_HEADER] += 1
            else:
                found.scans.append(Scan(folder.subset or 0, name[: -len(suffix)], (file,)))
        _search_dicom(folder, [file for file in others if file.suffix.lower() not in NOT_DICOM], found)
    if found.parts:
        found.leave_out_split()
    return found


def _counts(name: str, suffix: str) -> bool:
    """Whether a file of this name is looked at by itself, as a link to it with this suffix of a scan is."""
    return not name.startswith(".") and bool(scan_suffix(name)) == bool(suffix)


def _is_label_map(file: Path, data: Path) -> bool:
    """Below ``data``, or in a folder of labels that is given itself."""
    return is_label_map(file.relative_to(data)) or bool(LABELS_ALONE.fullmatch(data.resolve().name))


def _search_dicom(folder: _Folder, files: list[Path], found: _Found) -> None:
    """The DICOM series of one folder, then a broken one if some of its files cannot be read."""
    if not files:
        return
    from datasets.ct.series import find_series  # here: pydicom takes a third of a second to load

    there = find_series(files)
    subset = folder.subset or 0
    for uid, slices in there.series:
        found.scans.append(Scan(subset, uid or folder.path.name, slices))  # anonymised files may lack the uid
    found.passed_over += there.passed_over
    found.parts += there.parts
    if there.left_out:
        warn(
            f"{folder.path}: slices left out (localizers, or slices of another size or orientation): "
            f"{_listed(there.left_out)}"
        )
    if there.unreadable:
        files = [file for file, _ in there.unreadable]
        why = there.unreadable[0][1]
        problem = f"{len(files)} DICOM files cannot be read, the first is {files[0].name} ({why})"
        found.scans.append(Scan(subset, f"{folder.path.name}_unreadable", tuple(files), problem))


def _passed_over(found: _Found, data: Path) -> str:
    """One line on what holds no image of the body; "" if nothing does."""
    kinds = [f"{count} {kind}" for kind, count in sorted(found.passed_over.items())]
    if found.labels:
        maps = counted(len(found.labels), "label map")
        kinds.append(f"{maps} (by name: {found.labels[0].relative_to(data)}{', ...' * (len(found.labels) > 1)})")
    return f"passed over, since they hold no volume of the body: {', '.join(kinds)}" if kinds else ""


def _split(found: _Found, data: Path) -> str:
    """One line on series that lie in several folders; "" if there are none."""
    if not found.split:
        return ""
    from datasets.ct.split_series import split_in_words

    return split_in_words(found.split, data)


def _of_other_formats(files: Sequence[Path]) -> str:
    """One line on volumes that are not read; "" if there are none."""
    return f"not read, being of another format: {_listed(files)}; convert to .nii.gz" if files else ""


def _tell_outside(folders: Sequence[_Folder], data: Path) -> None:
    """Warn of scans that are not in a subset while others are; of DICOM, of the folders alone."""
    files = [folder.path / name for folder in folders for name in folder.names if scan_suffix(name)]
    files = [file for file in files if not _is_label_map(file, data)]
    series = [folder.path for folder in folders if _begins_with_dicom(folder)]
    kinds = [f"{counted(len(files), 'scan')} ({_listed(files)})"] * bool(files)
    kinds += [f"{counted(len(series), 'folder')} of DICOM ({_listed(series)})"] * bool(series)
    if kinds:
        warn(f"left out, since they lie outside of the subset folders: {listing(kinds)}")


def _begins_with_dicom(folder: _Folder) -> bool:
    """Whether one of the first files that may be DICOM is: all would be many."""
    names = [name for name in folder.names if not scan_suffix(name) and name != "DICOMDIR"]
    files = [folder.path / name for name in names if not name.lower().endswith(NOT_DICOM)]
    if not files:
        return False
    from datasets.ct.dicom import is_dicom  # here: pydicom takes a third of a second to load

    for file in files[:NAMED]:
        with suppress(OSError):
            if is_dicom(file):
                return True
    return False


def _listed(files: Sequence[Path]) -> str:
    names = [file.name for file in files]
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _with_different_uids(scans: list[Scan], data: Path) -> list[Scan]:
    times = Counter(scan.uid for scan in scans)
    named = []
    for scan in scans:
        if times[scan.uid] > 1:
            path = scan.files[0].relative_to(data)
            parts = path.parts if len(scan.files) == 1 else (*path.parent.parts, scan.uid)
            scan = replace(scan, uid="_".join(parts), shared_uid=uid_on_disk(scan.uid))
        named.append(scan)
    for uid, count in Counter(scan.uid for scan in named).items():
        if count > 1:
            raise UserError(f"--data {data}: {count} scans would be called {uid}; rename their files")
    return [replace(scan, uid=uid_on_disk(scan.uid)) for scan in named]
