"""Images that spoil the results in silence: in two parts under two names, or in one part with two labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from options import Options
from tasks.copies import warn_of_contradictions, warn_of_copies
from tasks.msd import Volume, _voxels_of, build_msd
from tests.conftest import run_main, write_xrays
from training.devices import Devices
from utils.hashes import TooLateError, hash_of_content
from utils.process_group import SINGLE

SMALL = ("--n", "chest", "--phase", "finetune", "--size", 64, "--narrow", 8, "--epochs", 1, "--b", 4, "--workers", 0)


@pytest.fixture(scope="module")
def xrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 X-rays of as many patients; the last two, in the test part, are copies of training images."""
    folder = write_xrays(tmp_path_factory.mktemp("xrays"), count=16, size=64)
    files = sorted(folder.rglob("*.png"))
    for copy, original in zip(files[14:], files[:2], strict=True):
        shutil.copyfile(original, copy)
    parts = ["train"] * 8 + ["valid"] * 4 + ["test"] * 4
    rows = [
        f"{file.name},{n},{part},{n % 2},{40 + n}\n" for n, (file, part) in enumerate(zip(files, parts, strict=True))
    ]
    rows[6:6] = [rows[5].replace(",5,train,1,", ",5,train,0,")]
    (folder / "table.csv").write_text("image,patient,split,ill,age\n" + "".join(rows))
    return folder


def test_x_rays_in_two_parts_and_with_two_labels(xrays: Path, tmp_path: Path) -> None:
    flags = ("--data", xrays, "--train_list", xrays / "table.csv", "--label_column", "ill", "--gpus", "")
    done = run_main(*SMALL, *flags, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    names = [file.name for file in sorted(xrays.rglob("*.png"))]
    assert (
        f"warning: 2 test images have the content of training images under another name ({names[14]} is {names[0]}, "
        "...): the results on them are too good; remove them, or put them into one part\n"
    ) in done.stderr
    assert "1 training image is listed with different labels (the first: " in done.stderr
    assert f"{names[5]}): all of these lines count; keep one of them\n" in done.stderr


def test_no_copies_are_nothing_to_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the same size, with the same ends; and of files that are not there, as of a store."""
    ends = b"x" * 2**17
    for name, middle in (("a", b"1"), ("b", b"2"), ("c", b"2"), ("d", b"22")):
        (tmp_path / name).write_bytes(ends + middle + ends)
    parts = {"training": [tmp_path / "a", tmp_path / "gone"], "test": [tmp_path / "b", tmp_path / "c", tmp_path / "d"]}
    warn_of_copies(parts)
    warn_of_contradictions("test", ["a", "b", "a"], np.array([[1.0, np.nan], [0.0, 1.0], [1.0, np.nan]]))
    assert capsys.readouterr().err == ""
    warn_of_copies({**parts, "validation": [tmp_path / "b"]})
    assert capsys.readouterr().err == (
        "warning: 1 validation image has the content of test images under another name (b is b): the results on them "
        "are too good; remove them, or put them into one part\n"
    ).replace("b is b", f"{tmp_path / 'b'} is {tmp_path / 'b'}")


def test_the_search_ends_in_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"same")
    warn_of_copies({"training": [tmp_path / "a"], "test": [tmp_path / "b"]}, limit_s=0)
    said = capsys.readouterr()
    assert (said.out, said.err) == (
        "images of the same content in two parts: not looked for to the end, as this takes more than 0 s\n",
        "",
    )
    with pytest.raises(TooLateError):  # in a large file, too
        hash_of_content(tmp_path / "a", end=0)


def test_scans_whose_slices_are_files_are_not_judged_by_the_first(tmp_path: Path) -> None:
    """Which is all air in many."""
    for name, listed in (("a.mhd", "LIST\na0.raw\na1.raw"), ("b.mhd", "b.raw")):
        (tmp_path / name).write_text(
            f"NDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = {listed}\n"
        )
    (tmp_path / "c.mha").touch()
    files = [
        _voxels_of(Volume("x", *[np.zeros(1)] * 3, [], (tmp_path / name,))) for name in ("a.mhd", "b.mhd", "c.mha")
    ]
    assert files == [[], [tmp_path / "b.raw"], [tmp_path / "c.mha"]]


def test_a_scan_that_was_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for number in range(6):
        image = rng.normal(size=(16, 16, 16)).astype(np.float32)
        label = np.zeros((16, 16, 16), np.uint8)
        label[4:9, 4:9, 4:9] = 1
        for folder, voxels in (("imagesTr", image), ("labelsTr", label)):
            sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / folder / f"case_{number}.mha"))
    flags = {"n": "msd", "phase": "finetune", "patch": "16,16,16", "b": 2, "workers": 0, "narrow": 8, "norm": "gn"}
    options = Options(data=str(tmp_path), folds=3, epochs=1, gpus="", **flags)
    build_msd(options, Devices("", None), SINGLE)
    assert "content" not in capsys.readouterr().err
    for folder in ("imagesTr", "labelsTr"):
        for number in range(1, 6):
            shutil.copyfile(tmp_path / folder / "case_0.mha", tmp_path / folder / f"case_{number}.mha")
    build_msd(options, Devices("", None), SINGLE)
    assert "2 test images have the content of training images under another name (case_" in capsys.readouterr().err
