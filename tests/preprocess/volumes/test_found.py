"""What counts as a scan below a folder: label maps, other DICOM objects, LUNA16 further down, links."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from datasets.ct.errors import ScanError
from datasets.layout import is_label_map
from preprocess.volumes.files import find_scans
from preprocess.volumes.volume import read_image
from tests.cases_ct import other_object, save, write_nifti, write_series
from tests.conftest import ROOT, run_preprocess
from tests.preprocess.small_scans import chest, write
from utils.errors import UserError

CASES = ROOT.parent / "shared" / "cases"
OTHERS = {
    "SEG": "1.2.840.10008.5.1.4.1.1.66.4",
    "RTDOSE": "1.2.840.10008.5.1.4.1.1.481.2",
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
    "SR": "1.2.840.10008.5.1.4.1.1.88.33",
    "PR": "1.2.840.10008.5.1.4.1.1.11.1",
    "DICOMDIR": "1.2.840.10008.1.3.10",
}
TINY = chest(shape=(4, 4, 4))


def test_folders_of_the_system_and_folders_called_like_scans(tmp_path: Path) -> None:
    """Some unpack case.nii.gz to a folder; network disks keep folders of their own among a user's."""
    for name in ("case1.nii/case1.nii", "b.nii.gz", "@eaDir/c.nii.gz", "lost+found/d.nii", "__MACOSX/e.nii"):
        write(tmp_path / name, TINY)
    assert names(tmp_path) == ["subset0/b", "subset0/case1"]


def names(data: Path) -> list[str]:
    return [scan.name for scan in find_scans(data)]


@pytest.mark.parametrize(
    "path",
    [
        "labelsTr/lung_001.nii.gz",
        "Task06_Lung/labelsTs/lung_001.nii.gz",
        "s0001/segmentations/liver.nii.gz",
        "seg-lungs-LUNA16/1.2.3.mhd",
        "masks/case1.nrrd",
        "case_00000/segmentation.nii.gz",
        "BraTS20_Training_001_seg.nii.gz",
        "segmentation-0.nii",
        "brain1_label.nrrd",
        "a/ManualMask.nrrd",
        "Lung_Mask/x.nii.gz",
        "label/label0001.nii.gz",
        "a/LabelMap-1.mha",
        "out/probabilities/case_1_2.nii.gz",
    ],
)
def test_label_maps_are_known_by_their_names(path: str) -> None:
    assert is_label_map(Path(path))


@pytest.mark.parametrize(
    "path",
    [
        "imagesTr/lung_001.nii.gz",
        "s0001/ct.nii.gz",
        "subset0/1.2.3.mhd",
        "images/case1.nrrd",
        "unlabelled/case1.nrrd",
        "case_00000/imaging.nii.gz",
        "volume-0.nii",
        "img/img0001.nii.gz",
        "brain_masked.nii.gz",
        "sega/segovia.nii",
        "segmentation/imagesTr/lung_001.nii.gz",
        "masks/ct/a.nii",
    ],
)
def test_scans_are_no_label_maps(path: str) -> None:
    assert not is_label_map(Path(path))


def test_label_maps_are_passed_over_and_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for place in ("imagesTr/a", "labelsTr/a", "labelsTs/b", ".ipynb_checkpoints/a-checkpoint"):
        write(tmp_path / f"{place}.nii.gz", TINY)
    assert names(tmp_path) == ["subset0/a"]
    out = capfd.readouterr().out
    assert out == (
        "passed over, since they hold no volume of the body: 2 label maps (by name: labelsTr/a.nii.gz, ...)\n"
    )


def test_nothing_but_label_maps_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "labelsTr" / "a.nii.gz", TINY)
    with pytest.raises(UserError, match=r"no scan found.*1 label map \(by name: labelsTr/a.nii.gz\)"):
        find_scans(tmp_path)
    with pytest.raises(UserError, match=r"no scan found.*1 label map \(by name: a.nii.gz\)"):
        find_scans(tmp_path / "labelsTr")


