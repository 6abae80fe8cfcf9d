"""Reading lists of images, and how bad ones are reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.xray.lists import CHEST14_LABELS, first_part, read_list
from utils.errors import UserError


def write(folder: Path, text: str) -> Path:
    path = folder / "list.txt"
    path.write_bytes(text.encode())
    return path


def test_names_and_labels(tmp_path: Path) -> None:
    listed = read_list(write(tmp_path, "00001522_000.png 0 1 0\n00000007_003.png 1 0 1\n"))
    assert listed.names == ["00001522_000.png", "00000007_003.png"]
    assert listed.labels is not None
    assert listed.labels.dtype == np.uint8
    assert listed.labels.tolist() == [[0, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize(
    "text", ["a.png\nb.png\n", "a.png\r\nb.png", "\n a.png \n\n\tb.png\n\n", "\ufeffa.png\nb.png\n"]
)
def test_names_alone_as_in_the_list_of_nih(tmp_path: Path, text: str) -> None:
    listed = read_list(write(tmp_path, text))
    assert listed.names == ["a.png", "b.png"]
    assert listed.labels is None


@pytest.mark.parametrize(
    "text", ["a.png\t0\t1\nb.png 1 0\n", "a.png   0  1\nb.png 1 0 \n", "a.png 0 1\r\nb.png\t 1  0\r\n"]
)
def test_any_white_space_separates(tmp_path: Path, text: str) -> None:
    listed = read_list(write(tmp_path, text))
    assert listed.names == ["a.png", "b.png"]
    assert listed.labels is not None
    assert listed.labels.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png 0 1\n\nb.png 0 2\n", "line 3: a label is '2'"),
        ("a.png 0 1\nb.png 01\n", "line 2: a label is '01'"),
        ("a.png 0 1\nb.png 0-1\n", "line 2: a label is '0-1'"),
        ("a.png 0 1\nb.png 0 ①\n", "line 2: a label is '①'"),
        ("a.png 0 x\n", "line 1: a label is 'x'"),
        ("a.png,0,1\nb.png,1,0\n", "line 1: a label is ',0,1'"),
        ("a.png 0 1\nb.png 0 1 1\n", "line 2: 3 labels, but the lines before have 2"),
        ("a.png 0 1\nb.png\n", "line 2: 0 labels, but the lines before have 2"),
        ("a.png\nb.png 1\n", "line 2: 1 labels, but the lines before have 0"),
        ("", "names no image"),
        ("\n  \n", "names no image"),
    ],
)
def test_what_is_wrong_and_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_list(write(tmp_path, text))
    assert str(tmp_path / "list.txt") in str(caught.value)


def test_files_that_are_no_lists(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.txt cannot be read: No such file"):
        read_list(tmp_path / "none.txt")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_list(tmp_path)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(UserError, match=r"picture\.png is not a text file"):
        read_list(tmp_path / "picture.png")


def test_the_ratio_keeps_the_first_lines_and_never_none() -> None:
    assert first_part(10, 0.25, "list") == 2
    assert first_part(10, 1.0, "list") == 10
    with pytest.raises(UserError, match=r"--ratio 0.05 of the 10 images in list gives no image"):
        first_part(10, 0.05, "list")


def test_the_labels_are_in_the_order_of_chestxray14() -> None:
    assert len(CHEST14_LABELS) == 14
    assert (CHEST14_LABELS[0], CHEST14_LABELS[6], CHEST14_LABELS[13]) == ("Atelectasis", "Pneumonia", "Hernia")
