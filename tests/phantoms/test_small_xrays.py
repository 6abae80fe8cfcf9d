"""X-rays of few pixels are computed from larger voxels, and show the same."""

from __future__ import annotations

import numpy as np

from phantoms.patient import sample_patient
from phantoms.xray import SHARP_SIZE, View, project, upright_phantom
from utils.seeding import generator


def test_a_small_xray_shows_what_finer_voxels_show() -> None:
    patient = sample_patient(generator(3, "patient"), ("Effusion",), 0)
    quick, fine = (upright_phantom(patient, generator(3, "paint"), size) for size in (96, SHARP_SIZE))
    assert quick.hu.size < fine.hu.size / 3
    images = [project(phantom, View(grain=0.0), 96).astype(float).ravel() for phantom in (quick, fine)]
    assert np.corrcoef(*images)[0, 1] > 0.99
    assert np.abs(images[0] - images[1]).mean() < 6
