"""The data of ``benchmarks/evidence.py``: parts that share no patient, and the draws of labelled patients."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from utils.errors import UserError, reason
from utils.files import write_text
from utils.seeding import generator

ROOT = Path(__file__).resolve().parents[1]
SHARES = {"train": 0.6, "valid": 0.1, "test": 0.3}
JUDGED = ("male", "Infiltration", "Effusion", "Atelectasis")  # of the NIH folder; the others are not learned either
OF_THE_PLACE = "Pneumonia"  # goes with where an image was collected: how far it tells the judged labels is reported
MOST = 3  # images of one patient in the validation and the test part
SIDES = ("--input_rows", "32", "--input_cols", "32", "--input_deps", "16")
SCANS = 120  # phantoms; those without a nodule are left out
PATIENTS_LABELLED, SCANS_LABELLED = (25, 50, 100), (5, 10, 20)  # and all
VOLUMES_LABELLED = (5, 20)


def split_by_patient(patients: Iterable[str], seed: int = 0) -> dict[str, list[str]]:
    """The patients of each part, each in one, in an order of chance."""
    names = sorted(set(patients))
    order = [names[index] for index in generator(seed, "evidence", "parts").permutation(len(names))]
    first, second = round(SHARES["train"] * len(order)), round((SHARES["train"] + SHARES["valid"]) * len(order))
    return {"train": order[:first], "valid": order[first:second], "test": order[second:]}


def draw(images: Mapping[str, Sequence[str]], patients: Sequence[str], number: int) -> list[str]:
    """One image of each patient, all of this draw's: its first n are what n labelled patients are.

    ``images``: of each patient.
    """
    order = generator(number, "evidence", "patients").permutation(len(patients))
    chosen = []
    for index in order:
        own = images[patients[index]]
        chosen.append(own[int(generator(number, "evidence", "image", patients[index]).integers(len(own)))])
    return chosen


def read_nih(folder: Path, names: Sequence[str] = JUDGED) -> dict[str, list[int]]:
    """The labels of these names of each image that ``labels.txt`` lists; ``classes.txt`` names its columns."""
    try:
        classes = (folder / "classes.txt").read_text(encoding="utf-8").split()
        lines = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"--nih {folder}: {error.filename} cannot be read: {reason(error)}") from None
    if missing := [name for name in names if name not in classes]:
        raise UserError(f"--nih {folder}: classes.txt does not name {', '.join(missing)}")
    columns, found = [classes.index(name) + 1 for name in names], {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if len(words) != len(classes) + 1 or not set(words[1:]) <= {"0", "1"}:
            raise UserError(
                f"--nih {folder}: labels.txt, line {number}: a name and {len(classes)} of 0 or 1 belong there"
            )
        found[words[0]] = [int(words[column]) for column in columns]
    return found


def by_patient(names: Iterable[str]) -> dict[str, list[str]]:
    """NIH's names of images, <patient>_<number>.png, by patient."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        groups[name.partition("_")[0]].append(name)
    return groups


def prepare_nih(folder: Path, own: Path, results: Path, draws: Sequence[int]) -> None:
    """Write the lists into ``own``, a link to the images beside them, and what is true of the test part."""
    labels = read_nih(folder)
    images = by_patient(labels)
    parts = split_by_patient(images)
    own.mkdir(parents=True, exist_ok=True)
    link(own / "images", folder / "images_64")

    def write(name: str, chosen: Iterable[str]) -> None:
        lines = [" ".join([image, *map(str, labels[image])]) + "\n" for image in chosen]
        write_text(own / f"{name}.txt", "".join(lines))

    of_part = {name: [image for patient in part for image in images[patient]] for name, part in parts.items()}
    for name in ("valid", "test"):
        of_part[name] = [image for patient in parts[name] for image in images[patient][:MOST]]
    for name, chosen in of_part.items():
        write(f"chest_{name}", chosen)
    write("all", [image for chosen in of_part.values() for image in chosen])
    for number in draws:
        drawn = draw(images, parts["train"], number)
        write(f"draw{number}", drawn)
        for count in labelled(len(drawn), PATIENTS_LABELLED):
            write(f"labelled{count}_draw{number}", drawn[:count])
    test = of_part["test"]
    true = {name: [labels[image][column] for image in test] for column, name in enumerate(JUDGED)}
    place = read_nih(folder, [OF_THE_PLACE])
    groups = [image.partition("_")[0] for image in test]
    write_truth(results, "nih", test, groups, true, place=[place[image][0] for image in test])


