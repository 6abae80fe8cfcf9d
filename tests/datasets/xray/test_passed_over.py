"""What lies among X-rays and is none: masks, DICOM objects without an image. Links, and equal names in two folders."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from pydicom.data import get_testdata_file

from datasets.xray import files as xray_files
from datasets.xray.dicom_objects import sop_class
from datasets.xray.files import find_chest
from datasets.xray.images import read_image
from datasets.xray.labels import find_labelled
from tests.cases_xray import bare, dicom, without_image
from utils.errors import UserError

PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)
OBJECTS = {
    "SEG": uid.SegmentationStorage,
    "RTSTRUCT": uid.RTStructureSetStorage,
    "RTPLAN": uid.RTPlanStorage,
    "RTDOSE": uid.RTDoseStorage,
    "SR": uid.EnhancedSRStorage,
    "dose report": uid.XRayRadiationDoseSRStorage,
    "PR": uid.GrayscaleSoftcopyPresentationStateStorage,
    "KO": uid.KeyObjectSelectionDocumentStorage,
    "REG": uid.SpatialRegistrationStorage,
    "PDF": uid.EncapsulatedPDFStorage,
    "ECG": uid.TwelveLeadECGWaveformStorage,
    "directory": uid.MediaStorageDirectoryStorage,
    "raw": uid.RawDataStorage,
}
IMAGES = [
    *(
        uid.ComputedRadiographyImageStorage,
        uid.DigitalXRayImageStorageForPresentation,
        uid.SecondaryCaptureImageStorage,
    ),
    *(uid.DigitalMammographyXRayImageStorageForPresentation, uid.XRayAngiographicImageStorage, uid.CTImageStorage),
    *(uid.RTImageStorage, uid.MRImageStorage, uid.UltrasoundImageStorage, uid.VLPhotographicImageStorage),
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
]


@pytest.fixture(autouse=True)
def nothing_said_yet() -> None:
    xray_files._said.clear()


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def below(folder: Path, files: list[str]) -> list[str]:
    return [os.path.relpath(file, folder) for file in files]


# -- DICOM objects


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_objects_without_an_image_are_counted_and_not_trained_on(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, sop in enumerate(IMAGES):
        dicom(tmp_path / f"image{number}{suffix}", PIXELS, SOPClassUID=sop)
    for name, sop in OBJECTS.items():
        without_image(tmp_path / f"{name}{suffix}", sop, PIXELS if name in ("SEG", "RTDOSE") else None)
    assert len(find_chest(tmp_path, "none")) == len(IMAGES)
    said = capsys.readouterr().out
    assert said.startswith(f"passed over in {tmp_path}: {len(OBJECTS)} DICOM files without an image of the body (")
    assert said.count("\n") == 1
    find_chest(tmp_path, "none")
    assert capsys.readouterr().out == ""  # once is enough


def test_slices_and_volumes_among_xrays_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, sop in enumerate(
        (uid.CTImageStorage, uid.EnhancedMRImageStorage, uid.PositronEmissionTomographyImageStorage)
    ):
        dicom(tmp_path / f"slice{number}.dcm", PIXELS, SOPClassUID=sop)
    dicom(tmp_path / "image.dcm", PIXELS)
    touch(tmp_path, "ct.nii.gz")
    assert len(find_chest(tmp_path, "none")) == 4
    said = capsys.readouterr()
    assert said.out == f"passed over in {tmp_path}: 1 file of CT or MR scans (ct.nii.gz)\n"
    first = tmp_path / "slice0.dcm"
    words = f"warning: 3 slices of CT, MR or PET ({first}, ...) in {tmp_path} will be used like X-rays\n"
    assert said.err == words


def test_images_beside_the_folder_of_images_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "extra").mkdir()
    dicom(tmp_path / "extra" / "b", PIXELS, SOPClassUID=uid.CTImageStorage)
    touch(tmp_path, "images/a.png", "c.png", "masks/a.png", "out/reconstructions/epoch_1.png")
    assert below(tmp_path, find_chest(tmp_path, "none")) == ["images/a.png"]
    first = tmp_path / "c.png"
    words = f"passed over in {tmp_path}: 2 images outside of images/ ({first}, ...)\n"
    assert capsys.readouterr().out == words
    touch(tmp_path, *(f"many/{number}.png" for number in range(2000)))
    find_chest(tmp_path, "none")
    assert re.search(r": at least 200\d images outside of images/", capsys.readouterr().out)


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_that_a_list_names_are_refused(tmp_path: Path, name: str) -> None:
    path = without_image(tmp_path / "x.dcm", OBJECTS[name], PIXELS)
    with pytest.raises(UserError, match=r"x\.dcm cannot be decoded: it holds no image of the body \(DICOM: "):
        read_image(path)


def test_a_real_directory_under_any_name(tmp_path: Path) -> None:
    directory = get_testdata_file("DICOMDIR")
    assert isinstance(directory, str)
    (tmp_path / "IM0002").write_bytes(Path(directory).read_bytes())
    dicom(tmp_path / "IM0001", PIXELS)
    assert below(tmp_path, find_chest(tmp_path, "none")) == ["IM0001"]


@pytest.mark.parametrize("meta", [False, True])
def test_objects_and_images_without_a_preamble(tmp_path: Path, meta: bool) -> None:
    bare(tmp_path / "IM1", PIXELS, meta)
    bare(tmp_path / "IM2.dcm", PIXELS, meta)
    dicom(tmp_path / "IM3", PIXELS, preamble=False)
    bare(tmp_path / "RD1", PIXELS, SOPClassUID=uid.RTDoseStorage)
    bare(tmp_path / "RD2.dcm", PIXELS, SOPClassUID=uid.RTDoseStorage)
    (tmp_path / "notes").write_text("\x08\0\x05\0 no DICOM, though it begins so")
    (tmp_path / "short").write_bytes(b"\x08\0")
    assert below(tmp_path, find_chest(tmp_path, "none")) == ["IM1", "IM2.dcm", "IM3"]


def test_headers_that_are_cut_or_lie_name_no_kind() -> None:
    element = struct.pack("<HHI", 8, 0x16, 26) + b"1.2.840.10008.5.1.4.1.1.1\0"
    assert sop_class(element) == "1.2.840.10008.5.1.4.1.1.1"
    assert sop_class(struct.pack("<HHI", 8, 5, 2**32 - 1) + element) is None
    assert all(not (sop_class(element[:length]) or "").startswith("1.2.840.10008.") for length in range(21))
    assert sop_class(b"") is None
    assert sop_class(bytes(128) + b"DICM") is None


# -- masks


MASKS = [
    *("masks/a.png", "mask/a.png", "ManualMask/leftMask/a.png", "COVID/masks/a.png", "Lung Masks/a.png"),
    *("train/segmentations/a.png", "labelsTr/a.png", "x/labels/a.png", "SEG/a.png", "ground_truth/a.png", "b_mask.png"),
    *("left-mask.png", "dcm/masks/a.dcm", "leftMask.jpg"),
]


@pytest.mark.parametrize("mask", MASKS)
def test_masks_are_counted_and_not_trained_on(tmp_path: Path, mask: str, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "a.png", "train/b.png", mask, ".ipynb_checkpoints/a-checkpoint.png", "masks/notes.txt")
    if mask.endswith(".dcm"):
        dicom(tmp_path / mask, PIXELS)
    assert below(tmp_path, find_chest(tmp_path, "none")) == ["a.png", "train/b.png"]
    said = f"passed over in {tmp_path}: 1 mask ({tmp_path / mask})\n"
    assert capsys.readouterr().out == said


def test_what_only_sounds_like_masks_is_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = ["Segment1/a.png", "label_0/a.png", "masked man/a.png", "unmasked/a.png", "mask.png", "Damask/a.png"]
    touch(tmp_path, *kept)
    assert below(tmp_path, find_chest(tmp_path, "none")) == sorted(kept)
    assert capsys.readouterr().out == ""


def test_a_list_may_name_a_mask_but_a_name_alone_means_the_image(tmp_path: Path) -> None:
    touch(tmp_path, "COVID/images/a.png", "COVID/masks/a.png", "only/masks/m.png")
    (tmp_path / "my.txt").write_text("a.png\nm.png\nCOVID/masks/a.png\n")
    files = below(tmp_path, find_chest(tmp_path, str(tmp_path / "my.txt")))
    assert files == ["COVID/images/a.png", "only/masks/m.png", "COVID/masks/a.png"]
    assert below(tmp_path, find_chest(tmp_path / "COVID" / "masks", "none")) == ["COVID/masks/a.png"]


def test_images_of_kinds_that_are_not_read_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "a.png", "b.tif", "c.TIFF", "d.bmp")
    assert below(tmp_path, find_chest(tmp_path, "none")) == ["a.png"]
    assert f"3 images of kinds that are not read ({tmp_path}/b.tif, ...)\n" in capsys.readouterr().out


def test_nothing_but_such_files_is_an_error_that_says_so(tmp_path: Path) -> None:
    touch(tmp_path, "masks/a.png", "masks/scan.nii.gz", "b.tif")
    with pytest.raises(UserError, match=r"holds nothing but 1 image of a kind that is not read .*, 1 mask "):
        find_chest(tmp_path, "none")


# -- links, and what is no file


def test_what_links_lead_to_counts_once_by_its_own_path(tmp_path: Path) -> None:
    data = tmp_path / "data"
    touch(data, "p1/a.png", "p1/deep/b.png", "z/c.png")
    touch(tmp_path, "other/d.png", "other/in/e.png")
    (data / "a_link").symlink_to(data / "p1")
    (data / "b_link").symlink_to(tmp_path / "other" / "in")
    (data / "c_link").symlink_to(tmp_path / "other")
    (data / "z" / "up").symlink_to(data)
    (data / "self").symlink_to(data / "self")
    (data / "nowhere").symlink_to(tmp_path / "absent")
    expected = ["b_link/e.png", "c_link/d.png", "p1/a.png", "p1/deep/b.png", "z/c.png"]
    assert below(data, find_chest(data, "none")) == expected
    (tmp_path / "my.txt").write_text("a_link/deep/b.png\nc_link/in/e.png\na.png\n")
    assert below(data, find_chest(data, str(tmp_path / "my.txt"))) == ["p1/deep/b.png", "b_link/e.png", "p1/a.png"]


def test_linked_folders_of_images(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a.png", "nih/images_001/images/b.png", "mine/x.txt", "nih/images_003/x.txt")
    (tmp_path / "mine" / "images").symlink_to(tmp_path / "elsewhere")
    assert below(tmp_path, find_chest(tmp_path / "mine", "none")) == ["mine/images/a.png"]
    (tmp_path / "nih" / "images_002").symlink_to(tmp_path / "nih" / "images_001")
    (tmp_path / "nih" / "images_003" / "images").symlink_to(tmp_path / "elsewhere")
    found = below(tmp_path / "nih", find_chest(tmp_path / "nih", "none"))
    assert found == ["images_003/images/a.png", "images_001/images/b.png"]


def test_folders_of_network_disks_are_no_images(tmp_path: Path) -> None:
    """They hold thumbnails of the images, and what was deleted."""
    for name in ("a.png", "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "sub/#recycle/b.png", "$RECYCLE.BIN/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_chest(tmp_path, "none") == [str(tmp_path / "a.png")]


def test_folders_named_like_images_and_pipes(tmp_path: Path) -> None:
    touch(tmp_path, "study.dcm/a.png", "b.png")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.png")
    assert below(tmp_path, find_chest(tmp_path, "none")) == ["b.png", "study.dcm/a.png"]


# -- equal names in several folders of images


def test_equal_names_in_two_folders_of_images(tmp_path: Path) -> None:
    sites = [f"images_site{site}/images/000{number}.png" for site in "AB" for number in (1, 2)]
    touch(tmp_path, *sites, "images_siteB/images/0003.png")
    assert below(tmp_path, find_chest(tmp_path, "none")) == [*sites, "images_siteB/images/0003.png"]
    (tmp_path / "my.txt").write_text("0003.png\n0001.png\n")
    with pytest.raises(UserError, match=r"0001.png is ambiguous: .*siteA.* or .*siteB.*; write its path in the list"):
        find_chest(tmp_path, str(tmp_path / "my.txt"))
    (tmp_path / "my.txt").write_text(f"{sites[2]}\n0003.png\n{sites[0]}\n")
    expected = [sites[2], "images_siteB/images/0003.png", sites[0]]
    assert below(tmp_path, find_chest(tmp_path, str(tmp_path / "my.txt"))) == expected


def test_one_image_by_two_names_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "images/a.png", "images/p/b.png")
    (tmp_path / "my.txt").write_text("b.png\na.png\np/b.png\nimages/a.png\n")
    files = below(tmp_path, find_chest(tmp_path, str(tmp_path / "my.txt")))
    assert files == ["images/p/b.png", "images/a.png"] * 2
    said = capsys.readouterr().err
    assert said.startswith(f"warning: the list {tmp_path}/my.txt has 2 repeated images (the first: ")
    assert said.count("\n") == 1


def test_one_image_in_two_parts_by_two_names_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/p/{name}.png" for name in "abcd"))
    (tmp_path / "chest_train.txt").write_text("a.png 0\nb.png 1\n")
    (tmp_path / "chest_valid.txt").write_text("c.png 0\n")
    (tmp_path / "chest_test.txt").write_text("d.png 0\np/b.png 1\n")
    with pytest.raises(UserError, match=r"chest_train.txt and .*chest_test.txt both contain .*/b.png"):
        find_labelled(tmp_path, None, 1.0)


def test_a_path_outside_of_the_data_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.png", "other/b.png")
    (tmp_path / "my.txt").write_text(f"a.png\n../other/b.png\n{tmp_path}/other/b.png\n")
    with pytest.raises(UserError, match=r"2 of the 3 images that .* names are not in .*data: \.\./other/b\.png, /"):
        find_chest(tmp_path / "data", str(tmp_path / "my.txt"))
