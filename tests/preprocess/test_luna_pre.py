"""luna_pre as users run it: a process, files in, files out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from datasets.layout import STAMPS
from preprocess.jobs.pairs import is_flat
from preprocess.luna_pre import pair_options, parse
from tests.conftest import run_preprocess
from tests.preprocess.small_scans import chest, cut_short, write, write_dicom
from utils.errors import UserError

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
SMALL = ("--input_rows", "32", "--input_cols", "32", "--input_deps", "16", "--scale", "4")


def luna_pre(data: Path, save: Path, *flags: str, status: int = 0, cwd: Path | None = None) -> str:
    """Run the command; returns what it printed, standard error last."""
    run = run_preprocess("luna_pre", "--data", data, "--save", save, *flags, cwd=cwd)
    assert run.returncode == status, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    assert "\r" not in run.stdout + run.stderr
    assert "\x1b" not in run.stdout + run.stderr
    return run.stdout + run.stderr


def contents(folder: Path) -> dict[str, str]:
    """Name and hash of every file below ``folder``, without what tells where and when the scans were written."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != STAMPS)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def pair_names(uid: str, count: int = 4) -> set[str]:
    return {f"{uid}_img_{index}.npy" for index in range(count)}


@pytest.fixture(scope="module")
def luna(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scans in LUNA16's layout: two of subset0, one each of subset6 and subset7."""
    data = tmp_path_factory.mktemp("LUNA16")
    for seed, place in enumerate(("subset0/1.2.0", "subset0/1.2.1", "subset6/1.2.2", "subset7/1.2.3")):
        write(data / f"{place}.mhd", chest(seed))
    return data


@pytest.fixture(scope="module")
def made(luna: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What luna_pre makes of it with one worker."""
    save = tmp_path_factory.mktemp("made")
    luna_pre(luna, save, *SMALL, "--workers", "1")
    return save


def test_the_published_command_from_another_folder(luna: Path, tmp_path: Path) -> None:
    printed = luna_pre(
        *(luna, Path("pairs"), "--input_rows", "64", "--input_cols", "64", "--input_deps", "32", "--fold", "0"),
        cwd=tmp_path,
    )
    assert "2 scans: 32 pairs of 64 x 64 x 32 voxels in pairs (" in printed
    files = sorted((tmp_path / "pairs" / "subset0").glob("*.npy"))
    assert {file.name for file in files} == pair_names("1.2.0", 16) | pair_names("1.2.1", 16)
    for file in files:
        pair = np.load(file, allow_pickle=False)
        assert (pair.shape, pair.dtype) == ((2, 64, 64, 32), np.float32)
        assert 0 <= pair.min() <= pair.max() <= 1
        assert pair.std() > 0.05


def test_the_list_names_the_scans_of_subsets_0_to_6(made: Path) -> None:
    assert sorted((made / "luna_train.txt").read_text().splitlines()) == ["1.2.0", "1.2.1", "1.2.2"]
    assert {path.name for path in (made / "subset7").glob("*.npy")} == pair_names("1.2.3")


def test_any_number_of_workers_makes_the_same_files(luna: Path, made: Path, tmp_path: Path) -> None:
    luna_pre(luna, tmp_path, *SMALL, "--workers", "4")
    assert contents(tmp_path) == contents(made)


def test_the_seed_and_the_uid_decide(luna: Path, made: Path, tmp_path: Path) -> None:
    luna_pre(luna, tmp_path / "other_seed", *SMALL, "--fold", "6", "--seed", "1")
    write(tmp_path / "data" / "subset6" / "9.9.9.mhd", chest(2))  # the scan of 1.2.2 under another uid
    luna_pre(tmp_path / "data", tmp_path / "other_uid", *SMALL)
    files = [made / "subset6/1.2.2_img_0.npy", tmp_path / "other_seed/subset6/1.2.2_img_0.npy"]
    pairs = [np.load(file) for file in (*files, tmp_path / "other_uid/subset6/9.9.9_img_0.npy")]
    assert not np.array_equal(pairs[0], pairs[1])
    assert not np.array_equal(pairs[0], pairs[2])


def test_folds_made_one_by_one_add_up(luna: Path, made: Path, tmp_path: Path) -> None:
    for fold in ("7", "0", "6"):
        luna_pre(luna, tmp_path, *SMALL, "--fold", fold)
    assert contents(tmp_path) == contents(made)


def test_a_rerun_makes_what_is_missing_and_nothing_else(luna: Path, tmp_path: Path) -> None:
    luna_pre(luna, tmp_path, *SMALL)
    before = contents(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    folder = tmp_path / "subset0"
    assert "4 scans: 16 pairs of 32 x 32 x 16 voxels in " in (printed := luna_pre(luna, tmp_path, *SMALL))
    assert ", all of them there already (" in printed
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == times

    (folder / "1.2.0_img_2.npy").unlink()
    cut_short(folder / "1.2.1_img_1.npy", 0.9)
    (tmp_path / "subset7" / "1.2.3.json").unlink()  # as after a kill amid its pairs
    (tmp_path / "subset7" / "1.2.3_img_3.npy").unlink()
    (tmp_path / "subset7" / ".1.2.3_img_3.npy.123.tmp").write_bytes(b"half a file")
    printed = luna_pre(luna, tmp_path, *SMALL)
    assert "4 scans: 16 pairs of" in printed
    assert ", 4 of them there already (" in printed
    assert contents(tmp_path) == before


def test_other_options_make_all_anew_if_asked_and_leave_nothing_old(luna: Path, made: Path, tmp_path: Path) -> None:
    luna_pre(luna, tmp_path, *SMALL, "--fold", "6")
    before = contents(tmp_path)
    for flags, words in {
        ("--scale", "3", "--dtype", "float16"): "--scale 4, not 3; --dtype float32, not float16",
        ("--input_rows", "40"): "crops of 32 x 32 x 16, not 40 x 32 x 16; boxes of 32 x 32 x 16, not 40 x 32 x 16",
        ("--crop_rows", "64"): "boxes of 32 x 32 x 16, not 64 x 32 x 16",
        ("--hu_min", "-200", "--hu_max", "250"): "--hu_min -1000, not -200; --hu_max 1000, not 250",
        ("--percentiles", "1", "99"): "--percentiles none, not 1.0 .. 99.0",
    }.items():
        printed = luna_pre(luna, tmp_path, *SMALL, "--fold", "6", *flags, status=2)
        assert printed == (
            f"error: --save {tmp_path} holds 4 pairs made with other options ({words}); give another --save, or "
            "--replace to replace them\n"
        )
        assert contents(tmp_path) == before
    luna_pre(luna, tmp_path, *SMALL, "--fold", "6", "--scale", "3", "--dtype", "float16", "--replace")
    files = list((tmp_path / "subset6").glob("*.npy"))
    assert {file.name for file in files} == pair_names("1.2.2", 3)
    for file in files:  # half precision is the rounded single
        single = np.load(made / "subset6" / file.name)
        np.testing.assert_array_equal(np.load(file), single.astype(np.float16), strict=True)


def test_broken_scans_cost_nothing_but_themselves(luna: Path, made: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for path in (luna / "subset0").iterdir():
        (data / "subset0").mkdir(parents=True, exist_ok=True)
        (data / "subset0" / path.name).write_bytes(path.read_bytes())
    write(data / "subset0" / "no_raw.mhd", chest()).with_suffix(".raw").unlink()
    cut_short(write(data / "subset0" / "short.mhd", chest()).with_suffix(".raw"), 0.5)
    holes = chest().astype(np.float32)
    holes[0, 0, 0] = np.nan
    write(data / "subset0" / "holes.mha", holes)
    printed = luna_pre(data, tmp_path / "save", *SMALL, status=1)
    assert "broken: subset0/no_raw: the data file that no_raw.mhd names is missing\n" in printed
    assert "broken: subset0/short: the data of short.mhd are cut short" in printed
    assert "broken: subset0/holes: it has voxels that are not finite numbers" in printed
    lines = [line for line in printed.splitlines() if "nearly constant" not in line]  # small and all in a lung
    assert len(lines) == 5
    good = {name: value for name, value in contents(made).items() if name.startswith("subset0")}
    assert {k: v for k, v in contents(tmp_path / "save").items() if k != "luna_train.txt"} == good


def test_where_no_scan_can_be_read_nothing_is_written(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.mhd", chest()).with_suffix(".raw").unlink()
    printed = luna_pre(tmp_path / "data", tmp_path / "save", status=2)
    assert printed == "error: subset0/a: the data file that a.mhd names is missing\n"
    cut_short(write(tmp_path / "data" / "b.nii", chest()), 0.5)
    printed = luna_pre(tmp_path / "data", tmp_path / "save", status=2)
    assert "error: --data" in printed.splitlines()[-1]
    assert "none of its 2 scans can be read" in printed.splitlines()[-1]
    assert "broken: subset0/b: b.nii is cut short" in printed
    assert not (tmp_path / "save").exists()


def test_a_thin_wide_scan_gives_pairs_that_lie_inside(tmp_path: Path) -> None:
    write(tmp_path / "data" / "thin.nrrd", np.full((40, 128, 128), -800, np.int16), (4.0, 4.0, 1.0))
    luna_pre(tmp_path / "data", tmp_path / "save", "--min_std", "0")
    files = list((tmp_path / "save" / "subset0").glob("*.npy"))
    assert len(files) == 16
    for file in files:  # outside the scan there would be -1000 HU, which is 0
        np.testing.assert_allclose(np.load(file), 0.1, atol=1e-6)


def test_pairs_that_show_nothing_are_counted_and_kept(tmp_path: Path) -> None:
    write(tmp_path / "scans" / "air.nii.gz", np.full((40, 52, 52), -1000, np.int16))
    write(tmp_path / "scans" / "chest.nii.gz", chest())
    rule = "the tissue limit (for lung CT) may have left only crops of air; --hu_min -150 or more switches it off"
    for flags, advice in (
        ([], f"look with --preview; {rule}"),
        (["--preview", "1"], rule),  # the second time they were there before
        (["--hu_min", "-150", "--replace"], "look with --preview; choose another window\n"),
    ):
        text = luna_pre(tmp_path / "scans", tmp_path / "pairs", *SMALL, "--scale", "2", "--min_std", "0", *flags)
        assert f"almost no contrast: subset0/air: 2 of 2 pairs are nearly constant; {advice}" in text
        assert "subset0/chest" not in text or "--replace" in flags
    assert len(list((tmp_path / "pairs").rglob("*.npy"))) == 4


def test_flat_is_a_crop_whose_deviation_is_small() -> None:
    rng = np.random.default_rng(0)
    pair = rng.normal(0.5, 0.02, (2, 32, 32, 16)).astype(np.float32)
    assert not is_flat(pair)
    pair[1] = 0.5 + (pair[1] - 0.5) / 4
    assert is_flat(pair)


def test_scans_that_give_few_pairs_or_none_are_reported(tmp_path: Path) -> None:
    tissue = np.full((40, 100, 100), 40, np.int16)
    write(tmp_path / "data" / "tissue.mha", tissue, (4.0, 4.0, 1.0))
    tissue[:, 40:56, 40:56] = -850  # a hole of 64 mm
    write(tmp_path / "data" / "hole.mha", tissue, (4.0, 4.0, 1.0))
    write(tmp_path / "data" / "tiny.mha", chest(shape=(6, 6, 6)), (2.0, 2.0, 2.0))
    printed = luna_pre(tmp_path / "data", tmp_path / "save", "--scale", "5").splitlines()
    files = list((tmp_path / "save" / "subset0").glob("hole_img_*.npy"))
    assert 0 < len(files) < 5
    assert f"fewer pairs: subset0/hole: {len(files)} of 5; the other boxes that were tried hold too" in printed[1]
    assert printed[2] == "no pairs: subset0/tiny: no box fits: the scan measures 12 x 12 x 12 mm"
    assert printed[3].startswith("no pairs: subset0/tissue: the boxes that were tried hold too much tissue")
    assert (tmp_path / "save" / "luna_train.txt").read_text() == "hole\n"
    again = luna_pre(tmp_path / "data", tmp_path / "save", "--scale", "5").splitlines()
    assert again[1:4] == printed[1:4]


def test_own_files_and_series_of_any_kind(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write(data / "patient 1" / "ct.nii.gz", chest(1))
    write_dicom(data / "patient 2" / "study", chest(2), "1.2.3")
    write_dicom(data / "patient 2" / "study", chest(3), "1.2.4")[7].unlink()
    printed = luna_pre(data, data / "pairs", *SMALL, status=1)
    assert "3 scans: 8 pairs of" in printed
    assert "broken: subset0/1.2.4: slices are missing or doubled" in printed
    assert {path.name for path in (data / "pairs" / "subset0").glob("*.npy")} == pair_names("ct") | pair_names("1.2.3")
    assert sorted((data / "pairs" / "luna_train.txt").read_text().splitlines()) == ["1.2.3", "ct"]
    assert ", all of them there already (" in luna_pre(data, data / "pairs", *SMALL, status=1)


def test_mr_between_percentiles(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).gamma(2, 300, (40, 52, 52)).astype(np.uint16)
    write(tmp_path / "data" / "mr.nii.gz", voxels)
    luna_pre(tmp_path / "data", tmp_path / "save", *SMALL, "--percentiles", "1", "99")
    pairs = np.stack([np.load(file) for file in (tmp_path / "save" / "subset0").glob("*.npy")])
    assert len(pairs) == 4
    low, high = np.percentile(voxels, (1, 99))
    assert pairs.mean() == pytest.approx((np.clip(voxels, low, high).mean() - low) / (high - low), abs=0.02)


def test_the_window_and_the_box_size_can_be_chosen(luna: Path, tmp_path: Path) -> None:
    luna_pre(luna, tmp_path, *SMALL, "--fold", "6", "--hu_min", "-1200", "--hu_max", "0", "--crop_rows", "64")
    recipe = json.loads((tmp_path / "subset6" / "1.2.2.json").read_text())["recipe"]
    assert (recipe["hu_min"], recipe["hu_max"], recipe["nominal"]) == (-1200, 0, [64, 32, 16])
    pairs = np.stack([np.load(file) for file in (tmp_path / "subset6").glob("*.npy")])
    assert pairs.shape == (4, 2, 32, 32, 16)
    assert np.median(pairs) == pytest.approx((1200 - 850) / 1200, abs=0.02)  # lung
    printed = luna_pre(luna, tmp_path, *SMALL, "--fold", "6", "--hu_min", "0", "--input_rows", "36", "--replace")
    assert "must be multiples of 8 for training" in printed


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-151, 250, ""),
        (-150, 250, "--hu_min -150 is not below -150 HU, where tissue begins"),
        (-1000, -150, ""),
        (-1000, -151, "--hu_max -151 is below -150 HU, where tissue begins"),
    ],
)
def test_a_window_without_the_limit_on_tissue_is_said(
    low: int, high: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = pair_options(parse(["--data", "d", "--save", "s", "--hu_min", str(low), "--hu_max", str(high)]))
    assert options.has_tissue_rule == (not words)
    line = f"{words}: there is no limit on the tissue in a crop\n" if words else ""
    said = capsys.readouterr()
    assert (said.out, said.err) == (("", f"warning: {line}") if high < -150 else (line, ""))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input_rows", "31"], "--input_rows 31: it must be at least 32"),
        (["--input_deps", "15"], "--input_deps 15: it must be at least 16"),
        (["--crop_cols", "8"], "--crop_cols 8: it must be at least 32"),
        (["--scale", "0"], "--scale 0: it must be at least 1"),
        (["--workers", "0"], "--workers 0: it must be at least 1"),
        (["--seed", "-1"], "--seed -1: it must be at least 0"),
        (["--fold", "10"], "--fold 10: the subsets are 0 to 9"),
        (["--hu_min", "5", "--hu_max", "5"], "the first must be smaller"),
        (["--percentiles", "99", "1"], "the first must be smaller"),
        (["--percentiles", "1", "99", "--hu_min", "-1000"], "give either"),
        (["--dtype", "float64"], "float64"),
    ],
)
def test_bad_flags_are_refused(flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(["--data", "data", "--save", "save", *flags])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--inputrows", "64"], "error: unknown argument --inputrows; did you mean --input_rows?"),
        (["--fold", "3"], "no scan of that subset, only of subset 0, 6, 7"),
        (["--data", "/nowhere"], "error: --data /nowhere: no such folder"),
    ],
)
def test_bad_usage_is_answered_in_one_line(luna: Path, tmp_path: Path, flags: list[str], message: str) -> None:
    printed = luna_pre(luna, tmp_path / "save", *flags, status=2)
    assert message in printed
    assert len(printed.splitlines()) == 1
    assert not (tmp_path / "save").exists()


def test_places_that_cannot_be_written_are_answered_in_one_line(luna: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for save in (tmp_path / "file", tmp_path / "file" / "save"):
        assert f"error: --save {save}: {tmp_path / 'file'} is a file\n" == luna_pre(luna, save, status=2)
    (tmp_path / "subset0").write_text("")  # in the way of the folder
    printed = luna_pre(luna, tmp_path, *SMALL, "--fold", "0", status=2)
    assert printed == f"error: --save {tmp_path}: cannot write there: File exists\n"


@pytest.mark.parametrize(("folder", "scans"), [("LUNA16", 1), ("own_ct", 3)])
def test_real_scans(folder: str, scans: int, tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("needs the real scans in ../shared/data, which are no part of the project")
    luna_pre(SHARED / folder, tmp_path)
    pairs = [np.load(path) for path in (tmp_path / "subset0").glob("*.npy")]
    assert len(pairs) == 16 * scans
    assert {pair.shape for pair in pairs} == {(2, 64, 64, 32)}
    assert len((tmp_path / "luna_train.txt").read_text().splitlines()) == scans


def test_help_is_laid_out_with_examples_that_parse(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    assert "--input_rows VOXELS" in text
    assert "``" not in text
    commands = [line.split() for line in text.splitlines() if line.strip().startswith("python preprocess/luna_pre.py")]
    assert len(commands) == 3
    parsed = [parse(command[2:]) for command in commands]
    assert [command.recipe for command in parsed] == ["pcrl", "pcrlv2", "pcrl"]
    assert parsed[2].hu_max == 250