def write_truth(
    results: Path,
    task: str,
    files: Sequence[str],
    groups: Sequence[str],
    labels: Mapping[str, Sequence[int]],
    **more: Sequence[int],
) -> None:
    """Keep what is true of a test part, beside the results: ``groups``: the patient, scan or volume of each file."""
    results.mkdir(parents=True, exist_ok=True)
    kept = {"files": files, "groups": groups, "labels": labels, **more}
    write_text(results / f"{task}_test.json", json.dumps(kept) + "\n")


def prepare_nodules(own: Path, results: Path, draws: Sequence[int], scans: int = SCANS) -> None:
    """Phantoms, crops around their nodules and what looks alike, and pairs of the training scans alone."""
    from benchmarks.evidence_lookalikes import write_candidates  # late: its libraries take seconds to import

    if own.exists():
        shutil.rmtree(own)  # an earlier version's would be mixed with it
    phantoms, crops = own / "LUNA16", own / "crops"
    run("preprocess/phantoms.py", "--save", str(own), "--scans", str(scans), "--patients", "0")
    write_candidates(phantoms)
    run("preprocess/nodule_crops.py", "--data", str(phantoms), "--save", str(crops), *SIDES)
    with open(crops / "labels.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    parts = split_by_patient(row["seriesuid"] for row in rows)
    (own / "unlabelled").mkdir(exist_ok=True)
    for path in sorted(phantoms.glob("subset*/*")):
        if path.stem in parts["train"]:
            link(own / "unlabelled" / path.name, path)
    run("preprocess/luna_pre.py", "--data", str(own / "unlabelled"), "--save", str(own / "pairs"), *SIDES)
    subset = {uid: number for part, number in (("train", "0"), ("valid", "7"), ("test", "8")) for uid in parts[part]}
    for number in draws:
        order = generator(number, "evidence", "patients").permutation(len(parts["train"]))
        for count in labelled(len(order), SCANS_LABELLED):
            out = set(parts["train"]) - {parts["train"][index] for index in order[:count]}
            kept = [row | {"subset": subset[row["seriesuid"]]} for row in rows if row["seriesuid"] not in out]
            _write_crops(own / f"labelled{count}_draw{number}", crops, kept)
    test = [row for row in rows if row["seriesuid"] in set(parts["test"])]
    names, groups = [Path(row["file"]).name for row in test], [row["seriesuid"] for row in test]
    write_truth(results, "nodules", names, groups, {"nodule": [int(row["label"]) for row in test]})


def labelled(training: int, counts: Sequence[int]) -> tuple[int, ...]:
    """How many of the training part are labelled: these, as far as there are more, and all."""
    return (*(count for count in counts if count < training), training)


def _write_crops(folder: Path, crops: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """A folder with the crops of these rows, as ``--n nodules`` reads it."""
    folder.mkdir(exist_ok=True)
    for subset in crops.glob("subset*"):
        link(folder / subset.name, subset)
    with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def prepare_hippocampus(folder: Path, own: Path, results: Path) -> None:
    """The parts, and four pairs of crops of each training volume. Its draws are main.py's: it permutes by --seed."""
    files = {path.name.removesuffix(".nii.gz"): path for path in sorted((folder / "imagesTr").glob("[!.]*.nii.gz"))}
    if not files:
        raise UserError(f"--msd {folder}: there is no imagesTr/*.nii.gz")
    parts = split_by_patient(files)
    own.mkdir(parents=True, exist_ok=True)
    link(own / "labelled", folder)
    split = [{"train": parts["train"], "val": parts["valid"], "test": parts["test"]}]
    write_text(own / "split.json", json.dumps(split))
    (own / "unlabelled").mkdir(exist_ok=True)
    for name in parts["train"]:
        link(own / "unlabelled" / files[name].name, files[name])
    cut = ("--scale", "4", "--percentiles", "0.5", "99.5", *SIDES)
    run("preprocess/luna_pre.py", "--data", str(own / "unlabelled"), "--save", str(own / "pairs"), *cut)
    write_truth(results, "hippocampus", parts["test"], parts["test"], {})


def run(script: str, *flags: str) -> None:
    """Run one of the project's commands; CalledProcessError if it fails."""
    subprocess.run([sys.executable, str(ROOT / script), *flags], check=True, stdout=subprocess.DEVNULL)


def link(path: Path, target: Path) -> None:
    """Make a symbolic link, or turn one that is there."""
    path.unlink(missing_ok=True)
    path.symlink_to(target.resolve())
