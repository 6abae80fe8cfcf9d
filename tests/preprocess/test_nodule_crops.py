"""nodule_crops as users run it, and where its crops lie."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from preprocess.jobs.nodule_table import read_table
from preprocess.jobs.nodules import AWAY_MM, cut_around, nearest_voxel
from preprocess.nodule_crops import parse
from tests.conftest import run_preprocess
from tests.preprocess.small_scans import chest, cut_short, write
from utils.errors import UserError

SMALL = ("--input_rows", "16", "--input_cols", "24", "--input_deps", "16")


def nodule_crops(data: Path, save: Path, *flags: str, status: int = 0) -> str:
    """Run the command; returns what it printed, standard error last."""
    run = run_preprocess("nodule_crops", "--data", data, "--save", save, *flags)
    assert run.returncode == status, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    return run.stdout + run.stderr


def rows(save: Path) -> list[dict[str, str]]:
    with (save / "labels.csv").open() as file:
        return list(csv.DictReader(file))


def contents(save: Path) -> dict[str, bytes]:
    return {str(path.relative_to(save)): path.read_bytes() for path in save.rglob("*") if path.is_file()}


def table(path: Path, column: str, *lines: str) -> None:
    path.write_text("\n".join([f"seriesuid,coordX,coordY,coordZ,{column}", *lines]) + "\n")


def test_the_middle_of_a_crop_is_the_place_whatever_the_direction() -> None:
    turns = {  # columns: where the image's axes point to
        "as it is": np.eye(3),
        "flipped": np.diag([-1.0, -1.0, 1.0]),
        "axes exchanged": np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]),
        "tilted": np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]),
    }
    for name, direction in turns.items():
        voxels = np.full((30, 28, 40), -1000, np.int16)  # z, y, x
        index = (25, 10, 4)
        voxels[index[2], index[1], index[0]] = 500
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing((1.0, 2.0, 1.5))
        image.SetDirection(direction.ravel().tolist())
        image.SetOrigin((-110.0, 55.0, -300.5))
        world = image.GetOrigin() + direction @ (np.array(index) * image.GetSpacing())  # literally, not by ITK
        crop = cut_around(image, nearest_voxel(image, tuple(world)), (16, 24, 16))
        assert crop.shape == (16, 24, 16)
        assert np.unravel_index(crop.argmax(), crop.shape) == (8, 12, 8), name
        assert crop.max() == 500, name
        assert (crop[:, :, :2] == -1000).all(), name  # 8 mm below the place, which is 6 mm above the scan's end


@pytest.fixture(scope="module")
def luna(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scans, and both tables."""
    data = tmp_path_factory.mktemp("LUNA16")
    for number, subset in enumerate((0, 7, 8)):
        write(data / f"subset{subset}" / f"1.2.{number}.mhd", chest(number))
    others = [f"1.2.{n},{10 + 20 * k},128,{20 + 15 * k},0" for n in range(3) for k in range(8)]
    nodules = [f"1.2.{n},{x}.4,{y},100" for n in range(3) for x, y in ((80, 128), (168, 120))]
    table(data / "candidates_V2.csv", "class", *others[:10], *(f"{line},1" for line in nodules), *others[10:])
    table(data / "annotations.csv", "diameter_mm", *(f"{line},6.5" for line in nodules[:4]))
    return data


def test_candidates_become_crops_restartably(luna: Path, tmp_path: Path) -> None:
    printed = nodule_crops(luna, tmp_path / "a", *SMALL, "--max_negatives", "3", "--workers", "1")
    assert "6 crops with a nodule and 9 without from 3 scans of 16 x 24 x 16 voxels" in printed
    table = rows(tmp_path / "a")
    assert len(table) == 15
    assert {(row["seriesuid"], row["subset"]) for row in table} == {("1.2.0", "0"), ("1.2.1", "7"), ("1.2.2", "8")}
    for row in table:
        crop = np.load(tmp_path / "a" / row["file"], allow_pickle=False)
        assert (crop.shape, crop.dtype) == ((16, 24, 16), np.float32)
        assert 0 <= crop.min() <= crop.max() <= 1
        if row["label"] == "1":
            assert float(row["coordX"]) in (80.4, 168.4)
            assert crop.mean() < 0.3  # lung is around the nodules
    before = contents(tmp_path / "a")
    (tmp_path / "a" / "subset7" / "1.2.1_crop_2.npy").unlink()
    cut_short(tmp_path / "a" / "subset0" / "1.2.0_crop_1.npy", 0.5)
    printed = nodule_crops(luna, tmp_path / "a", *SMALL, "--max_negatives", "3")
    assert "4 crops with a nodule and 6 without from 2 scans of" in printed
    main_py = f"python main.py --data {tmp_path / 'a'} --n nodules --phase finetune --ratio 1.0 --output my_nodules"
    assert f"labels.csv lists 15 crops; to learn from them: {main_py} (--weight FILE: from pre-" in printed
    assert "2 crops with a nodule and 3 without from 1 scan were there before" in printed
    assert contents(tmp_path / "a") == before
    printed = nodule_crops(luna, tmp_path / "a", *SMALL, "--max_negatives", "3")
    assert printed.startswith(
        "6 crops with a nodule and 9 without from 3 scans of 16 x 24 x 16 voxels in "
        f"{tmp_path / 'a'}, all of them there already ("
    )


