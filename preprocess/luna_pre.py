"""Make the pairs of crops that 3D pre-training reads, from LUNA16 or from anyone's CT or MR.

Each scan is resampled to 1 mm. Up to --scale pairs of overlapping boxes are cut from it, resized to --input_rows x
--input_cols x --input_deps voxels (x, y, z) and scaled to [0, 1].

Files: SAVE/subset<k>/<uid>_img_<j>.npy, shape (2, rows, cols, deps), and SAVE/luna_train.txt, the names of the scans
of subsets 0-6. --recipe pcrlv2 cuts other boxes, for --model pcrlv2: pairs <uid>_global_<j>.npy, and six small crops
from around each pair, <uid>_local_<j>.npy, shape (6, 16, 16, 16).

The same command continues an interrupted run. A worker needs 0.3 GB of memory plus the size of a scan: 0.6 GB for
512 x 512 x 600 voxels of 16 bits, in all.
Exit status: 0; 1 if a scan is broken or there is no pair at all; 2 if the options are wrong or no scan can be read.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script, from any folder: imports start at the project's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from utils.requirements import say_missing_packages

    say_missing_packages()

from datasets.layout import TRAINING_LIST, TRAINING_SUBSETS, subset_folder
from preprocess.jobs.flags import at_least, cannot_write, folders, hu_window, writable
from preprocess.jobs.hold import holding, holding_lists
from preprocess.jobs.kinds import warn_of_slices, warn_of_units
from preprocess.jobs.pairs import (
    FLAT,
    LOW_CONTRAST,
    OPTION_WORDS,
    RECIPES,
    TISSUE_HU,
    PairJob,
    PairOptions,
    PairOutcome,
    kept_flat,
    make_pairs,
    refuse_other_recipe,
    write_training_list,
)
from preprocess.jobs.preview import FILE_NAME, draw_preview
from preprocess.jobs.records import refuse_others
from preprocess.jobs.run import run_jobs, tell
from preprocess.jobs.settle import Sources, of_no_scan, settle, warn_of_doubles, warn_of_removed
from preprocess.volumes.files import find_scans
from utils.cli import Parser
from utils.console import say, warn
from utils.cores import available_cores
from utils.errors import UserError, complain, run_cli
from utils.progress import waiting
from utils.text import counted

EXAMPLES = """examples:
  as published:
    python preprocess/luna_pre.py --data LUNA_dataset_path --save processedLUNA_save_path
  for --model pcrlv2:
    python preprocess/luna_pre.py --recipe pcrlv2 --data LUNA_dataset_path --save crops_of_pcrlv2
  the abdomen in soft tissue's window, and a picture of six pairs:
    python preprocess/luna_pre.py --data my_scans --save my_pairs --hu_min -150 --hu_max 250 --preview 6
"""
SMALLEST = (32, 32, 16)
SHOWN = 3  # names of scans in a line
TRAINED_ON = tuple(f"{subset_folder(subset)}/" for subset in TRAINING_SUBSETS)
LARGEST_STD = 0.5  # there is, of values in [0, 1]


def build_parser() -> Parser:
    """The command's flags."""
    parser = Parser(
        usage="luna_pre.py --data FOLDER --save FOLDER [flags]",
        description=__doc__,
        epilog=EXAMPLES,
    )

    def add(name: str, text: str, metavar: str | None = None, **more: Any) -> None:
        parser.add_argument(name, help=text, metavar=metavar, **({"type": int} | more))

    add(
        "--data",
        "needed: LUNA16 (subset0..9), or a folder of .mhd .mha .nrrd .nii .nii.gz or DICOM scans",
        "FOLDER",
        type=Path,
    )
    add("--save", "needed: where the pairs go", "FOLDER", type=Path)
    add(
        "--recipe",
        "the --model of main.py that the crops are for (default: pcrl)",
        "|".join(RECIPES),
        type=str,
        choices=RECIPES,
        default=RECIPES[0],
    )
    add("--input_rows", "size of a crop in x (default: 64)", "VOXELS", default=64)
    add("--input_cols", "size of a crop in y (default: 64)", "VOXELS", default=64)
    add("--input_deps", "size of a crop in z (default: 32)", "VOXELS", default=32)
    add(
        "--crop_rows",
        "scale in x of the boxes that become crops: 64: 32 to 112 mm, as published; 128: twice that (default: as "
        "--input_rows)",
        "MM",
    )
    add("--crop_cols", "the same for y (default: as --input_cols)", "MM")
    add("--scale", "pairs per scan (default: 16)", "N", default=16)
    add("--seed", "random seed, combined with a scan's uid (default: 0)", "N", default=0)
    add("--workers", "processes (default: one per core)", "N", default=available_cores())
    add("--fold", "make the pairs of this subset alone, 0 to 9 (default: all)", "N")
    add("--preview", "draw N pairs, new or already there, from the scans in turn, to preview.png in --save", "N")
    _add_values(parser, add)
    return parser


