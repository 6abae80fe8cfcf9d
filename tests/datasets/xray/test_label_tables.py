"""Labels from tables with a header: columns, kinds, patients, parts; and what is refused, in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.xray.labels import Labelling, find_labelled
from datasets.xray.lists import CHEST14_LABELS, read_list
from utils.errors import UserError

NAN = np.nan


def data(folder: Path, *names: str) -> Path:
    """Empty images: they are found, not read."""
    for name in names:
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).touch()
    return folder


def table(folder: Path, text: str, name: str = "table.csv") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def ten(folder: Path) -> Path:
    return data(folder, *(f"{number}.png" for number in range(10)))


def test_columns_of_chexpert(tmp_path: Path) -> None:
    """Path, patients in folders, 0, 1, -1 and nothing; what is not 0 and 1 is no class."""
    paths = [f"CheXpert-v1.0-small/train/patient0000{n}/study1/view{v}_frontal.jpg" for n in (1, 2, 3) for v in (1, 2)]
    folder = tmp_path / "CheXpert-v1.0-small"
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    header = "Path,Sex,Age,Frontal/Lateral,Edema,Pleural Effusion\n"
    values = ["1.0,0.0", "-1.0,", ",1.0", "0.0,-1", "1,0", ","]
    rows = [f"{path},Male,61,Frontal,{value}\n" for path, value in zip(paths, values, strict=True)]
    whole = table(tmp_path, header + "".join(rows))
    found = find_labelled(folder, whole, 1.0, Labelling(split=(40, 30, 30)))
    assert (found.target.kind, found.classes) == ("multilabel", ("Edema", "Pleural Effusion"))
    parts = [found.train, found.valid, found.test]
    by_file = {
        Path(f).parts[-3:][0] + Path(f).name[4]: row
        for part in parts
        for f, row in zip(part.files, part.labels, strict=True)
    }
    assert sum(len(part.files) for part in parts) == 4, "lines of which nothing is known are left out"
    np.testing.assert_array_equal(by_file["patient000011"], [1, 0])
    np.testing.assert_array_equal(by_file["patient000021"], [NAN, 1])
    np.testing.assert_array_equal(by_file["patient000022"], [0, NAN])
    assert [set(part.patients) for part in parts] == [{part.patients[0]} for part in parts]


def test_nih_table_as_it_is(tmp_path: Path) -> None:
    folder = data(tmp_path, *(f"{n:08d}_00{k}.png" for n in (1, 2, 3) for k in (0, 1)))
    lines = "".join(f"{n:08d}_00{k}.png,{f},{k},{n},058Y,M\n" for n, k, f in [
        (1, 0, "Mass|Edema"), (1, 1, "No Finding"), (2, 0, "Hernia"), (2, 1, "No Finding"), (3, 0, "Mass"),
        (3, 1, "Mass"),
    ])  # fmt: skip
    path = table(tmp_path, "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender\n" + lines)
    found = find_labelled(folder, path, 1.0, Labelling(split=(0.4, 0.3, 0.3), seed=3))
    assert found.classes == CHEST14_LABELS
    both = {
        Path(f).name: row
        for part in (found.train, found.valid, found.test)
        for f, row in zip(part.files, part.labels, strict=True)
    }
    assert [CHEST14_LABELS[k] for k in np.flatnonzero(both["00000001_000.png"])] == ["Mass", "Edema"]
    ages = find_labelled(
        folder, path, 1.0, Labelling(split=(40, 30, 30), label_column="patient age", target="regression")
    )
    assert (ages.target.kind, ages.train.labels.tolist()) == ("regression", [[58.0], [58.0]])


def test_one_class_of_many(tmp_path: Path) -> None:
    rows = "".join(f"{n},{n},{part},{name}\n" for n, part, name in [
        (0, "train", "COVID"), (1, "Training", "normal"), (2, "train", "10"), (3, "train", ""),
        (4, "val", "normal"), (5, "validation", "COVID"), (6, "test", "10"), (7, "test", "10"),
    ])  # fmt: skip
    path = table(tmp_path, "image_id,subject,Split,class\n" + rows)
    found = find_labelled(ten(tmp_path), path, 1.0, Labelling(label_column="class"))
    assert (found.target.kind, found.classes) == ("classes", ("10", "COVID", "normal"))
    assert found.train.labels.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert [Path(file).name for file in found.valid.files] == ["4.png", "5.png"], "names without their suffix"
    assert read_list(path).names == ["0", "1", "2", "3"], "pre-training takes the rows to train on"


def test_whole_numbers_are_classes_and_yes_or_no_is_not(tmp_path: Path) -> None:
    rows = "".join(f"{n}.png,{('train', 'val', 'test')[n % 3]},{n % 4}.0,{n % 2}\n" for n in range(10))
    path, folder = table(tmp_path, "file,split,grade,ill\n" + rows), ten(tmp_path)
    grades = find_labelled(folder, path, 1.0, Labelling(label_column="grade"))
    assert grades.classes == ("0", "1", "2", "3")
    numbers = find_labelled(folder, path, 1.0, Labelling(label_column="grade", target="regression"))
    assert numbers.train.labels.ravel().tolist() == [0, 3, 2, 1]
    ill = find_labelled(folder, path, 1.0, Labelling(label_column="ill"))
    assert (ill.target.kind, ill.train.labels.shape) == ("multilabel", (4, 1))
    two = find_labelled(folder, path, 1.0, Labelling(label_column="ill", target="classes"))
    assert (two.target.kind, two.classes) == ("classes", ("0", "1"))


def test_a_name_that_only_python_takes_for_a_number_is_a_name(tmp_path: Path) -> None:
    rows = "".join(f"{n}.png,{('train', 'val', 'test')[n % 3]},{'1_0' if n % 2 else 10}\n" for n in range(10))
    path, folder = table(tmp_path, "file,split,code\n" + rows), ten(tmp_path)
    assert find_labelled(folder, path, 1.0, Labelling(label_column="code")).classes == ("10", "1_0")
    with pytest.raises(UserError, match="1_0"):
        find_labelled(folder, path, 1.0, Labelling(label_column="code", target="regression"))


def test_a_split_is_by_patient_and_its_lists_give_it_again(tmp_path: Path) -> None:
    folder = data(tmp_path, *(f"{number}.png" for number in range(40)))
    rows = "".join(f"{n}.png,{n // 3},{n % 2},{1 if n % 3 else -1},train\n" for n in range(40))
    path = table(tmp_path, "image,patient_id,a,b,fold\n" + rows)
    first = find_labelled(folder, path, 1.0, Labelling(split=(70, 10, 20), seed=1))
    assert sorted(first.written) == ["split_test.csv", "split_train.csv", "split_valid.csv"]
    lists = {name: table(tmp_path, text, name) for name, text in first.written.items()}
    how = Labelling(lists["split_valid.csv"], lists["split_test.csv"])
    again = find_labelled(folder, lists["split_train.csv"], 1.0, how)
    for part in ("train", "valid", "test"):
        one, other = getattr(first, part), getattr(again, part)
        assert (one.files, one.patients) == (other.files, other.patients)
        np.testing.assert_array_equal(one.labels, other.labels)
    patients = [set(part.patients) for part in (first.train, first.valid, first.test)]
    assert [len(each) for each in patients] == [10, 1, 3]
    assert len(set.union(*patients)) == 14
    assert find_labelled(folder, path, 1.0, Labelling(split=(70, 10, 20), seed=1)).train.files == first.train.files
    assert find_labelled(folder, path, 1.0, Labelling(split=(70, 10, 20), seed=2)).train.files != first.train.files
    plain = table(tmp_path, "".join(f"{n}.png {n % 2}\n" for n in range(40)), "plain.txt")
    written = find_labelled(folder, plain, 1.0, Labelling(split=(70, 10, 20))).written
    assert written["split_valid.txt"].count("\n") == 4


def test_parts_from_three_tables_with_columns_in_another_order(tmp_path: Path) -> None:
    train = table(tmp_path, "image,a,b\n0.png,1,0\n1.png,0,1\n", "train.csv")
    valid = table(tmp_path, "b,image,a,c\n1,2.png,0,1\n", "valid.csv")
    test = table(tmp_path, "3.png 1 1\n", "test.txt")
    found = find_labelled(ten(tmp_path), train, 1.0, Labelling(valid, test))
    assert (found.valid.labels.tolist(), found.test.labels.tolist()) == ([[0, 1]], [[1, 1]])


HEAD = "image,patient,split,a,kind,age\n"
GOOD = "0.png,p0,train,1,x,50\n1.png,p1,train,0,y,60\n2.png,p2,val,1,x,55\n3.png,p3,test,0,y,58\n"


@pytest.mark.parametrize(
    ("text", "how", "message"),
    [
        (HEAD + GOOD, {"label_column": "b"}, "--label_column b: the table .* has no such column; it has image"),
        (HEAD + GOOD, {"image_column": "b"}, "--image_column b: the table .* has no such column"),
        (HEAD + GOOD, {"patient_column": "b"}, "--patient_column b: the table .* has no such column"),
        (HEAD + GOOD, {"target": "classes"}, "--target classes: name the column with --label_column; .* has a"),
        (HEAD + GOOD, {"label_column": "a,kind", "target": "classes"}, "learns one column; name one"),
        (HEAD + GOOD, {"label_column": "a,kind"}, "line 2: the column kind has 'x', which must be 0, 1, or"),
        (HEAD + GOOD, {"label_column": "a,a"}, "the header or --label_column has a twice"),
        (HEAD + GOOD, {"label_column": "kind", "target": "regression"}, "line 2: the column kind has 'x', no number"),
        (HEAD + GOOD.replace("0,y,58", "0,z,58"), {"label_column": "kind"}, r"line 5: .* 'z', no class of the images"),
        (HEAD + GOOD.replace(",y,", ",x,"), {"label_column": "kind"}, r"has 1 class \(x\); a classification needs two"),
        (HEAD + GOOD.replace("50", "50.5"), {"label_column": "age"}, "50.5, which is not a class; .* --target regr"),
        (HEAD + GOOD.replace("p3", "p0"), {}, r"patient p0 is in both the train .* and the test .*0.png, 3.png"),
        (HEAD + GOOD.replace("val", "train"), {}, "the split column has no valid rows; .*--valid_list"),
        (HEAD + GOOD.replace("val", "holdout"), {}, "line 4: the column split has 'holdout', which is none of train"),
        (HEAD + GOOD.replace("1.png", ""), {}, "line 3: the column image of the images' names is empty"),
        (HEAD + GOOD.replace("train,1", "train,").replace("train,0", "train,-1"), {"label_column": "a", "target":
            "multilabel"}, "the train rows of .*: no image has a known label"),
        (HEAD + GOOD, {"split": (70, 10, 20), "test_list": "t.csv"}, "--split with --test_list: .* leave one out"),
        (HEAD + GOOD, {"test_list": "t.csv"}, "--test_list t.csv: .* has test rows, too"),
        ("image,a\n0.png,1\n1.png,0\n", {"split": (70, 10, 20)}, "2 patients; 3 parts need at least one patient each"),
        ("image,a\n0.png,1\n1.png,0\n", {}, "define validation .*--valid_list and --test_list, or a column split"),
        ("image,sex\n0.png,m\n1.png,f\n2.png,f\n", {"split": (70, 10, 20)}, "no column of 0 and 1 .*, of sex"),
        ("image,x\n0.png,\n1.png,\n2.png,\n", {"split": (70, 10, 20)}, "no column of 0 and 1 .* of x"),
        ("0.png 1\n1.png 0\n2.png 1\n", {"label_column": "a"}, "--label_column a: .* is no table; write a CSV"),
        ("0.png 1\n1.png 0\n2.png 1\n", {"target": "classes"}, "--target classes: .* is no table; write a CSV"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(text: str, how: dict, message: str, tmp_path: Path) -> None:
    folder = ten(tmp_path)
    (folder / "images" / ".png").unlink(missing_ok=True)
    with pytest.raises(UserError, match=message) as error:
        find_labelled(folder, table(tmp_path, text, "table.csv" if "," in text else "list.txt"), 1.0, Labelling(**how))
    assert "\n" not in str(error.value)


def test_yes_and_no_as_programs_write_them_and_what_is_almost_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Booleans and missing values of pandas and R; a column with one odd value is not left out in silence."""
    rows = [
        f"{n}.png,{n % 2},{n % 2 == 0},{'NA' if n == 3 else n % 2},{'2' if n == 4 else n % 2},{n}" for n in range(6)
    ]
    text = "image,a,boolean,of_r,almost,visits\n" + "".join(f"{row}\n" for row in rows)
    found = find_labelled(ten(tmp_path), table(tmp_path, text), 1.0, Labelling(split=(40, 30, 30)))
    assert found.classes == ("a", "boolean", "of_r")
    labels = np.concatenate([part.labels for part in (found.train, found.valid, found.test)])
    np.testing.assert_array_equal(labels[:, 1], 1 - labels[:, 0])
    assert np.isnan(labels[:, 2]).sum() == 1
    words = "line 6 of the column almost has '2', not 0 or 1: it is not learned; mend it, or name"
    assert words in (said := capsys.readouterr().err)
    assert "visits" not in said
    alone = table(tmp_path, "image,x\n0.png,1\n1.png,0\n2.png,O\n")
    with pytest.raises(UserError, match=r"no column of 0 and 1 .*of x \(line 4 of the column x has 'O', not 0 or 1\)"):
        find_labelled(ten(tmp_path), alone, 1.0, Labelling(split=(40, 30, 30)))


