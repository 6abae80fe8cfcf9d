"""Tables that a reader could take for something else than their writer meant: said, refused, or read as meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.transforms.single import augmented_view
from datasets.xray.labels import Labelling, find_labelled
from datasets.xray.lists import CHEST14_LABELS, read_list
from tests.datasets.xray.test_label_tables import data, table, ten
from utils.errors import UserError

SPLIT = Labelling(split=(40, 30, 30))


def rows(*fields: str) -> str:
    """Ten lines of a table, of images 0.png to 9.png."""
    return "".join(f"{number}.png,{value}\n" for number, value in enumerate(fields))


def nih(*pairs: tuple[int, int]) -> list[str]:
    return [f"{patient:08d}_{image:03d}" for patient, image in pairs]


@pytest.mark.parametrize("suffix", ["", ".png"])
def test_a_patient_in_two_parts_is_seen_without_suffixes(tmp_path: Path, suffix: str) -> None:
    names = nih((1, 0), (1, 1), (2, 0), (3, 0))
    folder = data(tmp_path, *(f"{name}.png" for name in names))
    parts = zip(names, (1, 0, 1, 0), ("train", "valid", "valid", "test"), strict=True)
    lines = [f"{name}{suffix},{label},{part}\n" for name, label, part in parts]
    with pytest.raises(UserError, match="patient 00000001 is in both"):
        find_labelled(folder, table(tmp_path, "image,ill,split\n" + "".join(lines)), 1.0)


def test_numbers_that_became_fractions_are_the_same_patients(tmp_path: Path) -> None:
    """A table with an empty cell is often written with 13.0 for 13."""
    folder = ten(tmp_path)
    train = table(tmp_path, "image,patient,ill\n0.png,13.0,1\n1.png,,0\n")
    how = Labelling(
        valid_list=table(tmp_path, "image,patient,ill\n2.png,13,1\n3.png,4,0\n", "v.csv"),
        test_list=table(tmp_path, "image,patient,ill\n4.png,5,1\n5.png,6,0\n", "t.csv"),
    )
    with pytest.raises(UserError, match=r"patient 13(\.0)? is in both"):
        find_labelled(folder, train, 1.0, how)


def test_two_spellings_of_a_patient_are_one_in_the_intervals(tmp_path: Path) -> None:
    whole = table(
        tmp_path, "image,patient,ill\n" + rows(*(f"{(n // 2):0{1 + 7 * (n % 2)}d},{n % 2}" for n in range(10)))
    )
    found = find_labelled(ten(tmp_path), whole, 1.0, SPLIT)
    patients = [patient for part in (found.train, found.valid, found.test) for patient in sorted(set(part.patients))]
    assert sorted(patients) == ["0", "1", "2", "3", "4"]


def test_patients_that_are_told_in_part_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ten(tmp_path)
    train = table(tmp_path, "image,patient,ill\n0.png,1,1\n1.png,,0\n2.png,NA,0\n")
    how = Labelling(
        valid_list=table(tmp_path, "image,ill\n3.png,1\n4.png,0\n", "v.csv"),
        test_list=table(tmp_path, "image,patient,ill\n5.png,5,1\n6.png,6,0\n", "t.csv"),
    )
    find_labelled(folder, train, 1.0, how)
    told = capsys.readouterr().err
    assert f"{train}: 2 rows have no value in the column patient: these images count as a separate patient each" in told
    assert f"{how.valid_list} does not tell patients, {train} does: whether they share patients is not known" in told


def test_how_a_plain_list_beside_a_table_is_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ten(tmp_path)
    (tmp_path / "v.txt").write_text("2.png 1 0\n3.png 0 1\n")
    how = Labelling(
        valid_list=str(tmp_path / "v.txt"), test_list=table(tmp_path, "image,male,ill\n4.png,1,0\n5.png,0,1\n", "t.csv")
    )
    train = table(tmp_path, "image,male,ill\n0.png,1,0\n1.png,0,1\n")
    find_labelled(folder, train, 1.0, how)
    told = f"v.txt names no columns: its labels are taken as those of {train}: male, ill\n"
    assert told in capsys.readouterr().err


def test_the_ratio_cuts_the_list_as_pretraining_did(tmp_path: Path) -> None:
    """Before lines without a known label are left out: eight lines were taken there, the last two are left."""
    folder = ten(tmp_path)
    train = table(tmp_path, "image,ill\n" + rows("1", "0", "1", "0", "", "", "", "", "1", "0"))
    data(folder, *(f"{name}.png" for name in "abcd"))
    how = Labelling(
        valid_list=table(tmp_path, "image,ill\na.png,1\nb.png,0\n", "v.csv"),
        test_list=table(tmp_path, "image,ill\nc.png,1\nd.png,0\n", "t.csv"),
    )
    found = find_labelled(folder, train, 0.8, how)
    assert [Path(file).name for file in found.train.files] == ["8.png", "9.png"]
    assert found.listed == 10


def test_what_is_not_known_is_no_finding(tmp_path: Path) -> None:
    words = ["Effusion", "No finding", "nan", "Mass|Effusion", "NA", "-1", "No Finding", "Mass", "", "Effusion"]
    found = find_labelled(ten(tmp_path), table(tmp_path, "image,Finding Labels\n" + rows(*words)), 1.0, SPLIT)
    assert found.classes == CHEST14_LABELS
    assert sum(len(part.files) for part in (found.train, found.valid, found.test)) == 6


def test_a_column_of_parts_or_folds_is_not_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = [f"{n % 2},{n // 5},{n % 3 % 2}" for n in range(10)]
    whole = table(tmp_path, "image,split,fold,male\n" + rows(*values))
    assert find_labelled(ten(tmp_path), whole, 1.0, SPLIT).classes == ("male",)
    assert f"warning: the table {whole}: not learned: split, fold; to learn it, name it" in capsys.readouterr().err
    wanted = Labelling(split=(40, 30, 30), label_column="fold")
    assert find_labelled(tmp_path, whole, 1.0, wanted).classes == ("fold",)


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("split", ["0", "0", "1", "2"], "because none of its values is train, valid or test"),
        (
            "Dataset_type",
            ["TRAIN", "TRAIN", "TEST", "TEST"],
            "though it seems to tell the parts",
        ),
        (
            "partition",
            ["train", "train", "holdout", "test"],
            "though it seems to tell the parts",
        ),
        ("Dataset_type", ["train", "train", "train", "train"], ""),
        ("bed", ["test", "other", "train", "other"], ""),
    ],
)
def test_parts_that_are_told_otherwise_are_said(
    name: str, values: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else rows to test on would be trained on in silence."""
    whole = table(tmp_path, f"image,{name},ill\n" + rows(*(f"{value},1" for value in values)))
    assert len(read_list(whole).names) == 4
    told = capsys.readouterr().err
    assert (f"warning: {whole}: the column {name} is ignored, {why}" in told) if why else not told
    assert told.endswith("; all rows are taken\n") == bool(why)