def _add_values(parser: Parser, add: Callable[..., None]) -> None:
    """The flags on what becomes of a scan's values, and on pairs that are there already."""
    add("--hu_min", "CT window, lower end in Hounsfield units; becomes 0 (default: -1000)", "HU")
    add("--hu_max", "CT window, upper end in Hounsfield units; becomes 1 (default: 1000)", "HU")
    parser.add_argument(
        "--percentiles",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="for MR, in place of --hu_min and --hu_max: percentiles of each scan that become 0 and 1, such as 0.5 "
        "99.5; no tissue limit",
    )
    add(
        "--min_std",
        "smallest standard deviation of a crop in [0, 1]; pairs with a flatter crop are drawn again (default: "
        f"{FLAT:g}; 0: keep all, as published)",
        "PART",
        type=float,
        default=FLAT,
    )
    replace_help = "replace pairs in --save that were made with other options, or of another scan of the same name"
    parser.add_argument("--replace", action="store_true", help=replace_help)
    add(
        "--dtype",
        "data type of the .npy files (default: float32)",
        "float32|float16",
        type=str,
        choices=("float32", "float16"),
        default="float32",
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the flags.

    Raises:
        UserError: an unknown flag (with the nearest there is), a missing one, a value out of range.
    """
    flags = build_parser().parse(argv)
    folders(flags, "data", "save")
    for name, smallest in zip(("input_rows", "input_cols", "input_deps"), SMALLEST, strict=True):
        at_least(flags, name, smallest)
    for name, smallest in {"crop_rows": SMALLEST[0], "crop_cols": SMALLEST[1], "scale": 1, "workers": 1}.items():
        at_least(flags, name, smallest)
    at_least(flags, "preview", 1)
    at_least(flags, "seed", 0)
    if flags.fold is not None and flags.fold not in range(10):
        raise UserError(f"--fold {flags.fold}: the subsets are 0 to 9")
    if not 0 <= flags.min_std < LARGEST_STD:
        raise UserError(f"--min_std {flags.min_std:g}: it must be at least 0, and below {LARGEST_STD}")
    _check_window(flags)
    return flags


def _check_window(flags: argparse.Namespace) -> None:
    if flags.percentiles:
        if flags.hu_min is not None or flags.hu_max is not None:
            raise UserError(
                "--percentiles takes the place of --hu_min and --hu_max: give either, percentiles for MR, HU for CT"
            )
        low, high = flags.percentiles
        if not 0 <= low < high <= 100:
            raise UserError(f"--percentiles {low:g} {high:g}: the first must be smaller, and both must lie in 0..100")
    flags.hu_min = -1000 if flags.hu_min is None else flags.hu_min
    flags.hu_max = 1000 if flags.hu_max is None else flags.hu_max
    hu_window(flags)


def pair_options(flags: argparse.Namespace) -> PairOptions:
    """What decides on the pairs, from the flags; warns of what may surprise."""
    shape = (flags.input_rows, flags.input_cols, flags.input_deps)
    nominal = (flags.crop_rows or shape[0], flags.crop_cols or shape[1], shape[2])
    percentiles = tuple(flags.percentiles) if flags.percentiles else None
    window = (flags.hu_min, flags.hu_max, percentiles)
    options = PairOptions(shape, nominal, flags.scale, flags.seed, *window, flags.dtype, flags.min_std, flags.recipe)
    if any(side % 8 for side in shape):
        warn("the 3D network halves a crop three times: all sides of a crop must be multiples of 8 for training")
    if not percentiles and not options.has_tissue_rule:
        below = options.hu_max < TISSUE_HU  # such a window shows no tissue at all; the other one is for the abdomen
        beside = f"--hu_max {options.hu_max} is" if below else f"--hu_min {options.hu_min} is not"
        tell = warn if below else say
        tell(f"{beside} below {TISSUE_HU} HU, where tissue begins: there is no limit on the tissue in a crop")
    return options


def summary(outcomes: list[PairOutcome], options: PairOptions, save: Path, seconds: float, drawn: bool) -> str:
    """The report of a run: what was written, skipped and not possible, one line a scan that fell short.

    ``drawn``: a preview is asked for.
    """
    pairs = sum(outcome.pairs for outcome in outcomes)
    former = sum(outcome.pairs for outcome in outcomes if outcome.done_before)
    before = f", {'all' if former == pairs else former} of them there already" if former else ""
    size = f"{options.size} voxels{', with local crops,' * options.has_locals}"
    line = f"{counted(len(outcomes), 'scan')}: {counted(pairs, 'pair')} of {size} in {save}{before}"
    lines = [f"{line} ({seconds:.1f} s)"]
    for outcome in outcomes:
        if outcome.problem:
            lines.append(f"broken: {outcome.name}: {outcome.problem}")
        elif not outcome.pairs:
            lines.append(f"no pairs: {outcome.name}: {outcome.shortage}")
        elif outcome.shortage:
            lines.append(f"fewer pairs: {outcome.name}: {outcome.pairs} of {options.pairs}; {outcome.shortage}")
        if outcome.flat:
            flat = f"{outcome.flat} of {counted(outcome.pairs, 'pair')}"
            are = "is" if outcome.flat == 1 else "are"
            more = more_to_see(options, drawn) if not options.min_std else "--replace draws new pairs instead"
            lines.append(f"almost no contrast: {outcome.name}: {flat} {are} nearly constant; {more}")
    lines += low_contrast(outcomes, options)
    redrawn = [outcome.redrawn for outcome in outcomes if outcome.redrawn and outcome.pairs]
    if redrawn:
        lines.append(
            f"{counted(sum(redrawn), 'pair')} of {counted(len(redrawn), 'scan')} {_were(sum(redrawn))} nearly "
            f"constant; others were drawn instead (--min_std {options.min_std:g})"
        )
    return "\n".join(lines)


def low_contrast(outcomes: Sequence[PairOutcome], options: PairOptions) -> list[str]:
    """A line on the scans whose crops are nearly grey all over in this window, if there are such."""
    grey = [each for each in outcomes if each.contrast is not None and each.contrast < LOW_CONTRAST]
    if not grey or options.percentiles:
        return []
    names = ", ".join(outcome.name for outcome in grey[:SHOWN]) + ", ..." * (len(grey) > SHOWN)
    window = f"{options.hu_min}..{options.hu_max}"
    return [f"low contrast in the window {window}: {counted(len(grey), 'scan')} ({names}); see --preview, --hu_min"]


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def more_to_see(options: PairOptions, drawn: bool) -> str:
    """What helps where crops are nearly constant."""
    look = "" if drawn else "look with --preview; "
    if not options.has_tissue_rule:
        return f"{look}choose another window"
    return (
        f"{look}the tissue limit (for lung CT) may have left only crops of air; --hu_min {TISSUE_HU} or more switches "
        f"it off, e.g. --hu_min -150 --hu_max 250"
    )


def way_out(options: PairOptions, outcomes: Sequence[PairOutcome]) -> str:
    """What helps where no scan gives a pair."""
    if all("no box fits" in outcome.shortage for outcome in outcomes if not outcome.problem):
        return "take smaller boxes: --crop_rows, --crop_cols, --input_deps"
    flat = f"a smaller --min_std than {options.min_std:g} keeps more; or " * any(each.redrawn for each in outcomes)
    if options.has_tissue_rule:
        return (
            f"{flat}the limit on tissue is made for lungs in CT; for MR give --percentiles 0.5 99.5, for other CT "
            "--hu_min -150 --hu_max 250"
        )
    return f"{flat}choose another window"


def draw(jobs: Sequence[PairJob], wanted: int, save: Path) -> None:
    """Draw ``wanted`` pairs, and say where; UserError if that cannot be written."""
    path = save / FILE_NAME
    try:
        drawn = draw_preview(jobs, wanted, path)
    except OSError as error:
        raise cannot_write(save, error) from None
    say(f"{path} shows {counted(drawn, 'pair')}" if drawn else f"no pair to draw in {path}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    flags = parse(argv)
    writable(flags.save)
    options = pair_options(flags)
    with holding(flags.save, flags.fold):
        return _cut(flags, options, time.monotonic())


def _cut(flags: argparse.Namespace, options: PairOptions, started: float) -> int:
    refuse_other_recipe(flags.save, options)
    with waiting(f"looking for scans in {flags.data}"):
        scans = find_scans(flags.data, flags.fold)
    sources = Sources(flags.save)
    jobs = settle([PairJob(scan, options, flags.save) for scan in scans], "pair", sources, flags.replace)
    if flags.replace:
        jobs = [replace(job, anew=job.anew or kept_flat(job)) for job in jobs]
    else:
        refuse_others(flags.save, "pair", jobs, OPTION_WORDS)
    outcomes = run_jobs(
        make_pairs, lambda name, problem: PairOutcome(name, problem=problem), jobs, flags.workers, sources
    )
    with holding_lists(flags.save, flags.fold):
        listed = write_training_list(flags.save)
    report = summary(outcomes, options, flags.save, time.monotonic() - started, bool(flags.preview))
    broken = tell(outcomes, report, flags.data)
    warn_of_units(outcomes, "for MR give --percentiles 0.5 99.5, for CT mend the rescale intercept")
    if len(set(options.nominal)) > 1:  # cubes are thin nowhere
        warn_of_slices([outcome for outcome in outcomes if outcome.pairs])
    made = any(outcome.pairs for outcome in outcomes)
    if not made:
        complain(f"--data {flags.data} gives no pair: {way_out(options, outcomes)}")
    elif flags.preview:
        draw(jobs, flags.preview, flags.save)
    absent = of_no_scan(flags.save, "pair", [job.scan.name for job in jobs]) if flags.fold is None else {}
    if listed:
        others = sum(name.startswith(TRAINED_ON) for name in absent)
        beside = f", {others} of them not in {flags.data}" if others else ""
        say(f"{flags.save / TRAINING_LIST} names {counted(listed, 'scan')}{beside}")
    warn_of_removed(absent, "pair", sources, flags.save, flags.data)
    warn_of_doubles(flags.save, "pair")
    return 1 if broken or not made else 0


if __name__ == "__main__":
    run_cli(main)