def test_other_options_are_refused_unless_asked_for(luna: Path, tmp_path: Path) -> None:
    nodule_crops(luna, tmp_path, *SMALL, "--fold", "7")
    before, crops = contents(tmp_path), len(rows(tmp_path))
    for flags, words in {
        ("--max_negatives", "3"): "--max_negatives 20, not 3",
        ("--hu_min", "-150", "--hu_max", "250"): "--hu_min -1000, not -150; --hu_max 1000, not 250",
        ("--input_rows", "24"): "crops of 16 x 24 x 16, not 24 x 24 x 16",
    }.items():
        printed = nodule_crops(luna, tmp_path, *SMALL, "--fold", "7", *flags, status=2)
        assert printed == (
            f"error: --save {tmp_path} holds {crops} crops made with other options ({words}); give another --save, or "
            "--replace to replace them\n"
        )
        assert contents(tmp_path) == before
    nodule_crops(luna, tmp_path, *SMALL, "--fold", "7", "--max_negatives", "3", "--replace")
    assert sum(row["label"] == "0" for row in rows(tmp_path)) == 3


def test_annotations_alone_draw_negatives_and_a_broken_scan_costs_itself(luna: Path, tmp_path: Path) -> None:
    data, save = tmp_path / "data", tmp_path / "save"
    (data / "subset0").mkdir(parents=True)
    for file in luna.glob("subset?/*"):
        (data / "subset0" / file.name).write_bytes(file.read_bytes())
    (data / "annotations.csv").write_bytes((luna / "annotations.csv").read_bytes())
    cut_short(data / "subset0" / "1.2.1.raw", 0.5)
    printed = nodule_crops(data, save, *SMALL, "--max_negatives", "4", status=1)
    assert "broken: subset0/1.2.1: the data of 1.2.1.mhd are cut short" in printed
    assert "2 crops with a nodule and 8 without from 2 scans" in printed
    nodules = {uid: [place.world for place in own] for uid, own in read_table(data / "annotations.csv").places.items()}
    for row in rows(save):
        place = [float(row[name]) for name in ("coordX", "coordY", "coordZ")]
        distances = [np.linalg.norm(np.subtract(place, nodule)) for nodule in nodules.get(row["seriesuid"], [])]
        if row["label"] == "0":
            assert min(distances, default=np.inf) >= 3.25 + AWAY_MM
            crop = np.load(save / row["file"])
            assert ((crop >= 0.025) & (crop <= 0.25)).mean() >= 0.3  # -950..-500 HU of -1000..1000


def test_drawn_places_in_the_last_thick_slice_are_inside(tmp_path: Path) -> None:
    """Its last voxel at 1 mm is more than half a slice behind the middle of the slice."""
    image = sitk.GetImageFromArray(np.full((12, 40, 40), -800, np.int16))
    image.SetSpacing((1.0, 1.0, 5.0))
    (tmp_path / "data" / "subset0").mkdir(parents=True)
    sitk.WriteImage(image, str(tmp_path / "data" / "subset0" / "s.mhd"))
    (tmp_path / "data" / "annotations.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\ns,20,20,5,4\n")
    printed = nodule_crops(tmp_path / "data", tmp_path / "save", *SMALL, "--max_negatives", "60")
    assert "1 crop with a nodule and 60 without from 1 scan" in printed
    assert max(float(row["coordZ"]) for row in rows(tmp_path / "save")) > 57.5


def test_bad_input_is_answered_in_one_line(luna: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.csv"
    table(wrong, "class", "9.9.9,1,2,3,1")
    printed = nodule_crops(luna, tmp_path / "save", "--table", str(wrong), status=2)
    assert printed == f"error: {wrong} lists none of the 3 scans in {luna}; give their own --table\n"
    table(wrong, "class", "1.2.0,9999,2,3,1")
    printed = nodule_crops(luna, tmp_path / "save", "--table", str(wrong), "--fold", "0", status=2)
    assert (
        "subset0/1.2.0: the table lists a position outside the scan, (9999.0, 2.0, 3.0) mm" in printed.splitlines()[-1]
    )
    assert not (tmp_path / "save").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seriesuid,coordX,coordY,class\n", "no column coordZ"),
        ("seriesuid,coordX,coordY,coordZ\n", "no column class"),
        ("seriesuid,coordX,coordY,coordZ,class\n", "lists no positions"),
        ("seriesuid,coordX,coordY,coordZ,class\nu,1,2,3,1\nu,1,x,3,1\n", "line 3: a number is missing"),
        ("seriesuid,coordX,coordY,coordZ,class\nu,1,2,3,2\n", "line 2: the class is 2"),
        ("seriesuid,coordX,coordY,coordZ,class\nu,1,2,nan,1\n", "line 2: a number is not finite"),
    ],
)
def test_bad_tables_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "table.csv")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input_rows", "20"], "--input_rows 20: it must be a multiple of 8"),
        (["--max_negatives", "0"], "--max_negatives 0: it must be at least 1"),
        (["--hu_min", "5", "--hu_max", "5"], "the first must be smaller"),
        (["--fold", "10"], "--fold 10"),
    ],
)
def test_bad_flags_are_refused(flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(["--data", "data", "--save", "save", *flags])
