"""How pairs were cut is read from luna_pre's own records, and mixtures are warned of."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from datasets.ct.crop_records import in_words, recipes_of, records_hash, windows_of
from options import Options
from phases.pretask import tell_recipes
from tests.conftest import run_preprocess, write_pairs
from tests.preprocess.small_scans import chest, write
from training.network import differences
from utils.process_group import SINGLE

SMALL = ["--scale", "2", "--workers", "1", "--input_rows", "32", "--input_cols", "32", "--input_deps", "16"]


def cut(folder: Path, name: str, *window: str) -> None:
    write(folder / name / f"{name}.nii.gz", chest(shape=(64, 64, 48)))
    done = run_preprocess("luna_pre", "--data", folder / name, "--save", folder / "pairs", *SMALL, *window)
    assert done.returncode == 0, done.stderr


def found(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.rglob("*.npy"))]


def test_what_luna_pre_was_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = tmp_path / "pairs"
    cut(tmp_path, "a", "--hu_min", "-150", "--hu_max", "250", "--crop_rows", "64")
    size = {"crop": [32, 32, 16], "spacing_mm": 1.0}
    a = size | {"hu": [-150, 250], "box_mm": [64, 32, 16], "scans": 1}
    assert recipes_of(found(pairs)) == [a]
    assert windows_of(found(pairs)) == [{"hu": [-150, 250]}]
    options = Options(data=str(pairs))
    capsys.readouterr()
    (record,) = pairs.glob("subset*/*.json")
    records = hashlib.sha256(record.read_bytes() + b"\0").hexdigest()
    assert tell_recipes(options, found(pairs), SINGLE) == {"recipes": [a], "records_sha256": records}
    assert capsys.readouterr().err == "", "nothing to warn of"

    cut(tmp_path, "b", "--percentiles", "0.5", "99.5")
    cut(tmp_path, "c", "--percentiles", "0.5", "99.5", "--seed", "3", "--dtype", "float16")
    b = size | {"percentiles": [0.5, 99.5], "box_mm": [32, 32, 16], "scans": 2}
    assert recipes_of(found(pairs)) == [b, a], "seed and type of the numbers do not make another recipe"
    capsys.readouterr()
    tell_recipes(options, found(pairs), SINGLE)
    warning = capsys.readouterr().err
    assert warning.startswith("warning: ")
    assert f"mixes pairs of different recipes: {in_words(b)} (2 scans); {in_words(a)} (1 scan)" in warning


def test_pairs_without_records(tmp_path: Path) -> None:
    write_pairs(tmp_path, scans=3, pairs=2)
    assert recipes_of(found(tmp_path)) == [{"scans": 3}]
    assert windows_of(found(tmp_path)) == []
    assert records_hash(found(tmp_path)) == ""
    (tmp_path / "subset0" / "1.2.0.json").write_text('{"recipe": 3}')
    (tmp_path / "subset1" / "1.2.1.json").write_text('{"half')
    assert recipes_of(found(tmp_path)) == [{"scans": 3}]


def test_other_data_has_no_recipes() -> None:
    assert tell_recipes(Options(data="x", n="chest"), ["a.png"], SINGLE) == {}


HU = {"hu": [-150, 250]}


@pytest.mark.parametrize(
    ("made", "here", "told"),
    [
        ([HU | {"crop": [32, 32, 16]}], [{"hu": (-150.0, 250.0)}], []),
        ([HU], [], []),  # nobody knows
        ([{"scans": 3}], [HU], []),
        ([HU], [{"hu": [-1000, 1000]}], ["window -150 to 250 HU, not -1000 to 1000 HU; take the same one for both"]),
        ([HU], [{"percentiles": [0.5, 99.5]}], ["window -150 to 250 HU, not percentiles 0.5 to 99.5 of each scan; "]),
        ([HU, {"hu": [0, 1]}], [HU], ["window -150 to 250 HU and 0 to 1 HU, not -150 to 250 HU; "]),
    ],
)
def test_weights_that_saw_another_window(
    made: list[dict[str, object]], here: list[dict[str, object]], told: list[str]
) -> None:
    found = differences({"opt": {"size": 0}, "run": {"recipes": made}}, Options(data="x"), here)
    assert len(found) == len(told)
    assert all(one.startswith(start) for one, start in zip(found, told, strict=True))


def test_weights_that_saw_another_size_in_2d() -> None:
    chest = Options(data="x", n="chest", size=64)
    assert differences({"opt": {"size": 96}}, chest, ()) == ["--size 96, not 64; give --size 96"]
    for made in ({"opt": {"size": 64}}, {"opt": {}}, {}):
        assert differences(made, chest, ()) == []


def test_a_crop_around_a_nodule_has_the_window_of_its_record(tmp_path: Path) -> None:
    (tmp_path / "1.2.json").write_text('{"recipe": {"hu_min": -1000, "hu_max": 400, "shape": [8, 8, 8]}}')
    crops = [str(tmp_path / name) for name in ("1.2_crop_0.npy", "1.2_crop_1.npy", "1.3_crop_0.npy")]
    assert windows_of(crops) == [{"hu": [-1000, 400]}]
