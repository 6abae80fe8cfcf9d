"""Names of every kind in lists: what is written is found again, and what people write by hand is understood."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets.xray.files import find_chest
from datasets.xray.lists import CHEST14_LABELS, list_line, read_list
from tests.conftest import Image, run_preprocess
from tests.examples import examples
from utils.errors import UserError


def on_disk(name: str) -> bool:
    """Whether Linux has files of this name, and they are not hidden."""
    return 0 < len(os.fsencode(name)) < 256 and not name.startswith(".") and not {"/", "\0"} & set(name)


ANY_BYTES = st.binary(min_size=1, max_size=40).map(os.fsdecode)
PIECES = [
    "COVID-19 (2)",
    "a",
    " ",
    "  ",
    "\t",
    "\n",
    "\r",
    "\u00a0",
    "\u2028",
    "\ufeff",
    "é",
    "e\u0301",
    "肺",
    "0",
    "1",
]
PIECES += [" 0", " 1 0", '"', "\\", ",", ";", ".png", ".PNG", ".dcm", ".png 2", "none", "#", "\x1c", "\x85", "🫁", "'"]
MIXED = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)
NAMES = st.one_of(MIXED, ANY_BYTES, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))


@settings(
    deadline=None, max_examples=examples(200), derandomize=True, suppress_health_check=[HealthCheck.filter_too_much]
)
@given(
    names=st.lists(NAMES.filter(on_disk), min_size=1, max_size=6, unique=True), labels=st.integers(0, 3), data=st.data()
)
def test_what_is_written_is_found_again(names: list[str], labels: int, data: st.DataObject) -> None:
    values = [data.draw(st.lists(st.integers(0, 1), min_size=labels, max_size=labels)) for _ in names]
    lines = [list_line(name, own) for name, own in zip(names, values, strict=True)]
    with TemporaryDirectory() as folder:
        images, path = Path(folder, "images"), Path(folder, "my.txt")
        images.mkdir()
        for name in names:
            (images / name).touch()
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        listed = read_list(path)
        assert listed.names == names
        assert (None if listed.labels is None else listed.labels.tolist()) == (values if labels else None)
        assert find_chest(images, str(path)) == [os.path.join(images, name) for name in names]


def test_names_that_need_no_quotes_have_none() -> None:
    assert list_line("00000001_000.png", [0, 1]) == "00000001_000.png 0 1"
    assert list_line("COVID-19 (2).png", [0]) == "COVID-19 (2).png 0"
    assert list_line("Doe, John é.png") == "Doe, John é.png"
    assert list_line("scan 1", [0]) == '"scan 1" 0'
    assert list_line(" a.png") == '" a.png"'


HAND_WRITTEN = {
    "names with blanks": ("NORMAL (1).png\nCOVID-19 (2).png\n", ["NORMAL (1).png", "COVID-19 (2).png"], None),
    "and labels": (
        "NORMAL (1).png 0 1\nCOVID-19 (2).png 1 1\n",
        ["NORMAL (1).png", "COVID-19 (2).png"],
        [[0, 1], [1, 1]],
    ),
    "two blanks": ("a.png  0 1\nb.png  0  1\n", ["a.png", "b.png"], [[0, 1], [0, 1]]),
    "two blanks once": ("a.png 0 1\nb.png  0 1\n", ["a.png", "b.png"], [[0, 1], [0, 1]]),
    "no-break spaces": ("a.png\u00a00\u00a01\nb.png 0 1\n", ["a.png", "b.png"], [[0, 1], [0, 1]]),
    "tabs": ("a b.png\t0\t1\nb.png\t1\t1\n", ["a b.png", "b.png"], [[0, 1], [1, 1]]),
    "old line ends": ("a.png 0\rb c.png 1\r", ["a.png", "b c.png"], [[0], [1]]),
    "quotes of names": ('"a.png" 0\n"b".png 1\n', ["a.png", '"b".png'], [[0], [1]]),
    "commas in names": ("Doe, J.png\nRoe, J.png\n", ["Doe, J.png", "Roe, J.png"], None),
    "two suffixes": ("a.png copy.png 0\nb.dcm 1\n", ["a.png copy.png", "b.dcm"], [[0], [1]]),
}


@pytest.mark.parametrize("case", HAND_WRITTEN)
def test_what_people_write(tmp_path: Path, case: str) -> None:
    text, names, labels = HAND_WRITTEN[case]
    (tmp_path / "my.txt").write_bytes(text.encode())
    listed = read_list(tmp_path / "my.txt")
    assert listed.names == names
    assert (None if listed.labels is None else listed.labels.tolist()) == labels


def test_names_as_they_are_found_on_the_disk_without_quotes(tmp_path: Path) -> None:
    """Blanks at an end that a list has or lost, and accents of two characters, as macOS has them."""
    folder = tmp_path / "images"
    folder.mkdir()
    accent = unicodedata.normalize("NFD", "é.png")
    for name in (" a.png", "b.png ", accent):
        (folder / name).touch()
    (tmp_path / "chest_train.txt").write_text(
        f" a.png\nb.png \n{unicodedata.normalize('NFC', accent)}\n", encoding="utf-8"
    )
    found = [os.path.basename(file) for file in find_chest(tmp_path)]
    assert found == [" a.png", "b.png ", accent]


@pytest.mark.parametrize(
    "prefix", ["", "images/", "xrays/images/", "../xrays/images/", "{tmp}/xrays/images/", "./images/"]
)
def test_paths_from_where_people_stand(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "xrays" / "images" / "p").mkdir(parents=True)
    (tmp_path / "xrays" / "images" / "p" / "a.png").touch()
    (tmp_path / "xrays" / "images" / "b.png").touch()
    start = prefix.format(tmp=tmp_path)
    lines = [f"{start}p/a.png", f"{start}b.png", f"{start}p/a.png".replace("/", "\\")]
    (tmp_path / "my.txt").write_text("\n".join(lines))
    files = find_chest(tmp_path / "xrays", str(tmp_path / "my.txt"))
    assert [os.path.relpath(file, tmp_path / "xrays" / "images") for file in files] == ["p/a.png", "b.png", "p/a.png"]


NIH = "Image Index,Finding Labels,Follow-up #,Patient ID,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
TABLES = {
    "NIH": NIH + "a b.png,Cardiomegaly|Hernia,0,1,2682,2749,0.14,0.14,\nc.png,No Finding,1,1,2894,2729,0.14,0.14,\n",
    "Kaggle": ",X_ray_image_name,Label,Dataset_type\n0,a b.png,Normal,TRAIN\n1,c.png,Pnemonia,TEST\n",
    "semicolons": "id;file;age\n7;a b.png;40\n8;c.png;\n",
    "tabs": "file\tlabel\na b.png\t0\nc.png\t1\n",
    "one column": "file\na b.png\nc.png\n\n",
    "quotes": '"Image","Finding"\r\n"a b.png","x, y"\r\n"c.png","z"\r\n',
}


@pytest.mark.parametrize("case", TABLES)
def test_tables(tmp_path: Path, case: str) -> None:
    (tmp_path / "table.csv").write_text(TABLES[case], newline="")
    (tmp_path / "images").mkdir()
    for name in ("a b.png", "c.png"):
        (tmp_path / "images" / name).touch()
    listed = read_list(tmp_path / "table.csv")
    assert listed.names == ["a b.png", "c.png"]
    assert (listed.labels is not None) == (case == "NIH")
    if listed.labels is not None:
        found = [[label for label, there in zip(CHEST14_LABELS, row, strict=True) if there] for row in listed.labels]
        assert found == [["Cardiomegaly", "Hernia"], []]
        assert listed.labels.dtype == np.uint8
    files = find_chest(tmp_path, str(tmp_path / "table.csv"), 0.5)
    assert [os.path.basename(file) for file in files] == ["a b.png"]


def test_paths_of_chexpert(tmp_path: Path) -> None:
    data, paths = tmp_path / "CheXpert-v1.0-small", []
    for patient in (1, 2):
        paths.append(f"CheXpert-v1.0-small/train/patient0000{patient}/study1/view1_frontal.jpg")
        (tmp_path / paths[-1]).parent.mkdir(parents=True)
        (tmp_path / paths[-1]).touch()
    rows = "".join(f"{path},Female,68,Frontal,AP,1.0,,,-1.0\n" for path in reversed(paths))
    (data / "train.csv").write_text("Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema,Mass,Hernia\n" + rows)
    for folder in (data, tmp_path):
        files = find_chest(folder, str(data / "train.csv"))
        assert files == [str(tmp_path / path) for path in reversed(paths)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "patientId,Target\n0004cfab,0\n",
            r"no column \(of patientId, Target\) holds names of image files .*; name the column",
        ),
        ("picture,mask\na.png,b.png\n", "the columns picture and mask hold names of image files"),
        ("image,label\na.png,0\n,1\n", "line 3: the column image of the images' names is empty"),
        ("image,label\n", "has a header and no rows"),
        ("a.png,0\nb.png,1\n", "line 1: a label is ',0', not 0 or 1"),
    ],
)
def test_tables_that_are_none_or_lack_names(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_list(tmp_path / "table.csv")
    assert str(tmp_path / "table.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_in_a_store(tmp_path: Path) -> None:
    names = [" a.png", "COVID-19 (2).png", "é\n.png", 'p "1"/b .png', os.fsdecode(b"\xff 0.png")]
    for name in names:
        (tmp_path / "data" / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 7)).save(tmp_path / "data" / "images" / name, "PNG")
    (tmp_path / "data" / "chest_train.txt").write_text("".join(f"{list_line(name)}\n" for name in names[:4]))
    (tmp_path / "data" / "images" / "odd.png").touch()
    files = find_chest(tmp_path / "data")
    flags = ("--data", tmp_path / "data", "--save", tmp_path / "store", "--workers", 1)
    assert run_preprocess("chest_store", *flags).returncode == 1
    stored = find_chest(tmp_path / "store")
    assert [os.path.relpath(file, tmp_path / "store") for file in stored] == names[:4]
    assert [os.path.relpath(file, tmp_path / "data" / "images") for file in files] == names[:4]
