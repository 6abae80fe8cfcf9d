"""Which pairs or crops in ``--save`` are whose, before any are made: they belong to the content they were cut from.

A record has the ``content`` of its scan's files. So scans that are called otherwise than before are recognised, and
others of the same name are not taken for them. What was read once is not read again while the file system says that
it is unchanged: ``.stamps.json`` has the stamps of the files, where they lay, and the content they had. Records of
earlier versions have no content: they are held to be of any scan of that name with as many bytes in its headers.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from datasets.layout import STAMPS, SUBSET, uid_of_record, uid_on_disk
from preprocess.jobs.flags import cannot_write
from preprocess.jobs.nodules import NoduleJob
from preprocess.jobs.pairs import PairJob
from preprocess.jobs.records import matches, read_record
from preprocess.volumes.content import Files, content_of, files_of, is_former
from utils import json_text
from utils.console import warn
from utils.errors import UserError
from utils.files import write_text
from utils.progress import progress
from utils.text import counted

Job = TypeVar("Job", PairJob, NoduleJob)
SAVE_EVERY_S = 10
DIGITS = 8  # of the content, behind a uid that is taken
KINDS = {"pair": "labelled crops (preprocess/nodule_crops.py)", "crop": "pairs of crops (preprocess/luna_pre.py)"}
SHOWN = 3


class Sources:
    """The files that the jobs of a run cut from, and what ``.stamps.json`` knows of them."""

    def __init__(self, save: Path) -> None:
        self.path = save / STAMPS
        self.entries = _read_stamps(self.path)
        self.seen: dict[tuple[Path, ...], Files | None] = {}
        self.contents: dict[tuple[int, tuple[Path, ...]], str] = {}
        self.saved = time.monotonic()

    def files(self, job: Job) -> Files | None:
        """The files of its scan as they are at the first look; None if they are not all there."""
        key = job.scan.files
        if key not in self.seen:
            self.seen[key] = None
            with suppress(OSError):
                files = files_of(job.scan)
                self.seen[key] = files if files.whole else None
        return self.seen[key]

    def content(self, job: Job, like: str = "") -> str:
        """The content of its scan's files, read once; "" if they cannot be read. ``like``: as in :func:`content_of`."""
        key, files = (len(like), job.scan.files), self.files(job)
        if key not in self.contents:
            self.contents[key] = ""
            with suppress(OSError):
                self.contents[key] = content_of(files, like) if files else ""
        return self.contents[key]

    def belongs(self, job: Job, record: dict[str, Any]) -> bool:
        """Whether the record of this name is of this scan. A scan that cannot be read is left to the job."""
        files = self.files(job)
        if files is None:
            return True
        if "content" not in record:
            return _as_before(record["recipe"], job.recipe())
        entry = self.entries.get(job.scan.name, {})
        if entry.get("content") == record["content"] and entry.get("stamp") == files.stamp:
            return True
        return bool(record.get("size") == files.size and record["content"] == self.content(job, str(record["content"])))

    def former_file(self, job: Job) -> str:
        """Where the scan lay that the record of this name is of; "" if that is not known."""
        return str(self.entries.get(job.scan.name, {}).get("file", ""))

    def lay_below(self, name: str, data: Path) -> bool:
        """Whether the record of this name is of a scan that lay in the folder ``data``, as far as is known."""
        file = str(self.entries.get(name, {}).get("file", ""))
        return bool(file) and Path(file).is_relative_to(os.path.abspath(data))

    def note(self, job: Job) -> None:
        """A job is done: write down what its files were like, now and then."""
        record, files = read_record(job.record), self.files(job)
        if files and record and "content" in record:
            where = os.path.abspath(job.scan.files[0])
            self.entries[job.scan.name] = {"file": where, "stamp": files.stamp, "content": record["content"]}
        if time.monotonic() - self.saved > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write ``.stamps.json``, with what others that run beside us wrote."""
        self.saved = time.monotonic()
        if not self.entries or not self.path.parent.is_dir():
            return
        self.entries = _read_stamps(self.path) | self.entries
        text = json.dumps(self.entries, indent=0, sort_keys=True, ensure_ascii=True)
        try:
            write_text(self.path, text)
        except OSError as error:
            raise cannot_write(self.path.parent, error) from None


def _read_stamps(path: Path) -> dict[str, dict[str, str]]:
    try:
        entries = json_text.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(entries, dict):
        return {}
    return {name: entry for name, entry in entries.items() if isinstance(entry, dict)}


def _as_before(former: Any, now: dict[str, Any]) -> bool:
    return isinstance(former, dict) and all(former.get(name) == now[name] for name in ("files", "bytes"))


def settle(jobs: Sequence[Job], what: str, sources: Sources, replaced: bool) -> list[Job]:
    """The jobs with the uids of the records that are theirs; those that may replace a record are marked ``anew``.

    A scan that made the record of another name, with the same options, goes by that name. ``what`` is made: "pair" or
    "crop". Where an earlier version began, its hashes go on, so that all can be compared.

    Raises:
        UserError: what belongs to another scan would be replaced (unless that is wanted: ``replaced``), or ``--save``
            is another command's.
    """
    save = jobs[0].save
    records = _records(save, what)
    settled: dict[int, Job] = {}
    left: list[int] = []
    claimed: set[Path] = set()
    with progress(len(jobs), "scan", "compared with --save") as bar:
        for number, job in enumerate(jobs):
            record = records.get(job.record)
            if record is not None and sources.belongs(job, record):
                settled[number] = job
                claimed.add(job.record)
            else:
                left.append(number)
            bar.update()
        left = [number for number in left if not _known_by_content(number, jobs, records, claimed, settled, sources)]
    elsewhere = defaultdict(set)
    for path in records:
        elsewhere[path.name].add(path)
    refused = []
    for number in left:
        job = jobs[number]
        others = elsewhere[job.record.name] - {job.record}
        for path in others:
            _refuse_moved(job, path, records[path], sources)
        if job.record in claimed or others:
            uid = uid_on_disk(f"{job.scan.uid}_{sources.content(job)[:DIGITS]}")
            settled[number] = _renamed(job, uid)
            continue
        lost = _made(records[job.record], what) if job.record in records else 0
        refused += [job] * bool(lost)
        settled[number] = replace(job, anew=job.record in records)
    if refused and not replaced:
        raise _others(refused, records, what, sources)
    like = next(filter(is_former, (str(record.get("content", "")) for record in records.values())), "")
    return [replace(settled[number], like=like) for number in range(len(jobs))]


def _refuse_moved(job: Job, path: Path, record: dict[str, Any], sources: Sources) -> None:
    """UserError if the record of another subset is of this scan: it would be in both, for training and for the test."""
    content = record.get("content")
    if sources.files(job) is None:
        return
    if content == sources.content(job, str(content)) if content else _as_before(record["recipe"], job.recipe()):
        there = path.with_name(job.scan.uid)
        raise UserError(
            f"{job.scan.files[0]} is in {path.parent.name} of --save {job.save} already, and would be in "
            f"{job.record.parent.name} as well; remove {there}.json and {there}_*.npy, or give another --save"
        )


def _known_by_content(
    number: int,
    jobs: Sequence[Job],
    records: dict[Path, dict[str, Any]],
    claimed: set[Path],
    settled: dict[int, Job],
    sources: Sources,
) -> bool:
    """Whether a record that is nobody's yet is of this scan, cut alike: the job then gets its uid."""
    job = jobs[number]
    files = sources.files(job)
    if files is None:
        return False
    for path, record in records.items():
        if path in claimed or path.parent != job.record.parent or record.get("size") != files.size:
            continue
        content = record.get("content", "")
        if matches(record, job.recipe()) and content == sources.content(job, str(content)):
            settled[number] = _renamed(job, uid_of_record(path.name))
            claimed.add(path)
            return True
    return False


