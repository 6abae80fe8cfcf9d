"""The lists of ChestX-ray14: the three that are committed, and the script that makes them."""

from __future__ import annotations

import csv
import gzip
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from datasets.xray.lists import CHEST14_LABELS, read_list
from tests.inprocess import run_captured

ROOT = Path(__file__).resolve().parents[2]
LISTS = {name: ROOT / "train_val_txt" / f"chest_{name}.txt" for name in ("train", "valid", "test")}
# Findings in NIH's table of 2020, counted with cut, tr and uniq.
TOTALS = [11559, 2776, 13317, 19894, 5782, 6331, 1431, 5302, 4667, 2303, 2516, 1686, 3385, 227]


SCRIPT = str(ROOT / "preprocess" / "chest_lists.py")


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run_captured([SCRIPT, *map(str, arguments)], cwd)


def write_table(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    """A table as NIH writes it, of (image, findings, patient)."""
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age"])
        writer.writerows((image, findings, 0, patient, 50) for image, findings, patient in rows)
    return path


def findings(labels: list[int]) -> str:
    found = [name for name, label in zip(CHEST14_LABELS, labels, strict=True) if label]
    return "|".join(reversed(found)) or "No Finding"


@pytest.fixture
def small_table(tmp_path: Path) -> Path:
    rows = [
        (f"{p:08d}_{i:03d}.png", "Hernia|Mass" if i else "No Finding", str(p)) for p in range(1, 21) for i in range(2)
    ]
    return write_table(tmp_path / "table.csv.gz", rows)


def test_the_lists_split_all_images_by_patient() -> None:
    names: dict[str, list[str]] = {}
    totals = [0] * 14
    for kind, path in LISTS.items():
        listed = read_list(path)
        assert listed.labels is not None
        assert listed.labels.shape == (len(listed.names), 14)
        names[kind] = listed.names
        totals = [total + int(count) for total, count in zip(totals, listed.labels.sum(axis=0), strict=True)]
    everything = [name for listed in names.values() for name in listed]
    assert len(everything) == len(set(everything)) == 112_120
    assert totals == TOTALS
    patients = {kind: {name[:8] for name in listed} for kind, listed in names.items()}
    assert not patients["train"] & patients["valid"]
    assert not patients["train"] & patients["test"]
    assert not patients["valid"] & patients["test"]
    count = sum(len(some) for some in patients.values())
    assert count == 30_805
    for kind, share in (("train", 0.7), ("valid", 0.1), ("test", 0.2)):
        assert abs(len(patients[kind]) - share * count) <= 1


def test_the_lines_of_a_patient_stay_together_but_patients_are_shuffled() -> None:
    for path in LISTS.values():
        patients = [name[:8] for name in read_list(path).names]
        changes = 1 + sum(one != other for one, other in zip(patients[1:], patients, strict=False))
        assert changes == len(set(patients))
        assert patients != sorted(patients)


def test_lines_have_one_form_and_files_are_small() -> None:
    for path in LISTS.values():
        lines = path.read_text().split("\n")
        assert lines.pop() == ""
        assert all(len(line) == 44 and line[8] == "_" and line[12:17] == ".png " for line in lines)
        assert path.stat().st_size < 5_000_000


def test_the_script_makes_the_committed_lists_from_any_folder(tmp_path: Path) -> None:
    rows = []
    for path in LISTS.values():
        listed = read_list(path)
        assert listed.labels is not None
        for name, labels in zip(listed.names, listed.labels.tolist(), strict=True):
            rows.append((name, findings(labels), str(int(name[:8]))))
    table = write_table(tmp_path / "table.csv.gz", sorted(rows))
    command = [sys.executable, SCRIPT, "--table", str(table), "--save", "lists"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "chest_train.txt: 78710 images of 21564 patients" in result.stdout
    for path in LISTS.values():
        assert (tmp_path / "lists" / path.name).read_bytes() == path.read_bytes()


def test_the_seed_decides(tmp_path: Path, small_table: Path) -> None:
    contents = []
    for flags in ((1,), (1,), (2, "--replace")):
        assert run("--table", small_table, "--save", tmp_path, "--seed", *flags, cwd=tmp_path).returncode == 0
        contents.append((tmp_path / "chest_train.txt").read_text())
    assert contents[0] == contents[1] != contents[2]
    assert len(contents[0].splitlines()) == 28
    assert "_001.png 0 0 0 0 1 0 0 0 0 0 0 0 0 1\n" in contents[0]


def test_other_lists_are_refused_unless_asked_for(tmp_path: Path, small_table: Path) -> None:
    (tmp_path / "chest_valid.txt").write_text("mine.png\n")
    result = run("--table", small_table, "--save", tmp_path, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (
        2,
        f"error: --save {tmp_path} holds other lists (chest_valid.txt); give another --save, or --replace to replace "
        "them\n",
    )
    assert (tmp_path / "chest_valid.txt").read_text() == "mine.png\n"
    assert not (tmp_path / "chest_train.txt").exists()
    result = run("--table", small_table, "--save", tmp_path, "--replace", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "mine" not in (tmp_path / "chest_valid.txt").read_text()


def wheel(folder: Path, table: Path) -> None:
    """A package of the same name and layout, for pip to find."""
    name = "torchxrayvision-99.0"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as file:
        file.write(table, "torchxrayvision/data/Data_Entry_2017_v2020.csv.gz")
        file.writestr(f"{name}.dist-info/METADATA", "Metadata-Version: 2.1\nName: torchxrayvision\nVersion: 99.0\n")
        file.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{name}.dist-info/RECORD", "")


def test_without_a_table_it_comes_from_the_wheel(
    tmp_path: Path, small_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("NO_INDEX", "1"), ("CONFIG_FILE", os.devnull), ("FIND_LINKS", str(tmp_path))):
        monkeypatch.setenv(f"PIP_{name}", value)
    result = run("--save", tmp_path / "lists", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: pip could not download torchxrayvision (")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "lists").exists()
    wheel(tmp_path, small_table)
    result = run("--save", tmp_path / "lists", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len((tmp_path / "lists" / "chest_test.txt").read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 patients cannot be split into 3 lists"),
        (b"\x1f\x8b\x08 this is no gzip", "cannot be read as NIH's"),
        (b"a,b\n1,2\n", "there is no column 'Image Index'"),
        (b"Image Index,Finding Labels,Patient ID\na.png,Mass|Cough,1\n", "a.png has the unknown finding 'Cough'"),
        (b"Image Index,Finding Labels,Patient ID\na.png,Mass,1\na.png,Mass,2\n", "a.png is there twice"),
        (b"Image Index,Finding Labels,Patient ID\na.png\n", "cannot be read as NIH's"),
        (b"Image Index,Finding Labels,Patient ID\na.png,Mass,1\n", "1 patient cannot be split into 3 lists"),
    ],
)
def test_a_table_of_another_kind_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    result = run("--table", "table.csv", "--save", "lists", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not (tmp_path / "lists").exists()


def test_paths_that_do_not_work(tmp_path: Path, small_table: Path) -> None:
    result = run("--table", "absent.csv", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (2, "error: absent.csv: No such file or directory\n")
    result = run("--table", small_table, "--save", small_table / "lists", cwd=tmp_path)
    assert result.returncode == 2
    assert "table.csv.gz" in result.stderr


def test_the_script_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, preprocess.chest_lists, datasets.xray.images, datasets.xray.files; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
