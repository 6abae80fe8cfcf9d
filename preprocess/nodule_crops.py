"""Cut the crops that nodule classification reads out of LUNA16's scans.

A crop has --input_rows x --input_cols x --input_deps voxels of 1 mm (x, y, z). One crop is cut around each nodule
of candidates_V2.csv, and around up to --max_negatives of its positions without a nodule. If only annotations.csv is
there, the positions without a nodule are drawn at random: at least 10 mm away from every nodule, and with at least
30 % lung in the crop. Voxels outside the scan are filled with air.

Files: SAVE/subset<k>/<uid>_crop_<j>.npy, scaled to [0, 1], and SAVE/labels.csv, with one line per crop. The same
command continues an interrupted run.

Exit status: 0; 1 if a scan is broken or there is no crop at all; 2 if the options are wrong or no scan can be read.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script, from any folder: imports start at the project's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from utils.requirements import say_missing_packages

    say_missing_packages()

from datasets.layout import CROP, LABELS, record_name, subset_folder
from preprocess.jobs.flags import at_least, folders, hu_window, would_be_lost, writable
from preprocess.jobs.hold import holding, holding_lists
from preprocess.jobs.kinds import warn_of_units
from preprocess.jobs.nodule_table import Table, find_table
from preprocess.jobs.nodules import (
    OPTION_WORDS,
    CropOptions,
    NoduleJob,
    NoduleOutcome,
    make_crops,
    write_labels,
)
from preprocess.jobs.records import clear, read_record, refuse_others
from preprocess.jobs.run import run_jobs, tell
from preprocess.jobs.settle import Sources, of_no_scan, settle, warn_of_doubles, warn_of_removed
from preprocess.volumes.files import Scan, find_scans
from utils.cli import Parser
from utils.console import say, warn
from utils.cores import available_cores
from utils.errors import UserError, complain, run_cli
from utils.progress import waiting
from utils.text import counted

SMALLEST, MULTIPLE = 16, 8
SHOWN = 3  # names of scans in a line
EXAMPLES = """example:
  python preprocess/nodule_crops.py --data LUNA_dataset_path --save nodule_crops_path
  python main.py --data nodule_crops_path --n nodules --phase finetune --ratio 1.0 --weight my_3d_run/last.pt \\
    --output nodules_finetuned
