"""Finding X-rays in every layout that people have, and what is said when some are missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import phases.preview
import preprocess.jobs.preview
import tasks.prediction_pictures
import training.reporting.reporter
from datasets.xray.files import PROJECT_LIST, find_chest, listed
from datasets.xray.images import PICTURES
from datasets.xray.lists import read_list
from utils.errors import UserError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(files: list[str]) -> list[str]:
    return [os.path.basename(file) for file in files]


LAYOUTS = {
    "images": ["images/a.png", "images/b.png", "images/c.png"],
    "nih": ["images_001/images/a.png", "images_002/images/c.png", "images_012/images/b.png"],
    "flat": ["a.png", "b.png", "c.png"],
    "folders": ["patient1/a.png", "patient1/study2/b.png", "patient2/c.png"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_listed_images_in_their_order(tmp_path: Path, layout: str) -> None:
    touch(tmp_path, *LAYOUTS[layout])
    (tmp_path / "my.txt").write_text("c.png\na.png\nb.png\n")
    files = find_chest(tmp_path, str(tmp_path / "my.txt"))
    assert names(files) == ["c.png", "a.png", "b.png"]
    assert all(os.path.isfile(file) for file in files)
    assert names(find_chest(tmp_path, "none")) == ["a.png", "b.png", "c.png"]


def test_where_the_list_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = read_list(PROJECT_LIST).names
    touch(tmp_path, *(f"images/{name}" for name in own[:3]), "images/other.png", "images/last.png")
    (tmp_path / "mine.txt").write_text("other.png\nlast.png\n")
    monkeypatch.chdir(tmp_path)  # the project's list is found from anywhere
    assert names(find_chest(tmp_path, None, 3.5 / len(own))) == own[:3]
    (tmp_path / "train_val_list.txt").write_text("other.png\n")
    assert names(find_chest(tmp_path)) == ["other.png"]
    there = f"training list: {tmp_path / 'train_val_list.txt'}, NIH's own"
    assert f"{there}; for this project's give --train_list {PROJECT_LIST}\n" in capsys.readouterr().out
    (tmp_path / "chest_train.txt").write_text("last.png 1 0\n")
    assert names(find_chest(tmp_path)) == ["last.png"]
    assert names(find_chest(tmp_path, "mine.txt")) == ["other.png", "last.png"]


def test_the_ratio_cuts_before_images_are_looked_for(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    (tmp_path / "chest_train.txt").write_text("b.png\na.png\nmissing.png\nalso.png\n")
    assert names(find_chest(tmp_path, None, 0.5)) == ["b.png", "a.png"]
    with pytest.raises(UserError, match=r"--ratio 0.2 of the 4 images"):
        find_chest(tmp_path, None, 0.2)
    assert names(find_chest(tmp_path, "none", 0.5)) == ["a.png"]
    with pytest.raises(UserError, match=r"--ratio 0.4 of the 2 images"):
        find_chest(tmp_path, "none", 0.4)


def test_missing_images_are_counted_and_three_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png")
    (tmp_path / "chest_train.txt").write_text("w.png\nx.png\na.png\ny.png\nz.png\n")
    with pytest.raises(UserError) as caught:
        find_chest(tmp_path)
    message = str(caught.value)
    assert message.startswith("4 of the 5 images that")
    assert "w.png, x.png, y.png, ... (an image there: " in message
    assert "z.png" not in message
    assert "--train_list FILE" in message
    assert "--train_list none" in message
    assert "\n" not in message


@pytest.mark.parametrize("train_list", [None, "none"])
def test_no_images_at_all(tmp_path: Path, train_list: str | None) -> None:
    with pytest.raises(UserError, match=r"--data .*absent: no such folder"):
        find_chest(tmp_path / "absent", train_list)
    with pytest.raises(UserError, match="holds no images"):
        find_chest(tmp_path, train_list)
    touch(tmp_path, "images/readme.txt", "images/.hidden.png", "chest_train.csv")
    with pytest.raises(UserError, match="holds no images"):
        find_chest(tmp_path, train_list)
    with pytest.raises(UserError, match="this is not a folder"):
        find_chest(tmp_path / "chest_train.csv", train_list)


@pytest.mark.parametrize("train_list", [None, "none"])
@pytest.mark.parametrize(
    ("file", "remedy"),
    [
        ("subset0/1.2_img_{}.npy", r"holds pairs of CT or MR crops \(1.2_img_.*\): for these add --n luna"),
        ("subset0/1.2_crop_{}.npy", r"holds CT crops \(.*\): for these add --n nodules, with --phase finetune"),
        ("{}.nii.gz", r"holds CT or MR scans \(.*\): make pairs of them, python preprocess/luna_pre.py --data "),
    ],
)
def test_data_of_other_commands_are_recognised(tmp_path: Path, train_list: str | None, file: str, remedy: str) -> None:
    touch(tmp_path, "preview.png", *(file.format(number) for number in range(3)))
    with pytest.raises(UserError, match=remedy):
        find_chest(tmp_path, train_list)


def test_how_many_there_are_whatever_the_ratio(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    assert listed(tmp_path, "none") == 2
    (tmp_path / "chest_train.txt").write_text("b.png\na.png\nmissing.png\n")
    assert listed(tmp_path, None) == 3


def test_all_images_are_those_with_a_suffix_and_dicom_files_without_one(tmp_path: Path) -> None:
    touch(tmp_path, "b.PNG", "a.jpg", "d.jpeg", "c.dcm", "notes.txt", "DICOMDIR", "table.csv")
    (tmp_path / "CT.1.2.840.5").write_bytes(bytes(128) + b"DICM" + bytes(20))
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(20))
    assert names(find_chest(tmp_path, "none")) == ["CT.1.2.840.5", "a.jpg", "b.PNG", "c.dcm", "d.jpeg"]


def test_pictures_that_the_project_draws_are_no_x_rays(tmp_path: Path) -> None:
    drawn = {preprocess.jobs.preview.FILE_NAME, phases.preview.FILE_NAME, training.reporting.reporter.CURVES}
    drawn |= {tasks.prediction_pictures.ROC, tasks.prediction_pictures.CASES}
    assert drawn == set(PICTURES)
    folder = training.reporting.reporter.PICTURES
    own = [f"{folder}/epoch_0001.png", f"run/{folder}/step_00000100.png"]
    touch(tmp_path, "a.png", "run/views.png", *own, *drawn)
    assert names(find_chest(tmp_path, "none")) == ["a.png"]


def test_a_name_that_is_there_twice_needs_its_path(tmp_path: Path) -> None:
    touch(tmp_path, "p1/frontal.png", "p2/frontal.png", "p2/lateral.png")
    (tmp_path / "my.txt").write_text("lateral.png\nfrontal.png\n")
    with pytest.raises(UserError, match=r"frontal.png is ambiguous: .*; write its path in the list"):
        find_chest(tmp_path, str(tmp_path / "my.txt"))
    (tmp_path / "my.txt").write_text("lateral.png\np2/frontal.png\n")
    files = find_chest(tmp_path, str(tmp_path / "my.txt"))
    assert [os.path.relpath(file, tmp_path) for file in files] == ["p2/lateral.png", "p2/frontal.png"]


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/deep/a.png", "data/b.png")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "deep" / "back").symlink_to(tmp_path / "data")
    assert names(find_chest(tmp_path / "data", "none")) == ["b.png", "a.png"]


def test_no_image_is_looked_up_by_itself(tmp_path: Path) -> None:
    """A link to nowhere shows it: whoever asked the file system about it would find it missing."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "chest_train.txt").write_text("a.png\n")
    assert names(find_chest(tmp_path)) == ["a.png"]
    assert names(find_chest(tmp_path, "none")) == ["a.png"]
