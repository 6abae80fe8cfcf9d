"""Pairs belong to the content of their scan: other names, other folders and other files of the same name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.ct.luna import find_luna
from datasets.layout import STAMPS
from preprocess.jobs import settle as settling
from preprocess.jobs.pairs import PairJob, PairOptions, PairOutcome, kept_flat, make_pairs, write_training_list
from preprocess.jobs.settle import Sources, settle, warn_of_doubles
from preprocess.volumes.content import content_of, files_of
from preprocess.volumes.files import Scan, find_scans
from tests.conftest import run_preprocess
from tests.preprocess.small_scans import chest, write, write_dicom
from utils.errors import UserError

OPTIONS = PairOptions((32, 32, 16), (32, 32, 16), 2, 0, -1000, 1000, None, "float32", min_std=0)
SMALL = ["--scale", "2", "--workers", "1", "--input_rows", "32", "--input_cols", "32", "--input_deps", "16"]
SHAPE = (52, 52, 20)


def cut(data: Path, save: Path, options: PairOptions = OPTIONS, replaced: bool = False) -> dict[str, PairOutcome]:
    """What luna_pre does, in this process."""
    sources = Sources(save)
    jobs = settle([PairJob(scan, options, save) for scan in find_scans(data)], "pair", sources, replaced)
    outcomes = {}
    for job in jobs:
        outcomes[job.scan.uid] = make_pairs(job)
        sources.note(job)
    sources.save()
    write_training_list(save)
    return outcomes


def done(outcomes: dict[str, PairOutcome]) -> dict[str, bool]:
    """Which scans' pairs were there before."""
    assert not any(outcome.problem for outcome in outcomes.values())
    return {uid: outcome.done_before for uid, outcome in outcomes.items()}


def pairs(save: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in save.rglob("*.npy")}


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A folder with one scan, ``a/ct.mhd`` and ``ct.raw``, whose pairs are in ``save``."""
    write(tmp_path / "a" / "ct.mhd", chest(1, SHAPE))
    assert done(cut(tmp_path / "a", tmp_path / "save")) == {"ct": False}
    return tmp_path


def test_the_command_refuses_another_scan_of_the_name(first: Path) -> None:
    """The header has as many bytes, and the first pairs must be neither skipped over nor replaced."""
    write(first / "b" / "ct.mhd", chest(2, SHAPE))
    before = pairs(first / "save")
    argv = ["--data", str(first / "b"), "--save", str(first / "save"), *SMALL, "--min_std", "0"]
    refused = run_preprocess("luna_pre", *argv)
    assert refused.returncode == 2
    line, a, b = refused.stderr, first / "a" / "ct.mhd", first / "b" / "ct.mhd"
    assert f"holds 2 pairs called subset0/ct, cut from {a}, not from {b}, which is another scan" in line
    assert "--replace" in line
    assert pairs(first / "save") == before
    assert run_preprocess("luna_pre", *argv, "--replace").returncode == 0
    after = pairs(first / "save")
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in after)


def test_changed_data_beside_an_unchanged_header_are_noticed(first: Path) -> None:
    raw = first / "a" / "ct.raw"
    content = bytearray(raw.read_bytes())
    content[-1] ^= 1
    raw.write_bytes(content)
    with pytest.raises(UserError, match=r"cut from an earlier content of .*ct\.mhd, which has changed since"):
        cut(first / "a", first / "save")
    times = raw.stat()
    os.utime(raw, ns=(times.st_atime_ns, times.st_mtime_ns - 10**12))  # an old date helps nothing
    with pytest.raises(UserError, match="earlier content of"):
        cut(first / "a", first / "save")
    assert done(cut(first / "a", first / "save", replaced=True)) == {"ct": False}
    assert done(cut(first / "a", first / "save")) == {"ct": True}


def test_two_folders_in_one_save_by_their_common_folder(first: Path) -> None:
    """What the refusal advises: the names change, the first scan's pairs stay, and no scan is there twice."""
    write(first / "b" / "ct.mhd", chest(2, SHAPE))
    shutil.rmtree(first / "both", ignore_errors=True)
    (first / "both").mkdir()
    for name in ("a", "b"):
        (first / name).rename(first / "both" / name)
    before = pairs(first / "save")
    assert done(cut(first / "both", first / "save")) == {"ct": True, "b_ct.mhd": False}
    assert done(cut(first / "both", first / "save")) == {"ct": True, "b_ct.mhd": True}
    after = pairs(first / "save")
    assert before.items() <= after.items()
    assert len(after) == len(find_luna(first / "save", None, 1.0)) == 4
    (first / "both" / "a" / "ct.mhd").unlink()
    (first / "both" / "a" / "ct.raw").unlink()  # now the other one is called ct
    assert done(cut(first / "both", first / "save")) == {"b_ct.mhd": True}
    assert pairs(first / "save") == after