"""


def build_parser() -> Parser:
    """The command's flags."""
    usage = "nodule_crops.py --data FOLDER --save FOLDER [flags]"
    parser = Parser(usage=usage, description=__doc__, epilog=EXAMPLES)

    def add(name: str, text: str, metavar: str | None = None, **more: Any) -> None:
        parser.add_argument(name, help=text, metavar=metavar, **({"type": int} | more))

    add("--data", "needed: LUNA16, with candidates_V2.csv or annotations.csv beside subset0..9", "FOLDER", type=Path)
    add("--save", "needed: where the crops go", "FOLDER", type=Path)
    table = "table of nodule positions (default: candidates_V2.csv, else annotations.csv, in --data or its CSVFILES)"
    add("--table", table, "FILE", type=Path)
    add("--input_rows", "size of a crop in x (default: 64)", "VOXELS", default=64)
    add("--input_cols", "size of a crop in y (default: 64)", "VOXELS", default=64)
    add("--input_deps", "size of a crop in z (default: 32)", "VOXELS", default=32)
    add("--max_negatives", "maximum number of crops without a nodule per scan (default: 20)", "N", default=20)
    add("--seed", "random seed for crops without a nodule, combined with a scan's uid (default: 0)", "N", default=0)
    add("--workers", "processes (default: one per core)", "N", default=available_cores())
    add("--fold", "make the crops of this subset alone, 0 to 9 (default: all)", "N")
    add("--hu_min", "CT window, lower end in Hounsfield units; becomes 0 (default: -1000)", "HU", default=-1000)
    add("--hu_max", "CT window, upper end in Hounsfield units; becomes 1 (default: 1000)", "HU", default=1000)
    replace_help = (
        "replace crops in --save that were made with other options or another table, or of another scan of the same "
        "name; remove those of scans that the table no longer names"
    )
    parser.add_argument("--replace", action="store_true", help=replace_help)
    dtypes = ("float32", "float16")
    numbers = "data type of the .npy files (default: float32)"
    add("--dtype", numbers, "|".join(dtypes), type=str, choices=dtypes, default="float32")
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the flags.

    Raises:
        UserError: an unknown flag (with the nearest there is), a missing one, a value out of range.
    """
    flags = build_parser().parse(argv)
    folders(flags, "data", "save")
    for name in ("input_rows", "input_cols", "input_deps"):
        side = getattr(flags, name)
        if side < SMALLEST or side % MULTIPLE:
            raise UserError(f"--{name} {side}: it must be a multiple of {MULTIPLE}, at least {SMALLEST}")
    for name, smallest in {"max_negatives": 1, "seed": 0, "workers": 1}.items():
        at_least(flags, name, smallest)
    if flags.fold is not None and flags.fold not in range(10):
        raise UserError(f"--fold {flags.fold}: the subsets are 0 to 9")
    hu_window(flags)
    return flags


def make_jobs(flags: argparse.Namespace, scans: list[Scan], table: Table) -> list[NoduleJob]:
    """What there is to do; scans that the table does not name have negatives at most, drawn ones."""
    number = len(scans)
    found = {uid for scan in scans for uid in (scan.uid, scan.shared_uid)}
    table = table.by_scan(found)
    scans = _without_doubtful(scans, table)
    named = [scan for scan in scans if scan.uid in table.places]
    if not named:
        there = counted(number, "scan")
        raise UserError(f"{table.path} lists none of the {there} in {flags.data}; give their own --table")
    absent = sorted(table.places.keys() - found) if flags.fold is None else []
    if absent:
        some = f"{absent[0]}{', ...' if len(absent) > 1 else ''}"
        missed = "; if one is there under another name, its nodules are not known" * (not table.negatives)
        warn(f"{table.path} names {counted(len(absent), 'scan')} that {flags.data} does not have ({some}){missed}")
    if len(named) < len(scans) and table.negatives:
        warn(f"{table.path} does not name {len(scans) - len(named)} of the {len(scans)} scans; they are left out")
    shape = (flags.input_rows, flags.input_cols, flags.input_deps)
    options = CropOptions(shape, flags.max_negatives, flags.seed, flags.hu_min, flags.hu_max, flags.dtype)
    return [
        NoduleJob(scan, table.places.get(scan.uid, ()), not table.negatives, options, flags.save)
        for scan in (named if table.negatives else scans)
    ]


def _without_doubtful(scans: list[Scan], table: Table) -> list[Scan]:
    """Without those that share a name that the table has: which of them it means is not known. Warns of them."""
    alike = [scan for scan in scans if scan.shared_uid in table.places]
    if alike:
        names = ", ".join(scan.name for scan in alike[:SHOWN]) + ", ..." * (len(alike) > SHOWN)
        warn(
            f"{table.path} names {alike[0].shared_uid}, and several scans are called so ({names}): they are left out; "
            "keep the one that the table means"
        )
    return [scan for scan in scans if scan not in alike]


def refuse_other_table(save: Path, jobs: list[NoduleJob], scans: list[Scan]) -> None:
    """UserError if ``save`` has crops at other places of these ``scans``, of a table that was another one then."""
    number, first = 0, ""
    for job in jobs:
        record = None if job.anew else read_record(job.record, "crops")
        former, places = record["recipe"] if record else {}, json.loads(json.dumps(list(map(asdict, job.places))))
        if record and isinstance(former, dict) and former.get("places", places) != places:
            number, first = number + len(record["crops"]), first or job.scan.name
    for scan, path in _not_named(save, jobs, scans):
        if record := read_record(path, "crops"):
            number, first = number + len(record["crops"]), first or scan.name
    if number:
        what = f"{counted(number, 'crop')} at other places than the table has, or of scans that are left out now"
        raise would_be_lost(save, f"{what} (the first of {first})")


def _not_named(save: Path, jobs: list[NoduleJob], scans: list[Scan]) -> list[tuple[Scan, Path]]:
    """The scans that are left out, and where the records of their crops would be."""
    named = {job.scan.files for job in jobs}  # a scan may go on under the name that it had
    others = [scan for scan in scans if scan.files not in named]
    return [(scan, save / subset_folder(scan.subset) / record_name(scan.uid)) for scan in others]


def summary(outcomes: list[NoduleOutcome], shape: tuple[int, ...], save: Path, seconds: float) -> str:
    """The report of a run: what was written, what was there, one line a scan that is broken or fell short."""
    done = [outcome for outcome in outcomes if outcome.done_before]
    made = [outcome for outcome in outcomes if not outcome.problem and not outcome.done_before]
    size = f"of {' x '.join(map(str, shape))} voxels"
    if made or not done:
        lines = [f"{_crops_of(made)} {size} written to {save} in {seconds:.1f} s"]
        lines += [f"{_crops_of(done)} were there before"] * bool(done)
    else:
        lines = [f"{_crops_of(done)} {size} in {save}, all of them there already ({seconds:.1f} s)"]
    lines += [f"broken: {outcome.name}: {outcome.problem}" for outcome in outcomes if outcome.problem]
    lines += [f"fewer crops: {outcome.name}: {outcome.shortage}" for outcome in outcomes if outcome.shortage]
    return "\n".join(lines)


def _crops_of(outcomes: list[NoduleOutcome]) -> str:
    positives, negatives = (sum(getattr(outcome, name) for outcome in outcomes) for name in ("positives", "negatives"))
    return f"{counted(positives, 'crop')} with a nodule and {negatives} without from {counted(len(outcomes), 'scan')}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    flags = parse(argv)
    writable(flags.save)
    with holding(flags.save, flags.fold):
        return _cut(flags, time.monotonic())


def _cut(flags: argparse.Namespace, started: float) -> int:
    with waiting(f"looking for scans in {flags.data}"):
        scans = find_scans(flags.data, flags.fold)
    sources = Sources(flags.save)
    jobs = make_jobs(flags, scans, find_table(flags.data, flags.table))
    jobs = settle(jobs, "crop", sources, flags.replace)
    if flags.replace:
        gone = [record for _, record in _not_named(flags.save, jobs, scans) if record.exists()]
        for record in gone:
            clear(record, CROP)
        if gone:
            say(f"removed the crops of {counted(len(gone), 'scan')}, left out now")
    else:
        refuse_others(flags.save, "crop", jobs, OPTION_WORDS)
        refuse_other_table(flags.save, jobs, scans)
    outcomes = run_jobs(
        make_crops, lambda name, problem: NoduleOutcome(name, problem=problem), jobs, flags.workers, sources
    )
    report = summary(outcomes, jobs[0].options.shape, flags.save, time.monotonic() - started)
    broken = tell(outcomes, report, flags.data)
    warn_of_units(outcomes, "mend their rescale intercept")
    here = {each.name for each in scans} | {job.scan.name for job in jobs}  # a table may leave out some
    absent = of_no_scan(flags.save, "crop", here) if flags.fold is None else {}
    with holding_lists(flags.save, flags.fold):
        listed = write_labels(flags.save)
    if listed:
        beside = f", {sum(absent.values())} of them of scans that are not in {flags.data}" if absent else ""
        say(
            f"{flags.save / LABELS} lists {counted(listed, 'crop')}{beside}; to learn from them: python main.py --data "
            f"{shlex.quote(str(flags.save))} --n nodules --phase finetune --ratio 1.0 --output my_nodules (--weight "
            "FILE: from pre-trained weights)"
        )
    warn_of_removed(absent, "crop", sources, flags.save, flags.data)
    made = any(outcome.positives or outcome.negatives for outcome in outcomes)
    if not made:
        complain(
            f"--data {flags.data} gives no crop: its readable scans have no nodule in the table, and too little lung "
            f"(voxels of -950 to -500 HU) to draw places without one"
        )
    warn_of_doubles(flags.save, "crop")
    return 1 if broken or not made else 0


if __name__ == "__main__":
    run_cli(main)