def test_a_class_that_is_missing_is_not_known(tmp_path: Path) -> None:
    values = ("m", "f", "nan", "m", "NA", "f", "m", "f")
    text = "image,sex\n" + "".join(f"{number}.png,{value}\n" for number, value in enumerate(values))
    found = find_labelled(ten(tmp_path), table(tmp_path, text), 1.0, Labelling(label_column="sex", split=(50, 25, 25)))
    assert found.classes == ("f", "m")
    assert sum(len(part.files) for part in (found.train, found.valid, found.test)) == 6


def test_a_class_or_column_of_another_list_is_missing(tmp_path: Path) -> None:
    train = table(tmp_path, "image,a,b\n0.png,1,0\n1.png,0,1\n", "train.csv")
    test = table(tmp_path, "image,a\n3.png,1\n", "test.csv")
    with pytest.raises(UserError, match=r"test.csv lacks the column b of the training list; its columns: image, a"):
        find_labelled(ten(tmp_path), train, 1.0, Labelling(test, test))
    other = table(tmp_path, "4.png 1 1 1\n", "other.txt")
    with pytest.raises(UserError, match=r"train.csv has 2 labels a line and .*other.txt 3"):
        find_labelled(ten(tmp_path), train, 1.0, Labelling(other, test))


def test_patients_are_the_same_however_their_numbers_are_written(tmp_path: Path) -> None:
    folder = data(tmp_path, "00000013_000.png", "a.png", "b.png")
    train = table(tmp_path, "image,Patient ID,ill\na.png,13,1\n", "train.csv")
    (folder / "chest_valid.txt").write_text("00000013_000.png 0\n")
    (folder / "chest_test.txt").write_text("b.png 0\n")
    with pytest.raises(
        UserError, match=r"patient 13 is in both .*train.csv and .*chest_valid.txt \(a.png, 00000013_000"
    ):
        find_labelled(folder, train, 1.0)
