"""The grid of ``benchmarks/evidence.py``: its data, and one cell for each run of ``main.py``."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.files import write_text
from utils.seeding import generator

ROOT = Path(__file__).resolve().parents[1]
SCRATCH = "scratch"
ARMS = {  # the arms that are pre-trained: what --without leaves out
    "pcrl": "",
    "no_reconstruction": "reconstruction",
    "no_contrast": "contrast",
}
SEEDS = (0, 1, 2)
COMMON = ("--workers", "0", "--gpus", "")


@dataclass(frozen=True)
class Cell:
    """One run of ``main.py``. ``labels``: labelled volumes or images, 0 for pre-training. ``start``: whose weights."""

    task: str
    arm: str
    labels: int
    seed: int
    flags: tuple[str, ...]
    start: Cell | None = None

    @property
    def pretrains(self) -> bool:
        return not self.labels

    @property
    def name(self) -> str:
        stage = "pretrain" if self.pretrains else f"labels{self.labels}"
        return f"{self.task}_{stage}_{self.arm}_seed{self.seed}"


@dataclass(frozen=True)
class Task:
    """``prepare`` makes the data in a folder. ``metric``: the key of metrics.json and the word of its column."""

    name: str
    title: str
    prepare: Callable[[Path], None]
    pretraining: tuple[str, ...]
    finetuning: Callable[[int, int], tuple[str, ...]]  # of the labels and the seed
    labels: tuple[int, ...]
    metric: tuple[str, str]
    seeds: tuple[int, ...] = SEEDS

    def cells(self, seed: int) -> Iterator[Cell]:
        """The cells of one seed, arm by arm, each after what it starts from."""
        shared = (*COMMON, "--seed", str(seed))
        for arm, without in {SCRATCH: "", **ARMS}.items():
            start = None
            if arm != SCRATCH:
                flags = (*shared, *self.pretraining, *(("--without", without) if without else ()))
                start = Cell(self.name, arm, 0, seed, flags)
                yield start
            for labels in self.labels:
                yield Cell(self.name, arm, labels, seed, (*shared, *self.finetuning(labels, seed)), start)


def run(script: str, *flags: str) -> None:
    """Run one of the project's commands; CalledProcessError if it fails."""
    subprocess.run([sys.executable, str(ROOT / script), *flags], check=True, stdout=subprocess.DEVNULL)


def link(path: Path, target: Path) -> None:
    """Make a symbolic link, unless it is there."""
    if not path.is_symlink():
        path.symlink_to(target.resolve())


# Segmentation of real MR volumes --------------------------------------------------------------------------------

TEST, VALID = 26, 5  # of the 130 volumes, the same for all seeds; the epoch is chosen on the latter
STEPS = 180  # of fine-tuning, whatever the number of labels; after 60 only the speed of learning is seen
SMALL = ("--input_rows", "32", "--input_cols", "32", "--input_deps", "16")


