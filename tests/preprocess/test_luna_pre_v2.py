"""``luna_pre.py --recipe pcrlv2`` as users run it: a process, files in, files out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.preprocess.small_scans import chest, write
from tests.preprocess.test_luna_pre import SMALL, contents, luna_pre

V2 = ("--recipe", "pcrlv2", *SMALL)


@pytest.fixture(scope="module")
def luna(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scans, of subset0 and of subset7."""
    data = tmp_path_factory.mktemp("LUNA16")
    for seed, place in enumerate(("subset0/1.2.0", "subset7/1.2.1")):
        write(data / f"{place}.mhd", chest(seed))
    return data


@pytest.fixture(scope="module")
def made(luna: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What it makes of them with one worker."""
    save = tmp_path_factory.mktemp("made")
    printed = luna_pre(luna, save, *V2, "--workers", "1")
    assert "2 scans: 8 pairs of 32 x 32 x 16 voxels, with local crops, in" in printed
    return save


def test_the_published_command_gives_the_published_files(luna: Path, tmp_path: Path) -> None:
    sizes = ("--input_rows", "64", "--input_cols", "64", "--input_deps", "32", "--scale", "2")
    luna_pre(luna, tmp_path, "--recipe", "pcrlv2", *sizes, "--fold", "0")
    files = {file.name: np.load(file) for file in (tmp_path / "subset0").glob("*.npy")}
    assert {name: array.shape for name, array in files.items()} == {
        **{f"1.2.0_global_{k}.npy": (2, 64, 64, 32) for k in range(2)},
        **{f"1.2.0_local_{k}.npy": (6, 16, 16, 16) for k in range(2)},
    }
    for array in files.values():
        assert array.dtype == np.float32
        assert 0 <= array.min() <= array.max() <= 1


def test_files_do_not_depend_on_the_workers_and_are_there_the_next_time(luna: Path, made: Path, tmp_path: Path) -> None:
    luna_pre(luna, tmp_path, *V2, "--workers", "3")
    assert contents(tmp_path) == contents(made)
    assert {"subset0/1.2.0_global_3.npy", "subset0/1.2.0_local_3.npy", "subset7/1.2.1.json"} <= contents(made).keys()
    record = json.loads((made / "subset0" / "1.2.0.json").read_text())
    assert (record["recipe"]["recipe"], record["pairs"]) == ("pcrlv2", 4)
    assert np.array(record["boxes"][0]["local_sizes"]).shape == (6, 3)

    (tmp_path / "subset0" / "1.2.0_local_1.npy").unlink()
    printed = luna_pre(luna, tmp_path, *V2)
    assert "4 of them there already" in printed, "a scan that lost a local file is made anew, the other is left"
    assert contents(tmp_path) == contents(made)
    assert "all of them there already" in luna_pre(luna, tmp_path, *V2)


def test_other_options_need_replace_and_leave_nothing_old(luna: Path, tmp_path: Path) -> None:
    luna_pre(luna, tmp_path, *V2)
    assert "8 pairs made with other options (--scale 4, not 2)" in luna_pre(
        luna, tmp_path, *V2, "--scale", "2", status=2
    )
    luna_pre(luna, tmp_path, *V2, "--scale", "2", "--replace")
    assert len(list((tmp_path / "subset0").glob("*.npy"))) == 4


def test_a_folder_holds_the_crops_of_one_method(luna: Path, made: Path, tmp_path: Path) -> None:
    before = contents(made)
    printed = luna_pre(luna, made, *SMALL, "--replace", status=2)
    assert f"--save {made} holds pairs of --recipe pcrlv2 (subset0/1.2.0.json); give another --save" in printed
    luna_pre(luna, tmp_path, *SMALL)
    assert "holds pairs of --recipe pcrl (" in luna_pre(luna, tmp_path, *V2, status=2)
    record = tmp_path / "subset0" / "1.2.0.json"
    old = json.loads(record.read_text())
    del old["recipe"]["recipe"]  # as earlier versions wrote it
    record.write_text(json.dumps(old))
    assert "holds pairs of --recipe pcrl (" in luna_pre(luna, tmp_path, *V2, status=2)
    assert "all of them there already" in luna_pre(luna, tmp_path, *SMALL)
    assert contents(made) == before


def test_the_preview_shows_local_crops(luna: Path, made: Path) -> None:
    luna_pre(luna, made, *V2, "--preview", "2")
    sheet = np.asarray(Image.open(made / "preview.png").convert("L"))
    (made / "preview.png").unlink()
    assert sheet[:, -sheet.shape[1] // 4 :].std() > 20, "the last columns are local crops"
