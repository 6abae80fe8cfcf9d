"""Phantoms: the command, its files, tables and lists."""

from __future__ import annotations

import argparse
import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from scipy.ndimage import binary_dilation

from datasets.ct.itk import read_file
from datasets.ct.stored_grid import StoredGrid
from datasets.segmentation.files import find_cases, read_description
from datasets.xray.lists import CHEST14_LABELS, read_list
from phantoms.anatomy import Phantom
from phantoms.patient import sample_patient
from preprocess.phantoms import make_room, read_record, series_uid, split, subset, write_scan
from tests.conftest import run_preprocess
from utils.seeding import generator

SCANS, PATIENTS, XRAYS, SIZE = 2, 4, 3, 96


run = partial(run_preprocess, "phantoms")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sample, made by two workers."""
    folder = tmp_path_factory.mktemp("phantoms")
    done = run("--save", folder / "here", "--scans", SCANS, "--patients", PATIENTS, "--xrays_per_patient", XRAYS,
               "--size", SIZE, "--workers", 2, "--masks", cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(folder / "here") in done.stdout.splitlines()[-1]
    return folder / "here"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_world_coordinates_hold_for_both_directions(tmp_path: Path) -> None:
    hu = np.full((5, 6, 7), -1000, dtype=np.int16)
    hu[1, 4, 6] = 77
    phantom = Phantom(hu, (0.7, 0.7, 2.5), (-3.0, -8.0, 20.0), [], frozenset(), np.empty((0, 3)), np.zeros_like(hu))
    for turned in (False, True):
        path = tmp_path / f"subset{int(turned)}" / "1.2.3.mhd"
        grid = write_scan(path, phantom, np.array([10.0, 0.5, -300.0]), turned)
        scan = sitk.ReadImage(str(path))
        assert grid == StoredGrid.of_image(scan)
        assert scan.GetSize() == (5, 6, 7)
        assert scan.GetSpacing() == (0.7, 0.7, 2.5)
        assert scan.GetDirection()[0] == (-1 if turned else 1)
        assert scan[scan.TransformPhysicalPointToIndex((7.7, -4.7, -265.0))] == 77


def test_annotations_lead_to_nodules_and_candidates_to_lung(sample: Path) -> None:
    scans = {path.stem: sitk.ReadImage(str(path)) for path in sample.glob("LUNA16/subset*/*.mhd")}
    assert len(scans) == SCANS
    assert sorted(path.parent.name for path in sample.glob("LUNA16/subset*/*.raw")) == ["subset0", "subset0"]
    assert all(uid.startswith("1.3.6.1.4.1.") and len(uid) <= 64 for uid in scans)
    annotations = rows(sample / "LUNA16" / "annotations.csv")
    assert list(annotations[0]) == ["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"]
    candidates = rows(sample / "LUNA16" / "candidates_V2.csv")
    assert list(candidates[0]) == ["seriesuid", "coordX", "coordY", "coordZ", "class"]

    def median_around(row: dict[str, str]) -> float:
        scan = scans[row["seriesuid"]]
        point = [float(row[f"coord{axis}"]) for axis in "XYZ"]
        i, j, k = scan.TransformPhysicalPointToIndex(point)
        return float(np.median(sitk.GetArrayViewFromImage(scan)[k, j - 1 : j + 2, i - 1 : i + 2]))

    assert all(-100 < median_around(row) < 150 for row in annotations)
    assert all(4 <= float(row["diameter_mm"]) <= 30 for row in annotations)
    assert sum(row["class"] == "1" for row in candidates) == len(annotations)
    empty = [row for row in candidates if row["class"] == "0"]
    assert {row["seriesuid"] for row in empty} == set(scans)
    assert np.mean([median_around(row) < -500 for row in empty]) > 0.75  # the others are vessels and findings


def test_masks_lie_over_the_lungs_of_their_scans(sample: Path) -> None:
    cases = find_cases(sample / "Task_Lungs")
    assert [case.name for case in cases] == ["lungs_001", "lungs_002"]
    assert read_description(sample / "Task_Lungs").classes == ["lungs"]
    scans = {path.stem: sitk.ReadImage(str(path)) for path in sample.glob("LUNA16/subset*/*.mhd")}
    for number, case in enumerate(cases, 1):
        scan, (image,), mask = scans[series_uid(0, number)], map(read_file, case.images), read_file(case.label)
        hu, lungs = sitk.GetArrayFromImage(scan), sitk.GetArrayFromImage(mask).astype(bool)
        assert np.array_equal(sitk.GetArrayFromImage(image), hu)
        for place in ("GetOrigin", "GetSpacing", "GetDirection"):
            np.testing.assert_allclose(getattr(mask, place)(), getattr(scan, place)(), atol=1e-4)
        assert 0.05 < lungs.mean() < 0.4
        assert -900 < np.median(hu[lungs]) < -700
        shell = binary_dilation(lungs, iterations=6) & ~binary_dilation(lungs, iterations=3)
        assert np.median(hu[shell]) > -100, "beyond their walls is no lung"


def test_xray_files_and_lists(sample: Path) -> None:
    lists = {name: read_list(sample / "Chest14" / f"chest_{name}.txt") for name in ("train", "valid", "test")}
    patients = {name: {image.partition("_")[0] for image in each.names} for name, each in lists.items()}
    assert [len(patients[name]) for name in lists] == [2, 1, 1]
    assert len(set.union(*patients.values())) == PATIENTS  # shared by none
    names = sorted(name for each in lists.values() for name in each.names)
    assert names == sorted(path.name for path in (sample / "Chest14" / "images").iterdir())
    assert names[:2] == ["00000001_000.png", "00000001_001.png"]
    modes = set()
    for name in names:
        with Image.open(sample / "Chest14" / "images" / name) as image:
            assert image.size == (SIZE, SIZE)
            modes.add(image.mode)
            assert np.array(image.convert("L")).std() > 30
    assert modes == {"L", "RGBA"}
    labelled = rows(sample / "Chest14" / "labels.csv")
    assert [(row["split"], row["image"]) for row in labelled] == [(p, n) for p in lists for n in lists[p].names]
    for each in lists.values():
        assert each.labels is not None
        for name, labels in zip(each.names, each.labels, strict=True):
            patient = sample_patient(generator(0, "phantom", int(name[:8])))
            assert patient.labels == {CHEST14_LABELS[i] for i in np.flatnonzero(labels)}
            (row,) = (row for row in labelled if row["image"] == name)
            assert [int(row[label]) for label in CHEST14_LABELS] == labels.tolist()
            assert row["patient"] == name[:8]


def test_same_seed_same_bytes_with_one_worker(sample: Path, tmp_path: Path) -> None:
    """With one scan fewer, whose lines are the last of the tables."""
    flags = ("--scans", SCANS - 1, "--patients", PATIENTS, "--xrays_per_patient", XRAYS, "--size", SIZE, "--masks")
    done = run("--save", tmp_path, *flags, "--workers", 1)
    assert done.returncode == 0, done.stderr
    ours, theirs = files_in(tmp_path), files_in(sample)
    assert len(ours) == len(theirs) - 4, "its header, its voxels, their copy, its mask"
    for name in ours.keys() - {"phantoms.json", "Task_Lungs/dataset.json"}:  # which tell how many there are
        whole = theirs[name][: len(ours[name])] if name.startswith("LUNA16/") else theirs[name]
        assert ours[name] == whole, name


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_phantoms_of_other_options_are_not_mixed_unless_asked_for(tmp_path: Path) -> None:
    small = ("--save", tmp_path, "--scans", 0, "--xrays_per_patient", 1, "--workers", 1, "--size")
    assert run(*small, 64, "--patients", 1).returncode == 0
    (tmp_path / "Chest14" / "images" / "mine.png").write_text("mine")
    before = files_in(tmp_path)
    for flags, words in (
        ((96, "--patients", 1), "--size 64, not 96"),
        ((96, "--patients", 1, "--seed", 1), "--seed 0, not 1; --size 64, not 96"),
    ):
        done = run(*small, *flags)
        assert done.returncode == 2
        assert done.stderr == (
            f"error: --save {tmp_path} holds phantoms made with other options ({words}); give another --save, or "
            "--replace to replace them\n"
        )
        assert files_in(tmp_path) == before
    more = run(*small, 64, "--patients", 2)  # the same person and one more
    assert more.returncode == 0, more.stderr
    images = {name for name in before if name.startswith("Chest14/images")}
    assert all(files_in(tmp_path)[name] == before[name] for name in images)
    fewer = run(*small, 64, "--patients", 1)
    assert fewer.returncode == 0, fewer.stderr
    assert "holds 2 files that this run did not make" in fewer.stderr
    assert run(*small, 96, "--patients", 1, "--replace").returncode == 0
    assert sorted(path.name for path in (tmp_path / "Chest14" / "images").iterdir()) == ["00000001_000.png", "mine.png"]
    with Image.open(tmp_path / "Chest14" / "images" / "00000001_000.png") as image:
        assert image.size == (96, 96)
    assert json.loads((tmp_path / "phantoms.json").read_text())["patients"] == 1


def test_size_is_of_x_rays_alone(tmp_path: Path) -> None:
    flags = argparse.Namespace(save=tmp_path, scans=0, patients=2, xrays_per_patient=1, seed=0, size=64, replace=False)
    make_room(flags)
    flags.scans, flags.patients, flags.size = 3, 0, 512  # CT scans beside the X-rays, as scripts/finetune_example.sh
    make_room(flags)
    assert read_record(tmp_path) == {"scans": 3, "patients": 2, "xrays_per_patient": 1, "seed": 0, "size": 64}


def test_lists_and_subsets_share_out_patients_and_scans() -> None:
    assert {name: len(numbers) for name, numbers in split(0, 100).items()} == {"train": 70, "valid": 10, "test": 20}
    for patients in range(1, 30):
        parts = split(3, patients)
        assert sorted(number for numbers in parts.values() for number in numbers) == list(range(1, patients + 1))
        assert all(parts.values()) == (patients >= 3)
    assert [subset(number) for number in (1, 2)] == [0, 0]
    assert {subset(number) // 7 for number in range(1, 4)} == {0, 1}
    assert {subset(number) for number in range(1, 12)} == set(range(10))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--scans", "-1"), "--scans -1"),
        (("--scans", "0", "--patients", "0"), "nothing to make"),
        (("--size", "8"), "--size 8"),
        (("--seed", "-3"), "--seed -3"),
        (("--workers", "0"), "--workers 0"),
        (("--patient", "3"), "did you mean --patients"),
        (("--scans", "many"), "many"),
    ],
)
def test_bad_flags_are_one_line_and_nothing_is_written(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    done = run("--save", tmp_path / "new", *flags)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert message in line
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "Chest14").write_text("mine, too")
    for save in (tmp_path / "file" / "deeper", tmp_path / "taken"):
        done = run("--save", save, "--scans", 0, "--patients", 1, "--size", 64)
        assert done.returncode == 2
        (line,) = done.stderr.strip().splitlines()
        assert "--save" in line
        assert "Traceback" not in done.stderr
    assert (tmp_path / "taken" / "Chest14").read_text() == "mine, too"
