"""A table whose images are not in --data: the advice is about tables, and shows what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.xray.labels import Labelling, find_labelled
from tests.conftest import write_xrays
from utils.errors import UserError


def test_wrong_names_in_a_table_are_answered_by_what_is_there(tmp_path: Path) -> None:
    data = write_xrays(tmp_path / "data", count=3, size=64)
    table = tmp_path / "labels.csv"
    table.write_text("image,patient,edema\n" + "".join(f"scan{n}.png,p{n},{n % 2}\n" for n in range(10)))
    with pytest.raises(UserError) as caught:
        find_labelled(data, str(table), 1.0, Labelling(split=(60, 20, 20)))
    message = str(caught.value)
    assert "(an image there: 00000001_000.png)" in message
    assert "look at --data and --image_column" in message
    assert "chest_valid.txt" not in message
    assert f"6 of the 6 images that {table} names in its train part are not in {data}: scan" in message
