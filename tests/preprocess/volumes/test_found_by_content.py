"""What a folder of scans holds beside scans, where names alone do not tell; links to files of other names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from datasets.ct.errors import ScanError
from datasets.segmentation.scans import find_scans as find_scans_to_segment
from preprocess.jobs import records
from preprocess.volumes.files import Scan, find_scans
from tests.cases_ct import corners, write_nifti, write_series
from tests.preprocess.small_scans import chest, write
from utils.errors import UserError

TINY = chest(shape=(4, 4, 4))


def names(data: Path) -> list[str]:
    return [scan.name for scan in find_scans(data)]


def test_headers_that_speak_of_labels(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.nii.gz", TINY)
    for name in ("tumour.nii", "organs.nii.gz"):
        write_nifti(tmp_path / name, np.zeros((4, 4, 4), np.uint8), np.eye(4), intent_code=1002)
    image = sitk.GetImageFromArray(np.zeros((4, 4, 4), np.uint8))
    image.SetMetaData("Segment0_ID", "Segment_1")
    sitk.WriteImage(image, str(tmp_path / "slicer.nrrd"))
    write(tmp_path / "b.nrrd", TINY)
    assert names(tmp_path) == ["subset0/a", "subset0/b"]
    assert "3 label map by its header" in capfd.readouterr().out
    assert [scan.name for scan in find_scans_to_segment(tmp_path, 1)] == ["a", "b"]


def test_volumes_of_other_formats_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.nii.gz", TINY)
    for name in ("b.hdr", "b.img", "c.mgz", "d.nhdr", "e.dcm.gz", "notes.gz", "f.MNC"):
        (tmp_path / name).write_bytes(b"x" * 400)
    assert names(tmp_path) == ["subset0/a"]
    error = capfd.readouterr().err
    assert "not read, being of another format: b.hdr, c.mgz, d.nhdr and 2 more; convert to .nii.gz" in error
    (tmp_path / "a.nii.gz").unlink()
    with pytest.raises(UserError, match=r"no scan found.*another format: b\.hdr"):
        find_scans(tmp_path)


@pytest.mark.parametrize("blob", ["3f2a", ".3f2a.nii"])
def test_links_to_files_that_do_not_count_by_themselves(tmp_path: Path, blob: str) -> None:
    """As caches have them: snapshot/ct.nii -> ../blobs/<hash>, all below the folder that is given."""
    write_nifti(tmp_path / "blobs" / "made.nii", np.zeros((4, 4, 4), np.int16), np.eye(4))
    (tmp_path / "blobs" / "made.nii").rename(tmp_path / "blobs" / blob)
    (tmp_path / "snapshot").mkdir()
    for name in ("ct.nii", "again.nii"):
        (tmp_path / "snapshot" / name).symlink_to(os.path.join("..", "blobs", blob))
    assert len(names(tmp_path)) == 1


def test_a_localizer_in_a_series_to_segment_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = write_series(tmp_path)
    write_series(tmp_path / "more", corners(1), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (tmp_path / "more" / "000.dcm").rename(tmp_path / "scout.dcm")
    (scan,) = find_scans_to_segment(tmp_path, 1)
    assert set(scan.files) == set(files)
    assert "being localizers or of another size or orientation: scout.dcm" in capfd.readouterr().err


def test_a_scan_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its pairs would be recorded as those of what is there now, and never made again."""
    write(tmp_path / "a.mhd", chest())
    scan = Scan(0, "a", (tmp_path / "a.mhd",))
    assert records.read_with_identity(scan)[1]["content"]
    read = records.read_image

    def replaced(scan: Scan) -> Any:
        image = read(scan)
        write(tmp_path / "a.mhd", chest() + 1)
        return image

    monkeypatch.setattr(records, "read_image", replaced)
    with pytest.raises(ScanError, match="changed while they were read"):
        records.read_with_identity(scan)
