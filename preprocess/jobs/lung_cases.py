"""Scans of phantoms with masks of their lungs, as a data set to segment: what ``--n msd`` reads."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from datasets.ct.nifti_write import write_nifti
from datasets.ct.stored_grid import StoredGrid
from utils.files import atomic_path, write_text

FOLDER = "Task_Lungs"
DESCRIPTION = {
    "name": "lungs of thorax phantoms",
    "labels": {"background": 0, "lungs": 1},
    "channel_names": {"0": "CT"},
    "file_ending": ".mhd",
}


def case_files(save: Path, number: int) -> tuple[Path, Path]:
    """The files of scan ``number`` and of its mask."""
    name = f"lungs_{number:03d}"
    return save / FOLDER / "imagesTr" / f"{name}.mhd", save / FOLDER / "labelsTr" / f"{name}.nii.gz"


def write_case(save: Path, number: int, scan: Path, grid: StoredGrid, lungs: np.ndarray) -> None:
    """Write the case of ``scan`` (.mhd), whose voxels stay where they are: its header leads there; OSError.

    ``lungs``: uint8, as the voxels are stored.
    """
    image, label = case_files(save, number)
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    raw = Path(os.path.relpath(scan.parent, image.parent)) / f"{scan.stem}.raw"
    header = scan.read_text(encoding="utf-8")
    write_text(image, header.replace(f"ElementDataFile = {raw.name}", f"ElementDataFile = {raw.as_posix()}"))
    with atomic_path(label) as temporary:
        write_nifti(temporary, lungs, grid)


def write_description(save: Path) -> None:
    """Write ``dataset.json``."""
    write_text(save / FOLDER / "dataset.json", json.dumps(DESCRIPTION, indent=2) + "\n")
