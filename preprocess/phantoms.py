"""Make CT scans and X-rays of thorax phantoms, laid out as LUNA16 and ChestX-ray14 are.

SAVE/LUNA16         subset<k>/<uid>.mhd and .raw; annotations.csv: nodules; candidates_V2.csv: also places without one
SAVE/Chest14        images/<patient>_<index>.png; chest_{train,valid,test}.txt and labels.csv: what was put into each.
                    Patient 1 is also the patient of scan 1, and so on.
SAVE/Task_Lungs     with --masks: the scans, and masks of their lungs
SAVE/phantoms.json  what was made; a later run with the same --seed and --size can add phantoms
The same seed gives the same bytes, whatever the number of workers. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

if __package__ in (None, ""):  # run as a script, from any folder: imports start at the project's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from utils.requirements import say_missing_packages

    say_missing_packages()

import numpy as np
from PIL import Image

from datasets.ct.stored_grid import StoredGrid
from datasets.xray.lists import CHEST14_LABELS, list_line
from phantoms.anatomy import Phantom, paint
from phantoms.patient import LARGEST_NODULE_MM, Patient, sample_patient
from phantoms.xray import project, sample_view, upright_phantom
from preprocess.jobs.flags import folders, would_be_lost
from preprocess.jobs.lung_cases import case_files, write_case, write_description
from preprocess.jobs.parallel import run_parallel
from utils import json_text
from utils.cli import Parser
from utils.console import say, warn
from utils.cores import available_cores
from utils.errors import UserError, reason, run_cli
from utils.files import atomic_path, write_text
from utils.progress import progress
from utils.seeding import generator
from utils.text import counted

UID_ROOT = "1.3.6.1.4.1.32473"  # RFC 5612: the enterprise number for examples, so no real scan has such a uid
# The subset of scan 1, 2, ...: training (0-6) and validation (7-9) both get some from the third scan on, and
# a later run with more scans puts none of them elsewhere.
SUBSETS = (0, 0, 7, 1, 2, 8, 3, 4, 9, 5, 6)
RGBA_SHARE = 0.1  # a few of NIH's files have four channels
RECORD = "phantoms.json"  # in --save: the options of the runs that wrote there, of numbers the largest
NUMBERS = ("scans", "patients", "xrays_per_patient")
LABELS = "labels.csv"  # of the X-rays, as a table
TABLES = ("annotations.csv", "candidates_V2.csv")
LIMITS = {"scans": (0, 9999), "patients": (0, 9999), "xrays_per_patient": (1, 999), "size": (64, 4096)}


@dataclass(frozen=True)
class PhantomJob:
    """One scan, or the X-rays of one patient; ``number`` counts patients from 1."""

    kind: str  # "scan" or "xrays"
    number: int
    seed: int
    save: Path
    xrays: int = 0
    size: int = 0
    masks: bool = False


@dataclass(frozen=True)
class Made:
    """What a job has to tell the tables and lists: their lines, and the names of its files."""

    files: list[str]
    annotations: list[str]
    candidates: list[str]
    labels: list[str]


def series_uid(seed: int, number: int) -> str:
    """A uid of LUNA16's look: digits that depend on the seed and the scan's number alone."""
    digits = generator(seed, "phantom uid", number).integers(1, 10, size=30)
    return f"{UID_ROOT}.{''.join(map(str, digits))}"


def subset(number: int) -> int:
    """The subset, 0..9, that scan ``number`` (from 1) belongs to."""
    return SUBSETS[(number - 1) % len(SUBSETS)]


def patient(seed: int, number: int) -> Patient:
    """The patient of this number: the same person in the scan and in the X-rays."""
    return sample_patient(generator(seed, "phantom", number))


def xray_names(patient: int, xrays: int) -> list[str]:
    """The files of a patient's X-rays, named as NIH's are."""
    return [f"{patient:08d}_{index:03d}.png" for index in range(xrays)]


def make(job: PhantomJob) -> Made:
    """Do one job; runs in a worker."""
    return make_scan(job) if job.kind == "scan" else make_xrays(job)


def make_scan(job: PhantomJob) -> Made:
    """Write one scan as LUNA16 does."""
    rng = generator(job.seed, "phantom", job.number, "scan")
    in_plane, slices = round(rng.uniform(1.25, 1.4), 6), float(rng.choice((2.0, 2.5)))
    phantom = paint(patient(job.seed, job.number), rng, (in_plane, in_plane, slices))
    shift = np.round(rng.uniform((-12, -190, -320), (12, 30, -60)), 2)  # where the scanner has its zero
    uid = series_uid(job.seed, job.number)
    path = job.save / "LUNA16" / f"subset{subset(job.number)}" / f"{uid}.mhd"
    turned = bool(rng.random() < 0.2)
    grid = write_scan(path, phantom, shift, turned)
    if job.masks:
        write_case(job.save, job.number, path, grid, phantom.lungs[::-1, ::-1] if turned else phantom.lungs)
    nodules = [
        (*(nodule.center_mm + shift), nodule.diameter_mm)
        for nodule in phantom.nodules
        if nodule.diameter_mm <= LARGEST_NODULE_MM
    ]
    places = [(*nodule[:3], 1) for nodule in nodules] + [(*place, 0) for place in phantom.empty_places_mm + shift]
    return Made(
        files=[path.name],
        annotations=[f"{uid},{x:.6f},{y:.6f},{z:.6f},{diameter:.6f}" for x, y, z, diameter in nodules],
        candidates=[f"{uid},{x:.2f},{y:.2f},{z:.2f},{kind}" for x, y, z, kind in places],
        labels=[],
    )


def write_scan(path: Path, phantom: Phantom, shift_mm: np.ndarray, turned: bool = False) -> StoredGrid:
    """Write ``path`` (.mhd) and the .raw beside it; ``shift_mm`` leads from the phantom's frame to the world's.

    -> where the voxels lie.

    ``turned``: x and y are stored from the patient's left and back on, which the direction matrix says;
    some of LUNA16's scans are so.
    """
    hu = phantom.hu[::-1, ::-1] if turned else phantom.hu
    offset = np.array(phantom.origin_mm) + shift_mm
    if turned:
        offset[:2] += (np.array(hu.shape[:2]) - 1) * phantom.spacing_mm[:2]
    sign = -1 if turned else 1
    header = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": False,
        "TransformMatrix": f"{sign} 0 0 0 {sign} 0 0 0 1",
        "Offset": " ".join(f"{value:.6f}" for value in offset),
        "CenterOfRotation": "0 0 0",
        "AnatomicalOrientation": "RAI",
        "ElementSpacing": " ".join(f"{value:.6f}" for value in phantom.spacing_mm),
        "DimSize": " ".join(map(str, hu.shape)),
        "ElementType": "MET_SHORT",
        "ElementDataFile": f"{path.stem}.raw",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path.with_suffix(".raw")) as temporary:
        np.ascontiguousarray(hu.transpose(2, 1, 0), dtype="<i2").tofile(temporary)
    write_text(path, "".join(f"{key} = {value}\n" for key, value in header.items()))
    direction = (sign, 0, 0, 0, sign, 0, 0, 0, 1)
    return StoredGrid(hu.shape, phantom.spacing_mm, tuple(np.round(offset, 6).tolist()), direction)


def make_xrays(job: PhantomJob) -> Made:
    """Write the X-rays of one patient as ChestX-ray14 has them."""
    rng = generator(job.seed, "phantom", job.number, "xrays")
    phantom = upright_phantom(patient(job.seed, job.number), rng, job.size)
    labels = [int(label in phantom.labels) for label in CHEST14_LABELS]
    names = xray_names(job.number, job.xrays)
    folder = job.save / "Chest14" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        image = Image.fromarray(project(phantom, sample_view(rng), job.size))
        with atomic_path(folder / name) as temporary:
            (image.convert("RGBA") if rng.random() < RGBA_SHARE else image).save(temporary, format="PNG")
    return Made(files=names, annotations=[], candidates=[], labels=[list_line(name, labels) for name in names])


def split(seed: int, patients: int) -> dict[str, list[int]]:
    """The patients' numbers of each list: 70, 10 and 20 %, permuted; all for training if less than three."""
    order = generator(seed, "phantom lists").permutation(patients) + 1
    train, both = round(0.7 * patients), round(0.8 * patients)
    if patients < 3:
        train = both = patients
    else:
        train = min(train, patients - 2)
        both = min(max(both, train + 1), patients - 1)
    parts = {"train": order[:train], "valid": order[train:both], "test": order[both:]}
    return {name: sorted(int(number) for number in numbers) for name, numbers in parts.items()}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read and check the flags.

    Raises:
        UserError: an unknown flag (with the nearest there is), a missing one, a value out of range.
    """
    usage = "phantoms.py --save FOLDER [flags]"
    parser = Parser(usage=usage, description=__doc__)

    def add(name: str, metavar: str, default: int, text: str) -> None:
        parser.add_argument(name, metavar=metavar, default=default, type=int, help=text)

    parser.add_argument("--save", metavar="FOLDER", type=Path, help="needed: where LUNA16/ and Chest14/ go")
    add("--scans", "N", 4, "CT scans (default: 4)")
    add("--patients", "N", 12, "patients with X-rays (default: 12)")
    add("--xrays_per_patient", "N", 2, "X-rays of each of them (default: 2)")
    add("--size", "PIXELS", 512, "sides of an X-ray (default: 512; NIH's have 1024)")
    add("--seed", "N", 0, "random seed (default: 0)")
    add("--workers", "N", available_cores(), "processes (default: one per core)")
    parser.add_argument("--masks", action="store_true", help="masks of the lungs too: Task_Lungs/, for --n msd")
    parser.add_argument(
        "--replace", action="store_true", help="replace phantoms in --save that were made with another --seed or --size"
    )
    flags = parser.parse(argv)
    folders(flags, "save")
    for name, (low, high) in LIMITS.items():
        if not low <= getattr(flags, name) <= high:
            raise UserError(f"--{name} {getattr(flags, name)}: it must be in {low}..{high}")
    if flags.scans + flags.patients == 0:
        raise UserError("--scans 0 --patients 0: there is nothing to make")
    if flags.seed < 0:
        raise UserError(f"--seed {flags.seed}: it must be at least 0")
    if flags.workers < 1:
        raise UserError(f"--workers {flags.workers}: it must be at least 1")
    return flags


def write_tables(flags: argparse.Namespace, made: dict[tuple[str, int], Made]) -> None:
    """Write the scans' tables and the X-rays' lists, in the order of the patients' numbers."""
    scans = [made["scan", number] for number in range(1, flags.scans + 1)]
    if scans:
        folder = flags.save / "LUNA16"
        rows = ["seriesuid,coordX,coordY,coordZ,diameter_mm", *(row for scan in scans for row in scan.annotations)]
        write_text(folder / TABLES[0], "\n".join(rows) + "\n")
        rows = ["seriesuid,coordX,coordY,coordZ,class", *(row for scan in scans for row in scan.candidates)]
        write_text(folder / TABLES[1], "\n".join(rows) + "\n")
    if scans and flags.masks:
        write_description(flags.save)
    if flags.patients:
        table = [f"patient,split,image,{','.join(CHEST14_LABELS)}\n"]
        for name, numbers in split(flags.seed, flags.patients).items():
            lines = [f"{line}\n" for number in numbers for line in made["xrays", number].labels]
            write_text(flags.save / "Chest14" / f"chest_{name}.txt", "".join(lines))
            table += [f"{line[:8]},{name},{line.strip().replace(' ', ',')}\n" for line in lines]
        write_text(flags.save / "Chest14" / LABELS, "".join(table))


