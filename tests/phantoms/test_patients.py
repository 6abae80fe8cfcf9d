"""What phantoms look like: tissues, findings, and their X-rays, by geometry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from phantoms.anatomy import Phantom, make_phantom, paint
from phantoms.patient import Patient, sample_patient
from phantoms.thorax import SUPINE, UPRIGHT
from phantoms.xray import DETECTOR_MM, SOURCE_MM, View, project, upright_phantom
from preprocess.volumes import crops
from utils.seeding import generator

COARSE, COARSER = (2.5, 2.5, 2.5), (3.5, 3.5, 3.5)


def coordinates(phantom: Phantom) -> tuple[np.ndarray, ...]:
    """x, y and z of the voxels, in mm, ready to broadcast."""
    axes = [
        o + s * np.arange(n) for o, s, n in zip(phantom.origin_mm, phantom.spacing_mm, phantom.hu.shape, strict=True)
    ]
    return tuple(np.ix_(*axes))


def painted(seed: int, findings: set[str], posture: str = SUPINE, nodules: int = 0) -> tuple[Patient, Phantom]:
    patient = sample_patient(generator(seed, "patient"), findings, nodules)
    return patient, paint(patient, generator(seed, "paint"), COARSER, posture)


def litres(mask: np.ndarray, phantom: Phantom) -> float:
    return float(mask.sum() * np.prod(phantom.spacing_mm) / 1e6)


# --- the volume


def test_tissues_have_their_hu() -> None:
    phantom = make_phantom(generator(1, "tissue"), COARSE, findings=(), nodule_count=0)
    assert phantom.hu.dtype == np.int16
    hu = phantom.hu.astype(float)
    counts, edges = np.histogram(hu, bins=np.arange(-1020, 1020, 10))

    def mode(low: float, high: float) -> float:
        inside = (edges[:-1] >= low) & (edges[1:] <= high)
        return float(edges[:-1][inside][counts[inside].argmax()] + 5)

    assert mode(-940, -600) == pytest.approx(-850, abs=25)  # lung
    assert mode(-200, -50) == pytest.approx(-95, abs=20)  # fat
    assert mode(0, 200) == pytest.approx(45, abs=20)  # soft tissue
    body = ndimage.binary_fill_holes(ndimage.binary_opening(hu > -300, iterations=1))
    assert 0.02 < (hu[body] > 300).mean() < 0.12  # bone
    outside = ndimage.binary_erosion(hu < -950, iterations=4)
    assert litres(outside, phantom) > 5
    assert np.percentile(hu[outside], 99) < -950
    lungs = (hu > -940) & (hu < -600)
    assert 2.5 < litres(lungs, phantom) < 7
    assert 15 < ndimage.median_filter(hu, 3)[lungs].std() < 100  # with texture


def test_padding_fills_what_is_outside_of_the_round_field_of_view() -> None:
    padded = [make_phantom(generator(n, "padding"), (4, 4, 8), (), 0).hu for n in range(4)]
    values = {int(hu[0, 0, 0]) for hu in padded}
    assert values & {-2000, -2048, -3024}
    assert any(value > -1025 for value in values)
    for hu in padded:
        corner = hu[0, 0, :]
        if corner[0] < -1024:
            assert (corner == corner[0]).all()
            assert hu[hu.shape[0] // 2, hu.shape[1] // 2].min() >= -1024


def test_every_scan_is_different_and_every_seed_the_same() -> None:
    first, again, second = (make_phantom(generator(0, "phantom", number), (4, 4, 8)) for number in (1, 1, 2))
    np.testing.assert_array_equal(first.hu, again.hu)
    smallest = [min(a, b) for a, b in zip(first.hu.shape, second.hu.shape, strict=True)]
    window = tuple(slice(0, side) for side in smallest)
    assert (np.abs(first.hu[window].astype(int) - second.hu[window]) > 100).mean() > 0.1
    counts = {len(sample_patient(generator(0, "phantom", number)).nodules) for number in range(14)}
    assert counts == set(range(7)) or counts == set(range(6))  # 0..5 nodules, and perhaps a mass


def test_an_unknown_finding_is_an_error() -> None:
    with pytest.raises(ValueError, match="Hernia"):
        sample_patient(generator(0), {"Hernia"})


def test_nodules_are_soft_balls_of_their_diameter_in_lung() -> None:
    phantom = make_phantom(generator(0, "balls"), (1.25, 1.25, 1.25), (), 10)
    assert len(phantom.nodules) == 10
    for nodule in phantom.nodules:
        center = (np.array(nodule.center_mm) - phantom.origin_mm) / phantom.spacing_mm
        low = np.rint(center).astype(int) - 18
        block = phantom.hu[tuple(slice(a, a + 37) for a in low)].astype(float)
        offset = np.stack(np.meshgrid(*[low[a] + np.arange(37) - center[a] for a in range(3)], indexing="ij"))
        distance = 1.25 * np.sqrt((offset**2).sum(axis=0)) / (nodule.diameter_mm / 2)
        assert -60 < block[distance < 0.5].mean() < 120
        assert np.median(block[(distance > 1.3) & (distance < 1.6)]) < -700
        shares = np.arange(0.6, 1.5, 0.04)  # medians of shells: few of their voxels are vessels
        shells = [np.median(block[np.abs(distance - share) < 0.08]) for share in shares]
        edge = shares[np.flatnonzero(np.array(shells) > -400)[-1]] + 0.02
        assert edge * nodule.diameter_mm == pytest.approx(nodule.diameter_mm, rel=0.15, abs=1.0)
        assert 4 <= nodule.diameter_mm <= 20


def test_preprocessing_finds_pairs_of_three_box_sizes() -> None:
    phantom = make_phantom(generator(0, "phantom", 1), (2, 2, 2))
    volume = phantom.hu.repeat(2, 0).repeat(2, 1).repeat(2, 2)  # of 1 mm
    assert min(volume.shape[:2]) >= 237
    assert volume.shape[2] >= 130
    window = crops.Window(-1000, 1000, -150)
    accepted = set()
    pairs = crops.overlapping_pairs(crops.feasible_boxes(volume.shape), np.random.default_rng(0))
    for _, (starts, sizes) in zip(range(60), pairs, strict=False):
        if crops.cut_pair(volume, starts, sizes, (64, 64, 32), window) is not None:
            accepted |= set(map(tuple, sizes.tolist()))
    assert len(accepted) >= 3
    # The smallest box that is not resized is bound by the rule most: it must have its places, too.
    rng, box = np.random.default_rng(0), np.array((64, 64, 32))
    places = rng.integers((70, 70, 15), np.array(volume.shape) - box - (70, 70, 18), (400, 3))
    fits = [
        crops.tissue_sum(volume[tuple(map(slice, p, p + box + (0, 0, 1)))], -150) <= 0.15 * 64 * 64 * 32 for p in places
    ]
    assert np.mean(fits) > 0.03


# --- the findings


def test_cardiomegaly_is_a_heart_wider_than_half_of_the_chest() -> None:
    for seed in (1, 2):
        ratios = {}
        for findings in (frozenset(), frozenset({"Cardiomegaly"})):
            patient, phantom = painted(seed, set(findings), UPRIGHT)
            assert patient.labels == findings
            x, y, z = (axis.ravel() for axis in coordinates(phantom))
            plane = phantom.hu[np.abs(x) < 135][:, np.argmin(np.abs(y + 24))]  # frontal, through the heart
            lung = (plane > -960) & (plane < -500)
            rows_of_heart = lung[:, (z > max(patient.thorax.dome_z) + 8) & (z < 20)]
            walls = np.flatnonzero(rows_of_heart.any(axis=1))[[0, -1]] + (-1, 1)
            gaps = [np.diff([walls[0], *np.flatnonzero(row), walls[1]]).max() - 1 for row in rows_of_heart.T]
            ratios[findings] = max(gaps) / (walls[1] - walls[0] - 1)
        normal, enlarged = ratios.values()
        assert normal < 0.5 < enlarged


@pytest.mark.parametrize("posture", [UPRIGHT, SUPINE])
def test_effusion_is_fluid_in_the_base_of_one_lung(posture: str) -> None:
    patient, without = painted(3, set(), posture)
    sick, with_fluid = painted(3, {"Effusion"}, posture)
    assert sick.labels == {"Effusion"}
    assert replace(sick.thorax, effusion=None) == patient.thorax  # the same person
    x, _, z = (np.broadcast_to(axis, without.hu.shape) for axis in coordinates(without))
    smooth = [ndimage.uniform_filter(phantom.hu.astype(float), 3) for phantom in (without, with_fluid)]
    fluid = (smooth[0] < -650) & (np.abs(smooth[1] - 12) < 40)
    assert litres(fluid, without) > 0.08
    assert (x[fluid] > 0).mean() in (0, 1)
    lung_z = z[smooth[0] < -650]
    middle = (patient.thorax.apex_z + min(patient.thorax.dome_z) - 60) / 2
    assert lung_z.size
    assert np.mean(z[fluid]) < middle
    assert z[fluid].max() < patient.thorax.apex_z - 60


def test_pneumothorax_is_air_without_vessels_at_one_apex() -> None:
    patient, without = painted(4, set(), UPRIGHT)
    sick, phantom = painted(4, {"Pneumothorax"}, UPRIGHT)
    assert sick.labels == {"Pneumothorax"}
    air = (without.hu > -940) & (without.hu < -700) & (phantom.hu < -970)
    assert litres(air, phantom) > 0.2
    x, _, z = (np.broadcast_to(axis, air.shape) for axis in coordinates(phantom))
    assert (x[air] > 0).mean() in (0, 1)
    top = air & (z > patient.thorax.apex_z - 40)
    lungs = (without.hu > -940) & (without.hu < -700) & (z > patient.thorax.apex_z - 40) & (x * np.mean(x[air]) > 0)
    assert top.sum() > 0.4 * lungs.sum()


def test_consolidation_is_dense_lung() -> None:
    _, without = painted(5, set(), UPRIGHT)
    sick, phantom = painted(5, {"Consolidation"}, UPRIGHT)
    assert sick.labels == {"Consolidation"}
    dense = (without.hu < -700) & (without.hu > -960) & (np.abs(phantom.hu) < 150)
    assert litres(dense, phantom) > 0.03


def test_mass_is_a_ball_above_30_mm_and_small_nodules_earn_no_label() -> None:
    for seed in range(3):
        sick, phantom = painted(seed, {"Mass"}, UPRIGHT)
        assert sick.labels == {"Mass"}
        (mass,) = phantom.nodules
        assert mass.diameter_mm > 30
        x, y, z = coordinates(phantom)
        cx, cy, cz = mass.center_mm
        inside = (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < (0.4 * mass.diameter_mm) ** 2
        assert (np.abs(phantom.hu[inside] - 45) < 60).mean() > 0.95
    for number in range(10):
        patient = sample_patient(generator(number, "label"), (), 3)
        assert ("Nodule" in patient.labels) == any(nodule.diameter_mm >= 10 for nodule in patient.nodules)


# --- the X-ray


def test_xray_is_upright_with_the_heart_on_its_right() -> None:
    for seed in (6, 7):
        patient = sample_patient(generator(seed, "patient"), (), 0)
        image = project(upright_phantom(patient, generator(seed, "paint"), 128), View(), 256).astype(float)
        assert image.shape == (256, 256)
        middle = image[:, 40:-40]
        lung = ndimage.gaussian_filter(middle, 2) < np.percentile(middle, 42)
        parts, count = ndimage.label(lung[20:200])
        sizes = ndimage.sum_labels(np.ones_like(parts), parts, np.arange(1, count + 1))
        lungs = np.isin(parts, np.argsort(sizes)[-2:] + 1)
        used = np.flatnonzero(lungs.sum(axis=1) > 3)
        width = [np.ptp(np.flatnonzero(lungs[row])) for row in used]
        assert np.mean(width[: len(width) // 5]) < 0.8 * np.mean(width[len(width) // 2 : -len(width) // 5])
        low = image[used[0] + 20 + int(0.62 * np.ptp(used)) :][: int(0.2 * np.ptp(used)), 128 - 60 : 128 + 60]
        assert low[:, 60:].mean() > low[:, :60].mean() + 8


def test_a_nodule_is_projected_to_where_the_rays_take_it() -> None:
    view = View(turn_rad=0.06, roll_rad=0.05, shift_mm=(6.0, -4.0), field_mm=400.0, grain=0.0)
    for seed in range(2):
        patient = sample_patient(generator(seed, "nodule"), (), 1)
        patient = replace(patient, nodules=(replace(patient.nodules[0], diameter_mm=18.0),))
        with_nodule = upright_phantom(patient, generator(seed, "paint"), 128)
        without = upright_phantom(replace(patient, nodules=()), generator(seed, "paint"), 128)
        brighter = project(with_nodule, view, 400).astype(float) - project(without, view, 400)
        row, column = np.unravel_index(ndimage.gaussian_filter(brighter, 3).argmax(), brighter.shape)
        (nodule,) = with_nodule.nodules
        size = np.array(with_nodule.hu.shape) * with_nodule.spacing_mm
        middle = with_nodule.origin_mm + (size - with_nodule.spacing_mm) / 2
        x, y, z = np.array(nodule.center_mm) - middle
        magnified = SOURCE_MM / (SOURCE_MM - (y + size[1] / 2 + DETECTOR_MM))
        right, up = magnified * (x - y * np.tan(0.06)) - 6, magnified * z + 4
        assert column == pytest.approx(199.5 + right * np.cos(0.05) - up * np.sin(0.05), abs=3)
        assert row == pytest.approx(199.5 - up * np.cos(0.05) - right * np.sin(0.05), abs=3)
        assert brighter[row, column] > 10
