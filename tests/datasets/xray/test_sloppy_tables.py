"""Tables as spreadsheets and scripts leave them: a quote too many, a comma too many, a name twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.xray.files import find_chest
from datasets.xray.images import read_image
from datasets.xray.lists import read_list, read_list_or_table
from datasets.xray.tables import Table
from preprocess.jobs.nodule_table import read_table
from tests.cases_xray import dicom, lookup_table
from utils.errors import UserError


def refused(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_list(path)
    assert "\n" not in str(caught.value)


def test_a_quote_that_is_not_closed_swallows_no_lines(tmp_path: Path) -> None:
    refused(tmp_path / "a.csv", 'file,label,note\na.png,1,"left\nb.png,0,right\n', "a.csv cannot be read: line 3: ")


def test_a_comma_too_many_moves_no_values(tmp_path: Path) -> None:
    refused(tmp_path / "a.csv", "file,age\na.png,61\nb.png,61,5\n", "line 3: it has 3 fields, and the header 2")
    (tmp_path / "a.csv").write_text("file,age\na.png,61,,\nb.png,62\nc.png\n")  # empty ones say nothing
    table = read_list_or_table(tmp_path / "a.csv")
    assert isinstance(table, Table)
    assert table.column("age") == ["61", "62", ""]


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    refused(tmp_path / "a.csv", "file,file\na.png,b.png\n", "the columns file and file")


def test_a_name_with_a_line_break_is_told_in_one_line(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "l.csv").write_text('file,label\n"a\nb.png",1\na.png,0\n')
    with pytest.raises(UserError, match=r"'a\\nb\.png'") as caught:
        find_chest(tmp_path, str(tmp_path / "l.csv"))
    assert "\n" not in str(caught.value)


HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


def test_a_nodule_of_a_decimal_comma_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "annotations.csv"
    path.write_text(f"{HEADER}1.2,10,5,20,30,4\n")  # 10,5 is 10.5: all that follows would be another column's
    with pytest.raises(UserError, match="line 2: it has more fields than the header"):
        read_table(path)


def test_nodules_belong_to_scans_whose_uids_are_written_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "annotations.csv"
    path.write_text(f"{HEADER}1.2 ,1,2,3,4\n1.3.mhd,1,2,3,5\n1.2,4,5,6,7\n")
    places = read_table(path).by_scan({"1.2", "1.3"}).places
    assert {uid: [place.diameter_mm for place in own] for uid, own in places.items()} == {"1.2": [4, 7], "1.3": [5]}


@pytest.mark.parametrize(
    "shown",
    [
        {"WindowCenter": 30_000, "WindowWidth": 100},
        {"WindowCenter": -500, "WindowWidth": 10},
        {"WindowCenter": -500, "WindowWidth": 10, "PhotometricInterpretation": "MONOCHROME1"},
        {"VOILUTSequence": [lookup_table(list(range(100)), first=10_000, bits=8)]},
    ],
)
def test_a_window_of_other_values_than_the_image_has_is_none(tmp_path: Path, shown: dict[str, object]) -> None:
    pixels = np.arange(0, 4096, 4, dtype=np.uint16).reshape(32, 32)
    padding = {"PixelPaddingValue": 0}
    image = read_image(dicom(tmp_path / "a.dcm", pixels, **shown, **padding))
    whole = read_image(dicom(tmp_path / "b.dcm", pixels, **padding))
    inverted = "PhotometricInterpretation" in shown
    assert len(np.unique(whole)) > 250
    np.testing.assert_array_equal(image[1:], 255 - whole[1:] if inverted else whole[1:])
