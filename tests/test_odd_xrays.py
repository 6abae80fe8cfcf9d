"""A folder of X-rays as it comes from a hospital: the command line, and the store beside direct reading."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import uid

from datasets.xray.files import find_chest
from datasets.xray.images import read_image
from datasets.xray.store import Store
from tests.cases_xray import bare, dicom, lookup_table, palette, png_16_bits, without_image
from tests.conftest import run_main, run_preprocess
from tests.datasets.xray.test_odd_images import turned

RAMP = np.add.outer(np.arange(64) * 30, np.arange(48) * 20).astype(np.uint16)
CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospital")
    for site in "AB":
        images = folder / f"images_site{site}" / "images"
        (images / "masks").mkdir(parents=True)
        Image.fromarray((RAMP // 16).astype(np.uint8)).save(images / "0001.png")
        Image.fromarray((RAMP // 16).astype(np.uint8)).save(images / "masks" / "0001.png")
    (images / os.fsdecode(b"$\\sqrt{$ cost \xff.PNG")).write_bytes(png_16_bits(RAMP[..., None].repeat(4, axis=-1)))
    (images / "lying (1).jpg").write_bytes(turned(6, "x.jpg", (RAMP // 16).astype(np.uint8))[0])
    window = {"WindowCenter": 1500, "WindowWidth": 1000}
    dicom(images / "window.dcm", RAMP, **window, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0)
    dicom(images / "table.dcm", RAMP, VOILUTSequence=[lookup_table(list(range(0, 4000, 2)), bits=12)])
    dicom(images / "palette.dcm", (RAMP // 16).astype(np.uint8), **palette(np.arange(768).reshape(256, 3) * 80, 16))
    bare(images / "IM0001", RAMP.astype(np.int16) - 1000, RescaleSlope=2, RescaleIntercept=0)
    without_image(images / os.fsdecode(b"A\xff"), uid.SegmentationStorage, RAMP)
    without_image(images / "DICOMDIR", uid.MediaStorageDirectoryStorage)
    return folder


def test_the_command_line_shows_all_and_says_what_it_passes_over(data: Path, tmp_path: Path) -> None:
    result = run_main(
        *("--data", data, "--train_list", "none", "--n", "chest", "--ratio", "1.0"),
        *("--preview", "9", "--size", "64", "--output", tmp_path / "out"),
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    passed_over = [line for line in result.stdout.splitlines() if line.startswith("passed over in ")]
    assert len(passed_over) == 1
    assert "2 DICOM files without an image of the body" in passed_over[0]
    assert "2 masks (" in passed_over[0]
    assert (tmp_path / "out" / "views.png").stat().st_size > 10_000


def test_the_store_holds_what_is_read_directly(data: Path, tmp_path: Path) -> None:
    files = find_chest(data, "none")
    assert len(files) == 8
    made = run_preprocess("chest_store", "--data", data, "--save", tmp_path / "store", "--workers", 1)
    assert made.returncode == 0, made.stderr
    stored = find_chest(tmp_path / "store", "none")
    assert [os.path.relpath(file, tmp_path / "store") for file in stored] == [os.path.relpath(f, data) for f in files]
    store = Store(tmp_path / "store")
    for file, path in zip(files, stored, strict=True):
        image = read_image(file)
        np.testing.assert_array_equal(store.read(path), image)
        assert (image.min(), image.max()) != (0, 0)


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the cases in ../shared, which are no part of the project")
def test_files_of_other_programs() -> None:
    def folder(number: str) -> Path:
        return next(CASES.glob(f"{number}-*"))

    images = [read_image(path) for path in sorted((folder("09") / "data").iterdir())]
    assert len(images) == 4
    assert all(np.array_equal(image, images[0]) for image in images)
    for number, values in (("fraction", 256), ("one", 2), ("zero", 256)):
        image = read_image(folder("10") / "data" / f"{number}.dcm")
        assert (image.min(), image.max(), len(np.unique(image))) == (0, 255, values)
    assert read_image(folder("11") / "data" / "palette.dcm").std() > 20
    assert len(find_chest(folder("12") / "data", "none")) == 4
    for listed in (None, str(folder("13") / "data" / "Data_Entry_2017.csv")):
        assert find_chest(folder("13") / "data", listed)
    assert len(np.unique(read_image(folder("14") / "xray" / "x.dcm"))) == 256
    lying, upright = (read_image(path) for path in sorted((folder("16") / "data").iterdir()))
    assert lying.shape == upright.shape
    assert np.abs(lying.astype(int) - upright).mean() < 5