def test_renamed_and_moved_scans_keep_their_pairs(tmp_path: Path) -> None:
    for name, seed in (("x", 1), ("y", 2)):
        write(tmp_path / "data" / f"{name}.nii.gz", chest(seed, SHAPE))
    save = tmp_path / "save"
    cut(tmp_path / "data", save)
    before = pairs(save)
    (tmp_path / "data" / "x.nii.gz").rename(tmp_path / "z.nii.gz")
    (tmp_path / "data" / "y.nii.gz").rename(tmp_path / "data" / "x.nii.gz")
    (tmp_path / "z.nii.gz").rename(tmp_path / "data" / "y.nii.gz")  # they have exchanged their names
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    assert done(cut(tmp_path / "elsewhere", save)) == {"x": True, "y": True}
    assert pairs(save) == before


def test_what_is_unchanged_is_not_read_again(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(settling, "content_of", lambda files, like: read.append(files) or content_of(files, like))  # type: ignore[func-returns-value]
    assert done(cut(first / "a", first / "save")) == {"ct": True}
    assert not read
    shutil.copytree(first / "a", first / "copy")
    assert done(cut(first / "copy", first / "save")) == {"ct": True}
    assert len(read) == 1
    (first / "save" / STAMPS).write_text("[damaged")
    assert done(cut(first / "copy", first / "save")) == {"ct": True}
    assert len(read) == 2
    assert done(cut(first / "copy", first / "save")) == {"ct": True}
    assert len(read) == 2


def as_earlier(first: Path) -> None:
    """Give the record the hash of an earlier version: BLAKE2, of each file and then of these."""
    path, ct = first / "save" / "subset0" / "ct.json", first / "a" / "ct.mhd"
    record = json.loads(path.read_text())
    of_files = sorted(
        hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest() for file in (ct, ct.with_suffix(".raw"))
    )
    record["content"] = hashlib.blake2b("\n".join(of_files).encode(), digest_size=16).hexdigest()
    path.write_text(json.dumps(record))
    (first / "save" / STAMPS).unlink()


def test_hashes_of_an_earlier_version_are_compared_with_their_like(first: Path) -> None:
    as_earlier(first)
    before = pairs(first / "save")
    assert done(cut(first / "a", first / "save")) == {"ct": True}
    (first / "a").rename(first / "elsewhere")
    assert done(cut(first / "elsewhere", first / "save")) == {"ct": True}
    assert pairs(first / "save") == before


@pytest.mark.parametrize("content", [5, None, ["x"], ""])
def test_a_hash_that_is_none_is_of_another_scan(first: Path, content: object) -> None:
    path = first / "save" / "subset0" / "ct.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"content": content}))
    (first / "save" / STAMPS).unlink()
    with pytest.raises(UserError, match="holds 2 pairs called subset0/ct"):
        cut(first / "a", first / "save")


def test_records_of_earlier_versions_are_accepted(first: Path) -> None:
    path = first / "save" / "subset0" / "ct.json"
    record = json.loads(path.read_text())
    assert record.pop("content") == content_of(files_of(Scan(0, "ct", (first / "a" / "ct.mhd",))))
    del record["size"], record["redrawn"], record["recipe"]["min_std"]
    path.write_text(json.dumps(record))
    before = pairs(first / "save")
    assert done(cut(first / "a", first / "save")) == {"ct": True}
    assert pairs(first / "save") == before
    with (first / "a" / "ct.mhd").open("a") as header:  # what an earlier version went by
        header.write("\n")
    with pytest.raises(UserError, match="earlier content of"):
        cut(first / "a", first / "save")


def test_earlier_pairs_that_show_nothing_are_made_anew_if_asked(first: Path) -> None:
    path = first / "save" / "subset0" / "ct.json"
    record = json.loads(path.read_text())
    del record["recipe"]["min_std"]
    path.write_text(json.dumps(record | {"flat": 1}))
    scan = find_scans(first / "a")[0]
    strict = replace(OPTIONS, min_std=0.01)
    assert kept_flat(PairJob(scan, strict, first / "save"))
    assert not kept_flat(PairJob(scan, OPTIONS, first / "save")), "as published"
    assert done(cut(first / "a", first / "save", strict)) == {"ct": True}


def test_a_name_that_another_subset_has_gets_another_uid(first: Path) -> None:
    write(first / "luna" / "subset3" / "ct.mhd", chest(2, SHAPE))
    outcomes = cut(first / "luna", first / "save")
    (uid,) = outcomes
    assert uid.startswith("ct_")
    assert done(outcomes) == {uid: False}
    assert done(cut(first / "luna", first / "save")) == {uid: True}
    assert len(find_luna(first / "save", None, 1.0)) == 4
    assert len((first / "save" / "luna_train.txt").read_text().split()) == 2


def test_a_scan_that_has_moved_to_another_subset_is_refused(first: Path) -> None:
    (first / "luna").mkdir()
    (first / "a").rename(first / "luna" / "subset8")
    with pytest.raises(UserError, match=r"is in subset0 of --save .* already, and would be in subset8 as well; remove"):
        cut(first / "luna", first / "save")
    for path in (first / "save" / "subset0").iterdir():
        path.unlink()
    assert done(cut(first / "luna", first / "save")) == {"ct": False}


@pytest.mark.parametrize("earlier", [False, True])
def test_the_same_scan_under_two_names_is_said(earlier: bool, first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if earlier:
        as_earlier(first)
    warn_of_doubles(first / "save", "pair")
    assert capsys.readouterr().err == ""
    shutil.copytree(first / "a", first / "data" / "one")
    shutil.copytree(first / "a", first / "data" / "two")
    assert done(cut(first / "data", first / "save")) == {"ct": True, "two_ct.mhd": False}
    warn_of_doubles(first / "save", "pair")
    assert "counts several times: subset0/ct = subset0/two_ct.mhd; remove" in capsys.readouterr().err


def test_a_path_that_is_no_text_costs_its_scan_alone(tmp_path: Path) -> None:
    write(tmp_path / "data" / "good.nii.gz", chest(1, SHAPE))
    bad = os.fsencode(tmp_path / "data") + b"/\xff.nii.gz"
    shutil.copy(tmp_path / "data" / "good.nii.gz", bad)
    problems = [outcome.problem for outcome in cut(tmp_path / "data", tmp_path / "save").values()]
    assert sorted(problems) == ["", "its path is not UTF-8 text: rename it"]


def test_a_folder_of_the_other_command_is_refused(first: Path) -> None:
    sources = Sources(first / "save")
    jobs = [PairJob(scan, OPTIONS, first / "save") for scan in find_scans(first / "a")]
    with pytest.raises(UserError, match=r"holds pairs of crops \(preprocess/luna_pre.py\); give another --save"):
        settle(jobs, "crop", sources, replaced=True)


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ("ElementDataFile = a.raw\n", ["a.raw"]),
        ("ElementDataFile=sub folder/a 1.raw\r\n", ["sub folder/a 1.raw"]),
        ("ElementDataFile = LOCAL\nElementDataFile = a.raw\n", []),
        ("ElementDataFile = LIST 2\nb.raw\na.raw\n", ["b.raw", "a.raw"]),
        ("ElementDataFile = s%02d.raw 1 2 1\n", ["s01.raw", "s02.raw"]),
        ("ElementDataFile = 50%dose.raw\n", ["50%dose.raw"]),
        ("no header at all", []),
    ],
)
def test_data_files_that_a_header_names_belong_to_the_scan(header: str, data: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.mhd").write_text("NDims = 3\n" + header)
    for name in data:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    files = files_of(Scan(0, "a", (tmp_path / "a.mhd",)))
    assert [str(path.relative_to(tmp_path)) for path in files.paths] == ["a.mhd", *data]
    assert files.whole
    for name in data:
        former = content_of(files)
        (tmp_path / name).write_bytes(b"changed")
        assert content_of(files) != former
        assert files_of(Scan(0, "a", (tmp_path / "a.mhd",))).stamp != files.stamp


def test_a_missing_data_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.mhd").write_text("ElementDataFile = LIST\na.raw\nb.raw\n")
    (tmp_path / "a.raw").touch()
    assert not files_of(Scan(0, "a", (tmp_path / "a.mhd",))).whole
    (tmp_path / "b.raw").touch()
    assert files_of(Scan(0, "a", (tmp_path / "a.mhd",))).whole


def test_data_beside_a_nrrd_header_and_slices(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0004\ndimension: 3\ndata file: a.bin\n\ndata file: none\n")
    (tmp_path / "a.bin").write_bytes(b"voxels")
    assert [path.name for path in files_of(Scan(0, "a", (tmp_path / "a.nrrd",))).paths] == ["a.nrrd", "a.bin"]
    slices = write_dicom(tmp_path / "series", np.zeros((3, 8, 8), np.int16), "1.2")
    former = content_of(files_of(Scan(0, "1.2", tuple(slices))))
    assert content_of(files_of(Scan(0, "1.2", tuple(reversed(slices))))) == former
    slices[1].write_bytes(slices[1].read_bytes()[:-1] + b"x")
    assert content_of(files_of(Scan(0, "1.2", tuple(slices)))) != former