def read_record(save: Path) -> dict[str, int]:
    """What earlier runs made in ``save``; empty if nothing, or it is not known."""
    try:
        record = json_text.parse((save / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    names = (*NUMBERS, "seed", "size")
    whole = isinstance(record, dict) and all(isinstance(record.get(name), int) for name in names)
    return {name: record[name] for name in names} if whole else {}


def difference(former: dict[str, int], flags: argparse.Namespace) -> str:
    """What the phantoms that are there were made with otherwise, in words; "" if the new ones belong to them."""
    names = ["seed", *["size"] * bool(former["patients"] and flags.patients)]
    others = [name for name in names if former[name] != getattr(flags, name)]
    return "; ".join(f"--{name} {former[name]}, not {getattr(flags, name)}" for name in others)


def make_room(flags: argparse.Namespace) -> None:
    """Write down what is made; UserError if ``--save`` has phantoms that do not belong to it, unless to be replaced."""
    former = read_record(flags.save)
    if former and (words := difference(former, flags)):
        if not flags.replace:
            raise would_be_lost(flags.save, f"phantoms made with other options ({words})")
        remove(flags.save, former)
        former = {}
    record = {name: max(getattr(flags, name), former.get(name, 0)) for name in NUMBERS}
    size = flags.size if flags.patients else former.get("size", flags.size)
    write_text(flags.save / RECORD, json.dumps(record | {"seed": flags.seed, "size": size}) + "\n")


def remove(save: Path, former: dict[str, int]) -> None:
    """Remove the files that earlier runs made, and nothing else."""
    scans, xrays, patients = save / "LUNA16", save / "Chest14", range(1, former["patients"] + 1)
    lists = (LABELS, *(f"chest_{name}.txt" for name in ("train", "valid", "test")))
    files = [folder / name for folder, names in ((scans, TABLES), (xrays, lists)) for name in names]
    for number, suffix in product(range(1, former["scans"] + 1), (".mhd", ".raw")):
        files.append(scans / f"subset{subset(number)}" / f"{series_uid(former['seed'], number)}{suffix}")
    files += [file for number in range(1, former["scans"] + 1) for file in case_files(save, number)]
    names = (name for number in patients for name in xray_names(number, former["xrays_per_patient"]))
    for file in (*files, *(xrays / "images" / name for name in names)):
        file.unlink(missing_ok=True)


def warn_of_others(save: Path, made: dict[tuple[str, int], Made]) -> None:
    """Say if the folders hold scans or X-rays of other runs: what reads whole folders will take them, too."""
    ours = {file for each in made.values() for file in each.files}
    for found in ("LUNA16/subset*/*.mhd", "Chest14/images/*.png"):
        others = sum(path.name not in ours for path in save.glob(found))
        if others:
            them = "it" if others == 1 else "them"
            warn(f"{save / found} holds {counted(others, 'file')} that this run did not make; no list names {them}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    started = time.monotonic()
    flags = parse(argv)
    jobs = [
        PhantomJob("scan", number, flags.seed, flags.save, masks=flags.masks) for number in range(1, flags.scans + 1)
    ]
    jobs += [
        PhantomJob("xrays", number, flags.seed, flags.save, flags.xrays_per_patient, flags.size)
        for number in range(1, flags.patients + 1)
    ]
    made: dict[tuple[str, int], Made] = {}
    try:
        flags.save.mkdir(parents=True, exist_ok=True)
        make_room(flags)
        with progress(len(jobs), "patient") as bar:
            for job, result in run_parallel(make, jobs, min(flags.workers, len(jobs))):
                if result is None:
                    raise UserError(
                        f"a worker was killed, most likely for want of memory: try --workers 1, not {flags.workers}"
                    )
                made[job.kind, job.number] = result
                bar.update()
        write_tables(flags, made)
    except OSError as error:
        where = error.filename or "a file"
        raise UserError(f"--save {flags.save}: {where} cannot be written: {reason(error)}") from error
    warn_of_others(flags.save, made)
    nodules = sum(len(each.annotations) for each in made.values())
    xrays = flags.patients * flags.xrays_per_patient
    say(
        f"{counted(flags.scans, 'scan')} with {counted(nodules, 'nodule')} and {counted(xrays, 'X-ray')} of "
        f"{counted(flags.patients, 'patient')} written to {flags.save} in {time.monotonic() - started:.1f} s"
    )
    return 0


if __name__ == "__main__":
    run_cli(main)