def test_dicom_objects_without_an_image_are_passed_over(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = write_series(tmp_path / "study")
    for name, sop in OTHERS.items():
        save(tmp_path / "study" / f"{name}_object", other_object(sop, name, pixels=name in ("SEG", "RTDOSE")))
    save(tmp_path / "study" / "DICOMDIR", other_object(OTHERS["DICOMDIR"], ""))
    (scan,) = find_scans(tmp_path)
    assert set(scan.files) == set(files)
    assert read_image(scan).GetSize() == (16, 12, 14)
    assert capfd.readouterr().out.endswith("body: 2 DICOMDIR, 1 PR, 1 RTDOSE, 1 RTSTRUCT, 1 SEG, 1 SR\n")


def test_a_series_of_localizers_or_a_single_image_is_no_scan(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_series(tmp_path / "ct")
    write_series(tmp_path / "scouts", SeriesInstanceUID="1.2.4", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(tmp_path / "one", np.zeros((1, 3)), SeriesInstanceUID="1.2.5")
    assert names(tmp_path) == ["subset0/1.2.3"]
    assert "14 localizer, 1 single image\n" in capfd.readouterr().out


@pytest.mark.parametrize("above", ["LUNA16", "LUNA16/part1", "."])
def test_the_subsets_of_luna16_count_wherever_they_lie(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], above: str
) -> None:
    for place in ("subset0/1.2.1", "subset9/1.2.3", "seg-lungs-LUNA16/1.2.1"):
        write(tmp_path / above / f"{place}.mhd", TINY)
    write(tmp_path / "LUNA16" / "part2" / "subset4" / "1.2.2.mhd", TINY)
    assert names(tmp_path) == ["subset0/1.2.1", "subset4/1.2.2", "subset9/1.2.3"]
    assert capfd.readouterr() == ("", "")
    write(tmp_path / "more" / "1.2.9.nii.gz", TINY)
    assert len(names(tmp_path)) == 3
    told = "warning: left out, since they lie outside of the subset folders: 1 scan (1.2.9.nii.gz)"
    assert capfd.readouterr().err == f"{told}\n"
    for file in write_series(tmp_path / "more" / "study"):
        file.rename(file.with_name(f"IM{file.stem}"))
    (tmp_path / "more" / "study" / "AUTHORS").write_text("no DICOM")
    (tmp_path / "notes").mkdir()
    for name in ("README", "script.py", "table.csv"):
        (tmp_path / "notes" / name).write_text("no DICOM")
    assert len(names(tmp_path)) == 3
    assert capfd.readouterr().err == f"{told} and 1 folder of DICOM (study)\n"


def test_links_are_followed_and_nothing_counts_twice(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.nii.gz", TINY)
    write(tmp_path / "data" / "own" / "b.nii.gz", TINY)
    write(tmp_path / "store" / "c.nrrd", TINY)
    data = tmp_path / "data"
    (data / "linked").symlink_to(tmp_path / "elsewhere")
    (data / "linked_again").symlink_to(tmp_path / "elsewhere")
    (data / "own" / "circle").symlink_to(data)
    (data / "again.nii.gz").symlink_to(data / "own" / "b.nii.gz")
    (data / "nowhere").symlink_to(tmp_path / "not there")
    (data / "itself").symlink_to(data / "itself")
    for name in ("c.nrrd", "d.nrrd"):
        (data / name).symlink_to(tmp_path / "store" / "c.nrrd")
    assert names(data) == ["subset0/a", "subset0/b", "subset0/c"]


def test_a_link_to_nowhere_is_a_scan_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.mhd").symlink_to(tmp_path / "gone.mhd")
    (tmp_path / "b.mhd").symlink_to(tmp_path / "b.mhd")
    for scan in find_scans(tmp_path):
        with pytest.raises(ScanError, match=r"[ab].mhd is missing"):
            read_image(scan)
    assert names(tmp_path) == ["subset0/a", "subset0/b"]


def test_a_subset_may_be_a_link(tmp_path: Path) -> None:
    write(tmp_path / "disk" / "1.2.1.mhd", TINY)
    (tmp_path / "data").mkdir()
    os.symlink(tmp_path / "disk", tmp_path / "data" / "subset8")
    assert names(tmp_path / "data") == ["subset8/1.2.1"]


def test_files_that_only_begin_like_dicom_are_none(tmp_path: Path) -> None:
    write(tmp_path / "a.nii.gz", TINY)
    rng = np.random.default_rng(0)
    for number, start in enumerate((b"\x08\x00", b"\x08\x00\x05\x00CS\x0a\x00", b"\x02\x00\x00\x00UL\x04\x00")):
        (tmp_path / f"{number}.bin").write_bytes(start + rng.bytes(1000))
    assert names(tmp_path) == ["subset0/a"]


def test_the_command_cuts_what_is_a_scan_and_names_what_is_not(tmp_path: Path) -> None:
    data = tmp_path / "data"
    places = np.arange(30)[:, None] * (0.0, 0.0, 2.5)
    write_series(data / "ct", places, preamble=False)
    save(data / "ct" / "SEG", other_object(OTHERS["SEG"], "SEG", pixels=True))
    write(data / "imagesTr" / "b.nii.gz", chest())
    write(data / "labelsTr" / "b.nii.gz", (chest() > 0).astype(np.int16))
    voxels = chest().T.astype(np.float32)
    voxels[:9] = np.nan
    write_nifti(data / "imagesTr" / "c.nii.gz", voxels, np.diag([5.0, 5, 5, 1]))
    size = ["--input_rows", "32", "--input_cols", "32", "--input_deps", "16", "--hu_min", "-150", "--hu_max", "250"]
    flags = (*size, "--scale", 1, "--workers", 1)
    run = run_preprocess("luna_pre", "--data", data, "--save", tmp_path / "o", *flags)
    assert run.returncode == 1, run.stderr
    assert (
        "passed over, since they hold no volume of the body: 1 SEG, 1 label map (by name: labelsTr/b.nii.gz)"
        in run.stdout
    )
    broken = [line for line in run.stdout.splitlines() if line.startswith("broken")]
    assert len(broken) == 1
    assert broken[0].startswith("broken: subset0/c: it has voxels that are not finite numbers")
    made = sorted(path.name for path in (tmp_path / "o" / "subset0").glob("*.npy"))
    assert "b_img_0.npy" in made
    assert not [name for name in made if name.startswith(("c_", "labels", "imagesTr"))]


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the cases in ../shared, which are no part of the project")
def test_shared_cases() -> None:
    assert names(CASES / "06-label-maps" / "Task06_Lung") == ["subset0/lung_001"]
    luna = names(CASES / "07-luna-one-folder-up" / "data")
    assert [name.partition("/")[0] for name in luna] == ["subset0", "subset8"]