def _renamed(job: Job, uid: str) -> Job:
    return replace(job, scan=replace(job.scan, uid=uid))


def _records(save: Path, what: str) -> dict[Path, dict[str, Any]]:
    """All records in ``save``, by their paths; UserError if one is another command's."""
    records = {}
    folders = (folder for folder in save.glob("*") if SUBSET.fullmatch(folder.name) and folder.is_dir())
    for path in sorted(path for folder in folders for path in folder.iterdir() if uid_of_record(path.name)):
        if record := read_record(path):
            if f"{what}s" not in record:
                raise UserError(f"--save {save} holds {KINDS[what]}; give another --save")
            records[path] = record
    return records


def _made(record: dict[str, Any], what: str) -> int:
    made = record[f"{what}s"]
    return made if isinstance(made, int) else len(made)


def _others(
    jobs: Sequence[PairJob | NoduleJob], records: dict[Path, dict[str, Any]], what: str, sources: Sources
) -> UserError:
    """The one line for scans that have the names of others whose pairs are there, or have changed since."""
    job = jobs[0]
    file, former = str(job.scan.files[0]), sources.former_file(job)  # type: ignore[type-var]
    more = f" (and {counted(len(jobs) - 1, 'other')} like it)" if len(jobs) > 1 else ""
    number = counted(_made(records[job.record], what), what)
    holds = f"--save {job.save} holds {number} called {job.scan.name}"
    if former == os.path.abspath(job.scan.files[0]):
        return UserError(
            f"{holds}, cut from an earlier content of {file}, which has changed since{more}; give another --save, or "
            f"--replace to replace them"
        )
    return UserError(
        f"{holds}, cut from {former or 'another scan'}, not from {file}, which is another scan of that name{more}; "
        f"give another --save, or one --data with both folders in it, or --replace to replace them"
    )


def of_no_scan(save: Path, what: str, here: Iterable[str]) -> dict[str, int]:
    """How many pairs or crops ``save`` has of each scan, by name, that is not among those that are ``here``."""
    made = {
        f"{path.parent.name}/{uid_of_record(path.name)}": _made(record, what)
        for path, record in _records(save, what).items()
    }
    return {name: made[name] for name in sorted(made.keys() - set(here)) if made[name]}


def warn_of_removed(names: Iterable[str], what: str, sources: Sources, save: Path, data: Path) -> None:
    """Say which scans of these ``names`` were taken out of ``data``; those of other folders may be there still."""
    removed = [name for name in names if sources.lay_below(name, data)]
    if removed:
        shown = ", ".join(removed[:SHOWN]) + ", ..." * (len(removed) > SHOWN)
        warn(
            f"{save} holds {what}s of {counted(len(removed), 'scan')} that {data} no longer has ({shown}), and they "
            f"stay in use; to drop them, delete the .json and .npy files of that name in {save} and run this again"
        )


def warn_of_doubles(save: Path, what: str) -> None:
    """Say if several names in ``save`` stand for the same scan, which then counts several times."""
    names = defaultdict(list)
    for path, record in _records(save, what).items():
        if record.get("content") and _made(record, what):
            names[record["content"]].append(f"{path.parent.name}/{uid_of_record(path.name)}")
    doubles = [group for group in names.values() if len(group) > 1]
    if doubles:
        warn(
            f"{save} holds the same scan under several names, so that it counts several times: {_shown(doubles)}; "
            f"remove the files of all names but one"
        )


def _shown(doubles: Iterable[list[str]]) -> str:
    groups = [" = ".join(group) for group in doubles]
    return "; ".join(groups[:SHOWN]) + ("; ..." if len(groups) > SHOWN else "")
