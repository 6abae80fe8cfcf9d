"""Phantoms: tissues, nodules and findings are where they are said to be, in volumes, X-rays and files."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from scipy import ndimage

from datasets.lists import CHEST14_LABELS, read_list
from preprocess import crops
from preprocess.phantom_anatomy import Phantom, make_phantom, paint
from preprocess.phantom_patient import Patient, sample_patient
from preprocess.phantom_thorax import SUPINE, UPRIGHT
from preprocess.phantom_xray import DETECTOR_MM, SOURCE_MM, View, project, upright_phantom
from preprocess.phantoms import make_room, read_record, split, subset, write_scan
from utils.seeding import generator

ROOT = Path(__file__).resolve().parents[2]
COARSE = (2.5, 2.5, 2.5)
SCANS, PATIENTS, XRAYS, SIZE = 2, 4, 3, 96


def run(*flags: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "preprocess" / "phantoms.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def coordinates(phantom: Phantom) -> tuple[np.ndarray, ...]:
    """x, y and z of the voxels, in mm, ready to broadcast."""
    axes = [
        o + s * np.arange(n) for o, s, n in zip(phantom.origin_mm, phantom.spacing_mm, phantom.hu.shape, strict=True)
    ]
    return tuple(np.ix_(*axes))


def painted(seed: int, findings: set[str], posture: str = SUPINE, nodules: int = 0) -> tuple[Patient, Phantom]:
    patient = sample_patient(generator(seed, "patient"), findings, nodules)
    return patient, paint(patient, generator(seed, "paint"), COARSE, posture)


def litres(mask: np.ndarray, phantom: Phantom) -> float:
    return float(mask.sum() * np.prod(phantom.spacing_mm) / 1e6)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sample, made by two workers."""
    folder = tmp_path_factory.mktemp("phantoms")
    done = run("--save", folder / "here", "--scans", SCANS, "--patients", PATIENTS, "--xrays_per_patient", XRAYS,
               "--size", SIZE, "--workers", 2, cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(folder / "here") in done.stdout.splitlines()[-1]
    return folder / "here"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


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
    padded = [make_phantom(generator(n, "padding"), (4, 4, 8), (), 0).hu for n in range(8)]
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
    counts = {len(sample_patient(generator(0, "phantom", number)).nodules) for number in range(40)}
    assert counts == set(range(7)) or counts == set(range(6))  # 0..5 nodules, and perhaps a mass


def test_an_unknown_finding_is_an_error() -> None:
    with pytest.raises(ValueError, match="Hernia"):
        sample_patient(generator(0), {"Hernia"})


def test_nodules_are_soft_balls_of_their_diameter_in_lung() -> None:
    found = 0
    for number in range(2):
        phantom = make_phantom(generator(number, "balls"), (1.25, 1.25, 1.25), (), 5)
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
            found += 1
    assert found == 10


def test_preprocessing_finds_pairs_of_three_box_sizes() -> None:
    phantom = make_phantom(generator(0, "phantom", 1))
    volume = ndimage.zoom(phantom.hu.astype(np.float32), phantom.spacing_mm, order=1)
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
        image = project(upright_phantom(patient, generator(seed, "paint")), View(), 256).astype(float)
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
        with_nodule = upright_phantom(patient, generator(seed, "paint"))
        without = upright_phantom(replace(patient, nodules=()), generator(seed, "paint"))
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


# --- files


def test_world_coordinates_hold_for_both_directions(tmp_path: Path) -> None:
    hu = np.full((5, 6, 7), -1000, dtype=np.int16)
    hu[1, 4, 6] = 77
    phantom = Phantom(hu, (0.7, 0.7, 2.5), (-3.0, -8.0, 20.0), [], frozenset(), np.empty((0, 3)))
    for turned in (False, True):
        path = tmp_path / f"subset{int(turned)}" / "1.2.3.mhd"
        write_scan(path, phantom, np.array([10.0, 0.5, -300.0]), turned)
        scan = sitk.ReadImage(str(path))
        assert scan.GetSize() == (5, 6, 7)
        assert scan.GetSpacing() == (0.7, 0.7, 2.5)
        assert scan.GetDirection()[0] == (-1 if turned else 1)
        assert scan[scan.TransformPhysicalPointToIndex((7.7, -4.7, -265.0))] == 77


def test_annotations_lead_to_nodules_and_candidates_to_lung(sample: Path) -> None:
    scans = {path.stem: sitk.ReadImage(str(path)) for path in sample.glob("LUNA16/subset*/*.mhd")}
    assert len(scans) == SCANS
    assert sorted(path.parent.name for path in sample.glob("LUNA16/subset*/*.raw")) == ["subset0", "subset0"]
    assert all(uid.startswith("1.3.6.1.4.1.") and len(uid) <= 64 for uid in scans)
    annotations = rows(sample / "LUNA16" / "annotations.csv")
    assert list(annotations[0]) == ["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"]
    candidates = rows(sample / "LUNA16" / "candidates_V2.csv")
    assert list(candidates[0]) == ["seriesuid", "coordX", "coordY", "coordZ", "class"]

    def median_around(row: dict[str, str]) -> float:
        scan = scans[row["seriesuid"]]
        point = [float(row[f"coord{axis}"]) for axis in "XYZ"]
        i, j, k = scan.TransformPhysicalPointToIndex(point)
        return float(np.median(sitk.GetArrayViewFromImage(scan)[k, j - 1 : j + 2, i - 1 : i + 2]))

    assert all(-100 < median_around(row) < 150 for row in annotations)
    assert all(4 <= float(row["diameter_mm"]) <= 30 for row in annotations)
    assert sum(row["class"] == "1" for row in candidates) == len(annotations)
    empty = [row for row in candidates if row["class"] == "0"]
    assert {row["seriesuid"] for row in empty} == set(scans)
    assert np.mean([median_around(row) < -500 for row in empty]) > 0.75  # the others are vessels and findings


def test_xray_files_and_lists(sample: Path) -> None:
    lists = {name: read_list(sample / "Chest14" / f"chest_{name}.txt") for name in ("train", "valid", "test")}
    patients = {name: {image.partition("_")[0] for image in each.names} for name, each in lists.items()}
    assert [len(patients[name]) for name in lists] == [2, 1, 1]
    assert len(set.union(*patients.values())) == PATIENTS  # shared by none
    names = sorted(name for each in lists.values() for name in each.names)
    assert names == sorted(path.name for path in (sample / "Chest14" / "images").iterdir())
    assert names[:2] == ["00000001_000.png", "00000001_001.png"]
    modes = set()
    for name in names:
        with Image.open(sample / "Chest14" / "images" / name) as image:
            assert image.size == (SIZE, SIZE)
            modes.add(image.mode)
            assert np.array(image.convert("L")).std() > 30
    assert modes == {"L", "RGBA"}
    for each in lists.values():
        assert each.labels is not None
        for name, labels in zip(each.names, each.labels, strict=True):
            patient = sample_patient(generator(0, "phantom", int(name[:8])))
            assert patient.labels == {CHEST14_LABELS[i] for i in np.flatnonzero(labels)}


def test_same_seed_same_bytes_with_one_worker(sample: Path, tmp_path: Path) -> None:
    flags = ("--scans", SCANS, "--patients", PATIENTS, "--xrays_per_patient", XRAYS, "--size", SIZE)
    done = run("--save", tmp_path / "b", *flags, "--workers", 1)
    assert done.returncode == 0, done.stderr
    digests = [
        {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in root.rglob("*")
            if path.is_file()
        }
        for root in (sample, tmp_path / "b")
    ]
    assert digests[0] == digests[1]


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_phantoms_of_other_options_are_not_mixed_unless_asked_for(tmp_path: Path) -> None:
    small = ("--save", tmp_path, "--scans", 0, "--xrays_per_patient", 1, "--workers", 1, "--size")
    assert run(*small, 64, "--patients", 3).returncode == 0
    (tmp_path / "Chest14" / "images" / "mine.png").write_text("mine")
    before = files_in(tmp_path)
    for flags, words in (
        ((96, "--patients", 1), "--size 64, not 96"),
        ((96, "--patients", 1, "--seed", 1), "--seed 0, not 1; --size 64, not 96"),
    ):
        done = run(*small, *flags)
        assert done.returncode == 2
        assert done.stderr == (
            f"error: --save {tmp_path} holds phantoms made with other options ({words}); give another --save, or "
            "--replace to replace them\n"
        )
        assert files_in(tmp_path) == before
    more = run(*small, 64, "--patients", 4)  # the same persons and one more
    assert more.returncode == 0, more.stderr
    images = {name for name in before if name.startswith("Chest14/images")}
    assert all(files_in(tmp_path)[name] == before[name] for name in images)
    fewer = run(*small, 64, "--patients", 2)
    assert fewer.returncode == 0, fewer.stderr
    assert "holds 3 files that this run did not make" in fewer.stderr
    assert run(*small, 96, "--patients", 1, "--replace").returncode == 0
    assert sorted(path.name for path in (tmp_path / "Chest14" / "images").iterdir()) == ["00000001_000.png", "mine.png"]
    with Image.open(tmp_path / "Chest14" / "images" / "00000001_000.png") as image:
        assert image.size == (96, 96)
    assert json.loads((tmp_path / "phantoms.json").read_text())["patients"] == 1


def test_size_is_of_x_rays_alone(tmp_path: Path) -> None:
    flags = argparse.Namespace(save=tmp_path, scans=0, patients=2, xrays_per_patient=1, seed=0, size=64, replace=False)
    make_room(flags)
    flags.scans, flags.patients, flags.size = 3, 0, 512  # CT scans beside the X-rays, as scripts/finetune_example.sh
    make_room(flags)
    assert read_record(tmp_path) == {"scans": 3, "patients": 2, "xrays_per_patient": 1, "seed": 0, "size": 64}


def test_lists_and_subsets_share_out_patients_and_scans() -> None:
    assert {name: len(numbers) for name, numbers in split(0, 100).items()} == {"train": 70, "valid": 10, "test": 20}
    for patients in range(1, 30):
        parts = split(3, patients)
        assert sorted(number for numbers in parts.values() for number in numbers) == list(range(1, patients + 1))
        assert all(parts.values()) == (patients >= 3)
    assert [subset(number) for number in (1, 2)] == [0, 0]
    assert {subset(number) // 7 for number in range(1, 4)} == {0, 1}
    assert {subset(number) for number in range(1, 12)} == set(range(10))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--scans", "-1"), "--scans -1"),
        (("--scans", "0", "--patients", "0"), "nothing to make"),
        (("--size", "8"), "--size 8"),
        (("--seed", "-3"), "--seed -3"),
        (("--workers", "0"), "--workers 0"),
        (("--patient", "3"), "did you mean --patients"),
        (("--scans", "many"), "many"),
    ],
)
def test_bad_flags_are_one_line_and_nothing_is_written(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    done = run("--save", tmp_path / "new", *flags)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert message in line
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "Chest14").write_text("mine, too")
    for save in (tmp_path / "file" / "deeper", tmp_path / "taken"):
        done = run("--save", save, "--scans", 0, "--patients", 1, "--size", 64)
        assert done.returncode == 2
        (line,) = done.stderr.strip().splitlines()
        assert "--save" in line
        assert "Traceback" not in done.stderr
    assert (tmp_path / "taken" / "Chest14").read_text() == "mine, too"
