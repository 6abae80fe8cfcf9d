"""The evidence's parts share no patient, and its draws of labelled patients are nested and of the seed alone."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import pytest

from benchmarks.evidence_data import MOST, by_patient, draw, prepare_nih, split_by_patient
from datasets.xray.labels import find_labelled
from tests.benchmarks.made_up import write_nih
from utils.errors import UserError


@pytest.mark.parametrize("count", [10, 14, 37, 799])
def test_each_patient_is_in_one_part(count: int) -> None:
    patients = [f"{number:08d}" for number in range(1, count + 1)]
    parts = split_by_patient([*patients, *patients[:5]])
    assert sorted(chain(*parts.values())) == patients
    assert [len(part) / count for part in parts.values()] == pytest.approx([0.6, 0.1, 0.3], abs=1 / count)
    assert parts == split_by_patient(reversed(patients)), "the order of the list has no say"
    assert parts != split_by_patient(patients, seed=1)


def test_draws_are_nested_and_seeded() -> None:
    images = by_patient(f"{patient:08d}_{number:03d}.png" for patient in range(40) for number in range(3))
    patients = sorted(images)
    drawn = draw(images, patients, 0)
    assert [name[:8] for name in drawn] != patients
    assert sorted(name[:8] for name in drawn) == patients, "an image of each patient"
    assert draw(images, patients, 0) == drawn
    assert draw(images, patients, 1) != drawn
    assert {name[9:12] for name in drawn} == {"000", "001", "002"}, "not always the first image"


def test_lists_of_a_folder(tmp_path: Path) -> None:
    folder, own, results = write_nih(tmp_path / "nih", 60), tmp_path / "own", tmp_path / "results"
    prepare_nih(folder, own, results, (0, 1))
    names = {
        part: [line.split()[0] for line in (own / f"chest_{part}.txt").read_text().splitlines()]
        for part in ("train", "valid", "test")
    }
    whose = {part: {name[:8] for name in part_names} for part, part_names in names.items()}
    assert len(set.union(*whose.values())) == sum(map(len, whose.values())) == 60
    assert {part: len(patients) for part, patients in whose.items()} == {"train": 36, "valid": 6, "test": 18}
    assert max(sum(name[:8] == patient for name in names["test"]) for patient in whose["test"]) <= MOST
    few, more = ((own / f"labelled{count}_draw1.txt").read_text().splitlines() for count in (25, 36))
    assert more[:25] == few
    assert len(more) == 36
    assert {line[:8] for line in more} == whose["train"]

    listed = dict(line.split(" ", 1) for line in (folder / "labels.txt").read_text().splitlines())
    parts = find_labelled(own, str(own / "labelled25_draw1.txt"), 1.0)
    for file, labels in zip(parts.train.files, parts.train.labels, strict=True):
        male, _, _, infiltration, effusion, atelectasis, _ = map(int, listed[Path(file).name].split())
        assert labels.tolist() == [male, infiltration, effusion, atelectasis]
    true = json.loads((results / "nih_test.json").read_text())
    assert true["files"] == names["test"]
    assert true["groups"] == [name[:8] for name in names["test"]]
    assert true["labels"]["Effusion"] == [int(listed[name].split()[4]) for name in names["test"]]


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"classes\.txt cannot be read"):
        prepare_nih(tmp_path, tmp_path / "own", tmp_path, (0,))
    folder = write_nih(tmp_path / "nih", 3)
    (folder / "classes.txt").write_text("male Effusion")
    with pytest.raises(UserError, match="does not name Infiltration, Atelectasis"):
        prepare_nih(folder, tmp_path / "own", tmp_path, (0,))
