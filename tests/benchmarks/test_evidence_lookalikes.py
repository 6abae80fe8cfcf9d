"""The places without a nodule in the evidence's phantoms: blobs that a detector answers to as it does to nodules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from benchmarks.evidence_lookalikes import FORMER, blobs_in_lung, lookalikes, write_candidates

SPACING, ORIGIN = (1.5, 1.5, 2.5), (-60.0, 20.0, -90.0)  # mm, x, y, z
SIZE = (80, 80, 40)
BALLS = {  # centre in mm from the first voxel, diameter in mm, HU
    "nodule": ((30, 30, 30), 8, 30),
    "twin": ((90, 30, 30), 8, 40),
    "fainter": ((30, 90, 30), 8, -50),
    "much larger": ((90, 90, 70), 16, 30),
    "on the nodule": ((30, 38, 30), 8, 30),
    "in the wall": ((60, 60, 4), 8, 300),
}


def placed(name: str) -> np.ndarray:
    """The centre in the scan's frame."""
    return np.array(BALLS[name][0]) + ORIGIN


@pytest.fixture(scope="module")
def scan() -> sitk.Image:
    x, y, z = (np.arange(count) * step for count, step in zip(SIZE, SPACING, strict=True))
    hu = np.full(SIZE[::-1], -800, np.int16)
    hu[:6] = 50  # the wall
    for (cx, cy, cz), diameter, level in BALLS.values():
        square = (z[:, None, None] - cz) ** 2 + (y[:, None] - cy) ** 2 + (x - cx) ** 2
        hu[square < diameter**2 / 4] = level
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    return image


def test_the_places_nearest_in_response_are_chosen(scan: sitk.Image) -> None:
    found = lookalikes(scan, [(placed("nodule"), 8.0)])
    assert [min(BALLS, key=lambda name: float(np.linalg.norm(placed(name) - place))) for place in found] == [
        "twin",
        "fainter",
    ]
    assert max(np.linalg.norm(placed(name) - place) for name, place in zip(("twin", "fainter"), found, strict=True)) < 3


def test_a_place_is_taken_once_and_none_is_made_up(scan: sitk.Image) -> None:
    """Two nodules want four; the large ball is the only other one."""
    found = lookalikes(scan, [(placed("nodule"), 8.0), (placed("nodule"), 8.0)])
    assert len({tuple(place) for place in found}) == len(found) == 3


def test_the_detector_sees_the_lung_alone(scan: sitk.Image) -> None:
    blobs = blobs_in_lung(scan)
    assert blobs.shape == SIZE[::-1]
    assert not blobs[:3].any(), "the wall and the ball in it"
    assert blobs.max() > 300


def test_the_table_has_nodules_and_places_of_each_scan_with_a_nodule(scan: sitk.Image, tmp_path: Path) -> None:
    (tmp_path / "subset0").mkdir()
    for name in ("1.2", "1.3"):
        sitk.WriteImage(scan, str(tmp_path / "subset0" / f"{name}.mhd"))
    nodule = ",".join(map(str, placed("nodule").tolist()))
    (tmp_path / "annotations.csv").write_text(f"seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2,{nodule},8.0\n")
    (tmp_path / "candidates_V2.csv").write_text("random places")
    write_candidates(tmp_path)
    lines = (tmp_path / "candidates_V2.csv").read_text().splitlines()
    assert lines[:2] == ["seriesuid,coordX,coordY,coordZ,class", "1.2,-30.00,50.00,-60.00,1"]
    assert [line.split(",")[0] + line[-2:] for line in lines[2:]] == ["1.2,0", "1.2,0"]
    assert (tmp_path / FORMER).read_text() == "random places"
    write_candidates(tmp_path)
    assert (tmp_path / "candidates_V2.csv").read_text().splitlines() == lines
    assert (tmp_path / FORMER).read_text() == "random places", "a second call keeps it"
