"""``cases.png`` shows where the label is, however poor the mask."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from datasets.ct.stored_grid import stored_grid
from datasets.segmentation.msd import Volume
from tasks.prediction_files import mask_path, write_mask
from tasks.prediction_pictures import CASES, draw_cases

SHAPE, DARK = (16, 16, 8), 4  # the slice that is black


@pytest.mark.parametrize("labelled", [True, False])
def test_the_slice_is_that_of_the_label_and_of_the_mask_where_there_is_none(labelled: bool, tmp_path: Path) -> None:
    image, label, mask = np.full(SHAPE, 100, np.float32), np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    image[:, :, DARK] = 0
    inside = np.s_[4:8, 4:8, DARK]
    if labelled:
        label[inside] = 1
        mask[:, :, 0] = 1  # larger than the label, at the end of the scan
    else:
        mask[inside] = 1
    scan = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(image, np.diag([-1.0, -1, 1, 1])), scan)  # stored as the network sees it
    write_mask(mask_path(tmp_path, "a"), mask, stored_grid([scan]))
    draw_cases(tmp_path, [Volume("a", image, label, label, [], (scan,))], {"a": [0.0]}, ["front"])
    grey = np.asarray(Image.open(tmp_path / CASES).convert("L"))
    assert (grey < 40).mean() > 0.25, "another slice than the black one"
