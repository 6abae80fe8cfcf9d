"""Which pairs of crops are found in a folder, by which list; what is said where there are none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from datasets.ct.luna import find_luna
from datasets.layout import HELD_OUT_SUBSETS
from phases.features import IMAGES
from tests.crops_v2 import write_crops_v2
from utils.errors import UserError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Scans b, a and c in subsets 0, 3 and 6, with 12, 2 and 1 pairs; d in a validation subset."""
    for subset, uid, count in ((0, "1.b", 12), (3, "1.a", 2), (6, "1.c", 1), (8, "1.d", 2)):
        for number in range(count):
            touch(tmp_path / f"subset{subset}" / f"{uid}_img_{number}.npy")
    return tmp_path


def names(files: list[Path]) -> list[str]:
    return [file.name.removesuffix(".npy") for file in files]


def test_all_scans_without_a_list(data: Path) -> None:
    a, b, c = ["1.a_img_0", "1.a_img_1"], [f"1.b_img_{k}" for k in range(12)], ["1.c_img_0"]
    files = find_luna(data, None, 1.0)
    assert names(files) == a + b + c  # by uid, then by number: 10 comes after 9
    assert all(file.exists() for file in files)
    assert names(find_luna(data, "none", 1.0)) == a + b + c
    assert names(find_luna(data, None, 0.7)) == a + b  # int(0.7 * 3) scans
    assert names(find_luna(data, None, 1.0, subsets=[8, 9])) == ["1.d_img_0", "1.d_img_1"]


def test_the_list_beside_the_data_counts_unless_refused(data: Path) -> None:
    (data / "luna_train.txt").write_text("1.c\n1.a\n")
    assert names(find_luna(data, None, 1.0)) == ["1.c_img_0", "1.a_img_0", "1.a_img_1"]
    assert len(find_luna(data, "none", 1.0)) == 15


def test_a_named_list(data: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (data / "luna_train.txt").write_text("1.b\n")
    path = tmp_path_factory.mktemp("lists") / "mine.txt"
    path.write_bytes(b"\xef\xbb\xbf1.c.mhd  \r\n\r\n   \n1.gone\n1.a \n1.d\n1.c\n")
    assert names(find_luna(data, str(path), 1.0)) == ["1.c_img_0", "1.a_img_0", "1.a_img_1"]
    assert names(find_luna(data, str(path), 0.5)) == ["1.c_img_0"]  # of 5 lines, the first 2; one is not there


def test_files_that_are_no_pairs_are_passed_over(tmp_path: Path) -> None:
    for name in ("1.a_img_0.npy", ".1.a_img_1.npy.77.tmp", "._1.a_img_0.npy", "1.a_img_x.npy", "1.a.npy", "notes.txt"):
        touch(tmp_path / "subset0" / name)
    touch(tmp_path / "subset1.zip")
    touch(tmp_path / "subset10" / "1.b_img_0.npy")
    assert names(find_luna(tmp_path, None, 1.0)) == ["1.a_img_0"]


def test_one_scan_in_two_folders(tmp_path: Path) -> None:
    for subset in (1, 0):
        touch(tmp_path / f"subset{subset}" / "1.a_img_0.npy")
    assert [file.parent.name for file in find_luna(tmp_path, None, 1.0)] == ["subset0", "subset1"]


@pytest.mark.parametrize(
    ("make", "train_list", "ratio", "message"),
    [
        (lambda data: None, None, 1.0, r"holds no LUNA16 pairs.*no folder subset0 .. subset6.*luna_pre"),
        (lambda data: data.rmdir(), None, 1.0, "cannot be read: No such file"),
        (lambda data: (data.rmdir(), data.touch()), None, 1.0, "cannot be read: Not a directory"),
        (lambda data: (data / "subset2").mkdir(), None, 1.0, r"holds no LUNA16 pairs.*in its subset2"),
        (lambda data: touch(data / "subset2"), None, 1.0, "subset2 cannot be read: Not a directory"),
        (lambda data: touch(data / "subset9" / "1.a_img_0.npy"), None, 1.0, r"no training scans.*\. subset6.*subset9$"),
        (lambda data: touch(data / "subset0" / "1.a_img_0.npy"), "gone.txt", 1.0, "gone.txt cannot be read"),
        (lambda data: touch(data / "subset0" / "1.a_img_0.npy"), None, 0.5, r"--ratio 0.5 keeps none of the 1 uid"),
    ],
)  # fmt: skip
def test_nothing_to_train_on(tmp_path: Path, make: object, train_list: str | None, ratio: float, message: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    make(data)  # type: ignore[operator]
    with pytest.raises(UserError, match=message) as error:
        find_luna(data, train_list and str(tmp_path / train_list), ratio)
    assert "\n" not in str(error.value)


def test_a_list_of_other_scans(data: Path) -> None:
    (data / "luna_train.txt").write_text("".join(f"2.{number}\n" for number in range(40)))
    with pytest.raises(UserError, match=r"selects 20 scans from .*, but none.*2\.0, 2\.1, 2\.2.*--train_list none"):
        find_luna(data, None, 0.5)


@pytest.mark.parametrize(("content", "message"), [(b" \n\n", "names no scan"), (b"\xff\xfe\x00", "no text file")])
def test_bad_lists(data: Path, content: bytes, message: str) -> None:
    (data / "luna_train.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        find_luna(data, None, 1.0)


def test_no_held_out_scans(tmp_path: Path) -> None:
    touch(tmp_path / "subset0" / "1.a_img_0.npy")
    touch(tmp_path / "preview.png")
    with pytest.raises(UserError) as error:
        find_luna(tmp_path, "none", 1.0, HELD_OUT_SUBSETS)
    assert str(error.value) == (
        f"--data {tmp_path} holds no held-out scans (--val_every): they must be in subset7 .. subset9; move some "
        "there, or leave out --val_every; its pairs are in subset0"
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("preview.png", "make them of CT or MR scans: python preprocess/luna_pre.py --data "),
        ("run/curves.png", "make them of CT or MR scans: python preprocess/luna_pre.py --data "),
        ("a/x.png", "it holds images (x.png): for X-rays add --n chest"),
        ("x.JPG", "it holds images (x.JPG): for X-rays add --n chest"),
        ("x.dcm", "for X-rays add --n chest; or make them of CT or MR scans: python preprocess/luna_pre.py --data "),
        ("a/b/x.nii.gz", "make them of CT or MR scans: python preprocess/luna_pre.py --data "),
        ("x.mhd", "make them of CT or MR scans: python preprocess/luna_pre.py --data "),
    ],
)
def test_a_folder_of_something_else_is_told_what_to_do(tmp_path: Path, name: str, words: str) -> None:
    touch(tmp_path / name)
    with pytest.raises(UserError, match=re.escape(words)):
        find_luna(tmp_path, None, 1.0)


def test_features_are_made_of_the_crops_of_either_method(tmp_path: Path) -> None:
    """Of PCRLv2's where there are no others."""
    find = IMAGES["luna"].find
    write_crops_v2(tmp_path, scans=1, first_subset=8)
    assert names(list(map(Path, find(tmp_path, None)))) == ["1.2.8_global_0", "1.2.8_global_1"]
    touch(tmp_path / "subset0" / "1.2.0_img_0.npy")
    assert names(list(map(Path, find(tmp_path, None)))) == ["1.2.0_img_0"]
