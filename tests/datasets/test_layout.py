"""Whatever scans are called, training finds all that preprocessing wrote, each once and under its own name."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from datasets.ct.luna import find_luna
from datasets.ct.nodules import read_crops
from datasets.layout import CROP, PAIR, crop_name, pair_name, record_name, uid_of_line, uid_on_disk
from preprocess.jobs.nodules import write_labels
from preprocess.jobs.pairs import write_training_list
from preprocess.jobs.records import write_record
from tests.examples import examples

LONGEST_NAME = 255
TEXT = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=260)
AWKWARD = st.text(" .,;'\"\n\r\t\x0b\x1c\x85\u2028\ufeffäa_0", min_size=1, max_size=12)
BYTES = st.binary(min_size=1, max_size=40).map(lambda name: os.fsdecode(name.translate(None, b"/\0") or b"a"))
SUFFIX = st.sampled_from(["", ".mhd", "_img_3", "_img_0.npy", "_crop_1", ".json", " "])
NAMES = st.lists(st.tuples(TEXT | AWKWARD | BYTES, SUFFIX).map("".join), min_size=1, max_size=6, unique=True)


@settings(max_examples=examples(150), deadline=None)
@given(NAMES)
@example(["patient1_ct.mhd", "patient1_ct", " ct ", "Doe, J", 'a"b', "a\nb", "\ufeffa", ".a", " ", "\x85", "ä" * 200])
@example(["a" * 300, "a" * 301, "a.mhd.mhd", "a.mhd", "a"])
def test_all_that_is_written_is_found_again(names: list[str]) -> None:
    uids = [uid_on_disk(name) for name in names]
    assert len(set(uids)) == len(names), "no two scans share a uid"
    with tempfile.TemporaryDirectory() as folder:
        pairs, crops = Path(folder) / "pairs", Path(folder) / "crops"
        for number, uid in enumerate(uids):
            subset = f"subset{number % 7}"
            for save, made in ((pairs, {"pairs": 2}), (crops, {"crops": [[0, 1, 2, 3], [1, 4, 5, 6]]})):
                (save / subset).mkdir(parents=True, exist_ok=True)
                write_record(save / subset / record_name(uid), {"recipe": {}, "shortage": "", **made})
            for index in range(2):
                (pairs / subset / pair_name(uid, index)).touch()
        assert write_training_list(pairs) == len(uids)
        found = Counter(PAIR.fullmatch(file.name)["uid"] for file in find_luna(pairs, None, 1.0))  # type: ignore[index]
        assert found == dict.fromkeys(uids, 2)
        assert write_labels(crops) == 2 * len(uids)
        read = [(crop.uid, Path(crop.file).name, crop.label) for crop in read_crops(crops)]
        assert sorted(read) == sorted((uid, crop_name(uid, index), index) for uid in uids for index in range(2))


@settings(deadline=None)
@given(TEXT | AWKWARD | BYTES)
def test_names_fit_on_a_disk_and_are_taken_apart_as_they_were_made(name: str) -> None:
    uid = uid_on_disk(name)
    for kind, file in ((PAIR, pair_name(uid, 123456)), (CROP, crop_name(uid, 12345))):
        match = kind.fullmatch(file)
        assert match is not None
        assert match["uid"] == uid
        assert len(os.fsencode(f".{file}.4194304.tmp")) <= LONGEST_NAME
    assert uid_on_disk(uid) == uid


def test_common_names_stay_as_they_are() -> None:
    for name in (
        "1.3.6.1.4.1.14519.5.2.1.6279.6001.1",
        "patient1_ct.mhd",
        "Doe, J",
        " ct",
        "Müller",
        "a\tb",
        "a" * 226,
    ):
        assert uid_on_disk(name) == name


def test_a_line_means_what_stands_there_before_anything_else() -> None:
    assert uid_of_line("1.2.mhd", {"1.2"}) == "1.2", "published lists"
    assert uid_of_line(" 1.2.mhd \r", {"1.2"}) == "1.2"
    assert uid_of_line("1.2", {"1.2"}) == "1.2"
    assert uid_of_line("ct.mhd", {"ct", "ct.mhd"}) == "ct.mhd"
    assert uid_of_line(" ct.mhd", {" ct.mhd", "ct.mhd"}) == " ct.mhd"
    assert uid_of_line("gone.mhd", set()) == "gone"