def hippocampus(data: Path, work: Path) -> Task:
    """Hippocampus of the Medical Segmentation Decathlon. Pre-training sees the training volumes alone, unlabelled."""
    own = work / "hippocampus"
    labelled, pairs, splits = own / "labelled", own / "pairs", own / "splits.json"

    def prepare(_: Path) -> None:
        files = sorted(file for file in (data / "imagesTr").glob("*.nii.gz") if not file.name.startswith("."))
        order = generator(0, "evidence").permutation(len(files))
        parts = np.split(order, [TEST, TEST + VALID])
        names = [[files[index].name.removesuffix(".nii.gz") for index in part] for part in parts]
        write_text(splits, json.dumps([{"test": names[0], "val": names[1], "train": names[2]}]))
        link(labelled, data)
        images = own / "unlabelled"
        images.mkdir(exist_ok=True)
        for index in parts[2]:
            link(images / files[index].name, files[index])
        run(
            "preprocess/luna_pre.py",
            *("--data", str(images), "--save", str(pairs), "--scale", "1", "--percentiles", "0.5", "99.5", *SMALL),
        )

    def finetuning(labels: int, seed: int) -> tuple[str, ...]:
        patches, batch = max(1, 10 // labels), 2  # a short epoch, since the learning rate falls from epoch to epoch
        epochs = STEPS // (labels * patches // batch)
        return (
            *("--n", "msd", "--phase", "finetune", "--data", str(labelled), "--split", str(splits)),
            *("--train_cases", str(labels), "--patch", "32,32,16", "--patches", str(patches)),
            *("--spacing_mm", "1.5,1.5,1.5", "--b", str(batch), "--epochs", str(epochs)),
            *("--val_every", str(epochs // 3), "--optimizer", "adamw", "--lr", "1e-3"),
        )

    pretraining = ("--n", "luna", "--data", str(pairs), "--ratio", "1.0", "--b", "2", "--epochs", "3")
    # At 1e-3 kernels become up to twice as long, and with a short queue features collapse: docs/EVIDENCE.md.
    schedule = ("--optimizer", "adamw", "--lr", "3e-4")
    title = "Hippocampus (real MR, 3D segmentation), labelled volumes"
    metric = ("mean_dice", "Dice")
    return Task("hippocampus", title, prepare, pretraining + schedule, finetuning, (5, 10, 20), metric)


# Findings on X-rays -------------------------------------------------------------------------------------------------

PHANTOMS = {"train": 300, "valid": 60, "test": 140}  # patients, an X-ray of each: enough in test for an AUROC
XRAY_STEPS = 120
XRAY_SIZE = ("--size", "64")


def xrays(work: Path) -> Task:
    """Findings on projected X-rays of thorax phantoms: the labels are true, and there are as many as one wants."""
    own = work / "xrays"
    data = own / "Chest14"

    def prepare(_: Path) -> None:
        count = sum(PHANTOMS.values())
        sizes = ("--scans", "0", "--patients", str(count), "--xrays_per_patient", "1", "--size", "256")
        run("preprocess/phantoms.py", "--save", str(own), *sizes)
        lists = [data / f"chest_{part}.txt" for part in PHANTOMS]
        lines = sorted(line for path in lists for line in path.read_text(encoding="utf-8").splitlines())
        cuts = np.cumsum(list(PHANTOMS.values()))[:-1]
        for path, chosen in zip(lists, np.split(np.array(lines), cuts), strict=True):
            write_text(path, "".join(f"{line}\n" for line in chosen))

    title = "Phantoms (projected X-rays, 6 findings), labelled images"
    return _classification("xrays", title, data, own, prepare, (15, 30, 60), ("--moco_k", "512"))


def chest14(source: Path, work: Path) -> Task:
    """A folder of real X-rays with ``labels.txt`` beside ``images/``, split by patient into 60, 20 and 20 %."""
    own = work / "chest14"

    def prepare(_: Path) -> None:
        lines = (source / "labels.txt").read_text(encoding="utf-8").splitlines()
        patients = sorted({line[:8] for line in lines})
        order = [patients[index] for index in generator(0, "evidence").permutation(len(patients))]
        cuts = int(0.6 * len(order)), int(0.8 * len(order))
        for part, chosen in zip(("train", "valid", "test"), np.split(np.array(order), cuts), strict=True):
            kept = [line for patient in chosen for line in lines if line.startswith(str(patient))]
            write_text(own / f"chest_{part}.txt", "\n".join(kept) + "\n")
        link(own / "images", source / "images")

    title = "ChestX-ray14 (240 real X-rays), labelled images"
    return _classification("chest14", title, own, own, prepare, (14, 28, 56))


def _classification(
    name: str,
    title: str,
    data: Path,
    own: Path,
    prepare: Callable[[Path], None],
    labels: tuple[int, ...],
    queue: tuple[str, ...] = (),  # flags of its length, if it is not the published one
) -> Task:
    """Pre-training on the whole training list; fine-tuning on its first lines, permuted by the seed."""

    def few(count: int, seed: int) -> Path:
        lines = (data / "chest_train.txt").read_text(encoding="utf-8").splitlines()
        order = generator(seed, "evidence", "labels").permutation(len(lines))[:count]
        path = own / f"labelled_{count}_seed{seed}.txt"
        write_text(path, "".join(f"{lines[index]}\n" for index in order))
        return path

    def prepare_all(folder: Path) -> None:
        prepare(folder)
        for count, seed in itertools.product(labels, SEEDS):
            few(count, seed)

    def finetuning(count: int, seed: int) -> tuple[str, ...]:
        batch = 8
        steps = -(-count // batch)
        epochs = XRAY_STEPS // steps
        return (
            *("--n", "chest", *XRAY_SIZE, "--phase", "finetune", "--data", str(data), "--ratio", "1.0"),
            *("--train_list", str(own / f"labelled_{count}_seed{seed}.txt"), "--b", str(batch)),
            *("--epochs", str(epochs), "--val_every", str(max(1, epochs // 10))),
            *("--optimizer", "adamw", "--lr", "3e-4"),
        )

    pretraining = ("--n", "chest", *XRAY_SIZE, "--data", str(data), "--ratio", "1.0", "--b", "16", "--epochs", "15")
    schedule = ("--optimizer", "adamw", "--lr", "1e-3")
    return Task(name, title, prepare_all, pretraining + schedule + queue, finetuning, labels, ("mean_auroc", "AUROC"))


def ordered(tasks: Sequence[Task]) -> Iterator[Cell]:
    """All cells, a seed of every task before the next seed, so that a grid cut short is of use."""
    for seed in SEEDS:
        for task in tasks:
            if seed in task.seeds:
                yield from task.cells(seed)
