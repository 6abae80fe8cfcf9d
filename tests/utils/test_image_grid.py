"""Slices stand as radiologists look at them, and pictures have the window and proportions that they are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from utils.image_grid import Picture, draw_sheet, middle_slices, shortened


def test_long_names_keep_their_beginning_and_end() -> None:
    assert shortened("thorax_abdomen_3mm") == "thorax_abdomen_3mm"
    uid = "1.3.6.1.4.1.14519.5.2.1.6279.6001.105756658031515062000744821260"
    assert shortened(uid) == f"{uid[:8]}...{uid[-13:]}"
    assert len(shortened(uid)) == 24


def test_slices_are_upright() -> None:
    """x to the patient's left, y to the back, z to the head; the corners tell which way a picture runs."""
    volume = np.zeros((6, 5, 4))
    volume[5] += 1  # the patient's left
    volume[:, 4] += 10  # the back
    volume[:, :, 3] += 100  # the head
    slices = middle_slices(volume, (1.0, 2.0, 4.0))
    axial, coronal, sagittal = (slices[name].pixels for name in ("axial", "coronal", "sagittal"))
    assert axial.shape == (5, 6)
    assert (axial[0, 0], axial[0, -1], axial[-1, 0]) == (0, 1, 10), "front on top, left at the right"
    assert coronal.shape == (4, 6)
    assert (coronal[0, 0], coronal[-1, 0], coronal[-1, -1]) == (100, 0, 1), "head on top, left at the right"
    assert sagittal.shape == (4, 5)
    assert (sagittal[0, 0], sagittal[-1, 0], sagittal[-1, -1]) == (100, 0, 10), "head on top, back at the right"
    heights = {name: picture.height for name, picture in slices.items()}
    assert heights == {"axial": 10 / 6, "coronal": 16 / 6, "sagittal": 16 / 10}, "millimetres, not voxels"


def test_a_sheet_has_its_pictures_in_one_window(tmp_path: Path) -> None:
    values = [0.2, 0.4, 0.6]
    pictures = [Picture(np.full((8, 8), value)) for value in values]
    draw_sheet([pictures, pictures[:1]], (0.2, 0.6), "a title", tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("L"))
    grey = [int(pixels[pixels.shape[0] // 3, pixels.shape[1] * part // 12]) for part in (2, 6, 10)]
    assert grey[0] == 0
    assert abs(grey[1] - 127) < 3
    assert grey[2] == 255
    rest = pixels[-pixels.shape[0] // 3 :, pixels.shape[1] // 2 :]
    assert (rest == 255).all(), "nothing stands where there is no picture"
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