def test_a_class_called_file_is_refused(tmp_path: Path) -> None:
    whole = table(tmp_path, "image,file,male\n" + rows(*(f"{n % 2},{n % 2}" for n in range(10))))
    with pytest.raises(UserError, match=r"a class is called file, as the column of the images in predictions\.csv"):
        find_labelled(ten(tmp_path), whole, 1.0, SPLIT)


def test_a_letter_among_0_and_1_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = table(tmp_path, "image,ill\n" + rows("0", "1", "O", "1", "0", "1", "0", "1", "0", "O"))
    how = Labelling(split=(80, 10, 10), label_column="ill")
    assert find_labelled(ten(tmp_path), whole, 1.0, how).target.kind == "classes"
    assert "line 4 of the column ill has 'O', not 0 or 1: the column is learned as classes" in capsys.readouterr().err


def test_two_spellings_of_a_class_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = table(
        tmp_path, "image,kind\n" + rows(*["mass", "none", "Mass", "no ne", "none", "mass", "cyst"] + ["mass"] * 3)
    )
    how = Labelling(split=(80, 10, 10), label_column="kind,")
    assert len(find_labelled(ten(tmp_path), whole, 1.0, how).classes) >= 4
    told = capsys.readouterr().err
    assert f"warning: the table {whole}: the column kind has 'Mass' and 'mass', which are two classes\n" in told
    assert "'no ne' and 'none'" in told
    assert told.count("two classes") == 2


def test_a_flag_that_names_no_column_is_refused(tmp_path: Path) -> None:
    whole = table(tmp_path, "image,ill\n" + rows(*"0101010101"))
    with pytest.raises(UserError, match=r"--label_column ' , ' names no column; .* has ill"):
        find_labelled(ten(tmp_path), whole, 1.0, Labelling(split=(40, 30, 30), label_column=" , "))


def test_a_list_in_another_encoding_says_which_line(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes("image,Befund\n0.png,Mass\n1.png,Erguß\n".encode("latin-1"))
    with pytest.raises(
        UserError, match=r"list.csv is not a text file in UTF-8 \(line 3 is not\); save it as such, in "
    ):
        read_list(tmp_path / "list.csv")


def test_a_number_beyond_float32_is_refused(tmp_path: Path) -> None:
    whole = table(tmp_path, "image,age\n" + rows(*(["61", "1e39"] + ["50"] * 8)))
    how = Labelling(split=(40, 30, 30), label_column="age", target="regression")
    with pytest.raises(UserError, match="line 3: the column age has '1e39', a number that is too large"):
        find_labelled(ten(tmp_path), whole, 1.0, how)


def test_lines_that_end_early_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = rows(*(f"{n % 2},{n}" for n in range(8))) + "8.png\n9.png,1\n"
    whole = table(tmp_path, "image,ill,note\n" + lines)
    find_labelled(ten(tmp_path), whole, 1.0, SPLIT)
    told = (
        f"warning: the table {whole}: line 10, and 1 other line: fewer fields than the header's 3; the others are emp"
    )
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["image_column", "patient_column"])
def test_columns_of_a_plain_list_are_refused(tmp_path: Path, flag: str) -> None:
    folder = ten(tmp_path)
    (folder / "l.txt").write_text("".join(f"{n}.png {n % 2}\n" for n in range(10)))
    with pytest.raises(UserError, match=rf"--{flag} x: .*l\.txt is no table, but a list of names; leave the flag out"):
        find_labelled(folder, str(folder / "l.txt"), 1.0, Labelling(split=(40, 30, 30), **{flag: "x"}))  # type: ignore[arg-type]


def test_left_stays_left() -> None:
    """Without mirroring, a view is that with it, turned back where it was flipped."""
    image = np.zeros((64, 64), np.uint8)
    image[:, :32] = 255
    flipped = 0
    for seed in range(20):
        plain, mirrored = (
            augmented_view(image, 1, 64, np.random.default_rng(seed), mirror)[0] for mirror in (False, True)
        )
        assert plain[:, :16].mean() > plain[:, -16:].mean()
        same = np.array_equal(plain, mirrored)
        flipped += not same
        assert same or np.array_equal(plain[:, ::-1], mirrored)
    assert 0 < flipped < 20
