"""Thorax phantoms: a volume in HU, different in every patient, with nodules at known places. Pure numpy.

``make_phantom(generator(seed, "phantom", number), spacing_mm=(1.3, 1.3, 2.0))`` draws a patient and paints
the scan; ``sample_patient`` and ``paint`` are its two halves, so that CT and X-rays can show one patient.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from phantoms import tubes
from phantoms.canvas import Array, Canvas, Level, Pose, SmoothNoise, smooth_max, soft
from phantoms.patient import Nodule, Patient, sample_patient
from phantoms.thorax import LEFT, RIGHT, SUPINE, UPRIGHT, Thorax, upright_ellipsoid

EMPTY_PLACES = 30
AIR, LUNG, FAT, MUSCLE, FLUID, CORTEX, MARROW = -1000.0, -850.0, -95.0, 48.0, 12.0, 800.0, 190.0


@dataclass(frozen=True)
class Phantom:
    """A painted patient.

    ``hu``: int16, shape (nx, ny, nz), axes to the patient's left, back and head. The centre of voxel
    (i, j, k) lies at ``origin_mm + spacing_mm * (i, j, k)``; the nodules' centres are in the same frame.
    ``labels``: the findings, in ChestX-ray14's words. ``lungs``: uint8, 1 where the pleural space is, as ``hu``.
    """

    hu: NDArray[np.int16]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    nodules: list[Nodule]
    labels: frozenset[str]
    empty_places_mm: NDArray[np.float64]  # (EMPTY_PLACES, 3): random places in the lungs, away from nodules
    lungs: NDArray[np.uint8]


def make_phantom(
    rng: np.random.Generator,
    spacing_mm: tuple[float, float, float] = (1.3, 1.3, 2.0),
    findings: Collection[str] | None = None,
    nodule_count: int | None = None,
    posture: str = SUPINE,
) -> Phantom:
    """Draw a patient and paint it, both from ``rng``: see :func:`sample_patient` and :func:`paint`."""
    return paint(sample_patient(rng, findings, nodule_count), rng, spacing_mm, posture)


def paint(
    patient: Patient,
    rng: np.random.Generator,
    spacing_mm: tuple[float, float, float],
    posture: str = SUPINE,
) -> Phantom:
    """Paint a patient: as a CT, or standing with hanging arms and without noise, to be projected as X-ray.

    ``spacing_mm`` is in the order x, y, z. A CT is square in x and y and wide enough for the chest; it has a
    table, noise and, in some scans, padding values outside of the circular field of view.
    """
    canvas = _canvas(patient.thorax, rng, spacing_mm, posture)
    lungs = _paint_organs(canvas, patient.thorax, rng, posture)
    _paint_tubes(canvas, patient, upright=posture == UPRIGHT)
    for nodule in patient.nodules:
        center = np.array(nodule.center_mm)
        canvas.shape(nodule.level, center, 0.7 * nodule.diameter_mm + 3, 45.0)
    if posture == SUPINE:
        _paint_table(canvas, patient.thorax, rng)
    hu = _scan(canvas, rng) if posture == SUPINE else np.rint(canvas.hu).astype(np.int16)
    moved = [
        replace(nodule, center_mm=tuple(canvas.pose.to_grid(np.array(nodule.center_mm)).tolist()))
        for nodule in patient.nodules
    ]
    empty = canvas.pose.to_grid(_empty_places(patient, rng))
    seen, inside = hu.transpose(2, 1, 0), lungs.transpose(2, 1, 0)
    return Phantom(seen, spacing_mm, canvas.origin_mm, moved, patient.labels, empty, inside)


def _empty_places(patient: Patient, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random places in both lungs, at least 8 mm from the surface of any nodule."""
    places = np.concatenate([tubes.places_in_lung(patient.thorax, rng, side, 200) for side in (RIGHT, LEFT)])
    for nodule in patient.nodules:
        apart = np.linalg.norm(places - nodule.center_mm, axis=1) > nodule.diameter_mm / 2 + 8
        places = places[apart]
    return rng.permutation(places)[:EMPTY_PLACES]


def _canvas(thorax: Thorax, rng: np.random.Generator, spacing: tuple[float, float, float], posture: str) -> Canvas:
    """The grid around the patient, and how they lie or stand in it."""
    turn, lean_x, lean_y = rng.uniform(-1, 1, 3)
    shift_x, shift_y, below, above = rng.uniform((-4, -4, 65, 12), (4, 8, 85, 28))
    width = max(334.0, 2 * thorax.body_half[0] + 14)
    extent = np.array([width, width, thorax.apex_z + above - (thorax.dome_z[0] - below)])
    middle = np.array([shift_x, shift_y + 8, (thorax.apex_z + above + thorax.dome_z[0] - below) / 2])
    pose = Pose(0.09 * turn, (0.05 * lean_x, 0.03 * lean_y))
    if posture == UPRIGHT:
        extent = np.array([440.0, 2 * thorax.body_half[1] + thorax.breast_mm + 10, 412.0])
        middle = np.array([0, -0.5 * thorax.breast_mm, thorax.apex_z - 126])
        pose = Pose(0.03 * turn, (0.03 * lean_x, 0.03 * lean_y))
    nx, ny, nz = (round(float(size)) for size in extent / spacing)
    origin = middle - (np.array([nx, ny, nz]) - 1) / 2 * spacing
    ox, oy, oz = (float(v) for v in origin)
    return Canvas((nx, ny, nz), spacing, (ox, oy, oz), pose, edge_mm=1.15 * spacing[0])


def _paint_organs(canvas: Canvas, thorax: Thorax, rng: np.random.Generator, posture: str) -> NDArray[np.uint8]:
    """Everything of a large size, slice by slice: small arrays stay in the processor's cache. -> the lungs."""
    lungs = np.zeros(canvas.hu.shape, np.uint8)
    coarse, fine = SmoothNoise(rng, canvas, 16.0), SmoothNoise(rng, canvas, 4.5)
    organs = _abdominal_organs(thorax, posture)
    chest = canvas.window(
        (-thorax.half_width - 12, -thorax.half_depth - 16), (thorax.half_width + 12, thorax.half_depth + 12)
    )
    for k, z in enumerate(canvas.z):
        view, (x, y) = canvas.hu[k], canvas.patient_slice(k)
        slow, fast = coarse.slice(k), fine.slice(k)
        _paint_trunk(canvas, view, thorax.body_levels(x, y, z, posture), thorax.fat_mm, slow, fast)
        view, x, y, slow, fast = (plane[chest] for plane in (view, x, y, slow, fast))
        cavity = thorax.cavity_level(x, y, z)
        loose = np.clip(0.45 + 0.5 * slow, 0, 1)
        canvas.blend(view, soft(cavity + 2, canvas.edge_mm), 38 - 130 * loose)
        if z < max(thorax.dome_z) + 2:
            below = np.maximum(z - thorax.dome(x, y), cavity) + 4
            for organ, hu in organs:
                canvas.blend(view, soft(np.maximum(organ(x, y, z), below), canvas.edge_mm), hu + 5 * slow)
        for part in (thorax.atria, thorax.heart):
            if abs(z - part.center[2]) < part.extent()[2] + 2:
                level = part.level(x, y, z)
                canvas.blend(view, soft(level, canvas.edge_mm), MUSCLE)
                canvas.blend(view, soft(level + 9, 4), thorax.blood_hu)
        lungs[k][chest] = _paint_lungs(canvas, view, thorax, (x, y, z), slow, fast, posture)
    return lungs


def _paint_trunk(
    canvas: Canvas, view: Array, levels: tuple[Array, Array], fat_mm: float, slow: Array, fast: Array
) -> None:
    """Skin, fat, and muscle with streaks of fat."""
    skin, trunk = levels
    edge = canvas.edge_mm
    canvas.blend(view, soft(skin, edge), 10.0)
    canvas.blend(view, soft(skin + 2, edge), FAT + 6 * slow)
    planes = np.clip(1.2 - 6 * np.abs(np.sin(0.19 * trunk + 0.9 * slow)) + 0.4 * fast, 0, 1)
    canvas.blend(view, soft(trunk + fat_mm * (1 + 0.15 * slow), edge), MUSCLE + 5 * slow - 110 * planes)


def _abdominal_organs(thorax: Thorax, posture: str) -> list[tuple[Level, float]]:
    """Liver, spleen, kidneys and a stomach with its bubble of gas; later ones lie over earlier ones."""
    right, left = thorax.dome_z
    scale = thorax.organ_scale

    def liver(x: Array, y: Array, z: Array) -> Array:
        return smooth_max(x - 22 * scale + 0.25 * (z - right + 40), y - 0.8 * thorax.half_depth, 15)

    def gas(x: Array, y: Array, z: Array) -> Array:
        top = z - (left - 4) if posture == UPRIGHT else -58 - y
        return np.maximum(stomach.level(x, y, z) + 5, -(top + np.float32(thorax.gas_mm)))

    stomach = upright_ellipsoid((48, -18, left - 48), (40 * scale, 40, 44 * scale))
    spleen = upright_ellipsoid((0.68 * thorax.half_width, 38, left - 62), (30, 36, 50 * scale))
    kidneys = [upright_ellipsoid((s * 58, 42, right - 118), (27, 25, 52)) for s in (-1, 1)]
    organs = [(liver, 58.0), (spleen.level, 50.0), *((kidney.level, 35.0) for kidney in kidneys)]
    return [*organs, (stomach.level, 28.0), (gas, AIR + 30)]


def _paint_lungs(
    canvas: Canvas,
    view: Array,
    thorax: Thorax,
    position: tuple[Array, Array, Array],
    slow: Array,
    fast: Array,
    posture: str,
) -> NDArray[np.bool_]:
    """Parenchyma with texture, fissures and consolidation; air and fluid of the pleural space. -> where that is."""
    x, y, z = position
    if z > thorax.top_z or z < min(thorax.dome_z) - 80:
        return np.zeros(view.shape, np.bool_)
    edge = canvas.edge_mm
    space = thorax.lung_level(x, y, z, collapsed=False)
    weight = 0.45 * y if posture == SUPINE else 0.0  # blood follows gravity
    tissue = LUNG + 16 * slow + 18 * fast + weight
    fissure = np.abs(z + 25 - 1.1 * y - 4 * slow)
    tissue = tissue + 130 * np.clip(1 - fissure / 1.6, 0, 1)
    patch = thorax.consolidation
    if patch is not None and abs(z - patch.center[2]) < patch.extent()[2] + 15:
        cover = soft(patch.level(x, y, z) + 5 * slow + 4 * fast, 9)
        tissue = tissue + cover * (-10 + 45 * fast - tissue)
    if thorax.pneumothorax is not None:
        lung = np.where(x * thorax.pneumothorax[0] > 0, thorax.lung_level(x, y, z), np.float32(-99))
        pleura = soft(np.abs(lung) - 0.6, edge)  # of the lung: a bright line
        tissue = AIR + 5 + soft(lung, edge) * (tissue - AIR + 50)
        tissue = tissue + 0.8 * pleura * (-150 - tissue)
    fluid = thorax.fluid_level(x, y, z, posture)
    if fluid is not None:
        tissue = tissue + soft(fluid, edge) * (FLUID - tissue)
    canvas.blend(view, soft(space, edge), tissue)
    return np.asarray(space < 0)


def _paint_tubes(canvas: Canvas, patient: Patient, upright: bool) -> None:
    """Vessels, airways and bones."""
    thorax = patient.thorax
    canvas.tubes(*tubes.great_vessels(thorax), thorax.blood_hu)
    canvas.tubes(*patient.vessels, thorax.blood_hu)
    for points, radii in (tubes.airways(thorax), patient.bronchi):
        canvas.tubes(points, radii + 0.4 + 0.12 * radii, 10.0)
        canvas.tubes(points, radii, AIR + 10)
    ribs, cartilages = tubes.ribs(thorax)
    canvas.tubes(*cartilages, 95.0, tall=1.5)
    _paint_bone(canvas, ribs, tall=1.5)
    _paint_bone(canvas, tubes.shoulder_girdle(thorax, upright))
    for number in range(-4, 19):  # thoracic vertebrae carry the ribs 1..12; they grow downwards
        height = tubes.rib_height(thorax, number) - 2
        if canvas.z[0] - 15 < height < canvas.z[-1] + 15:
            _paint_vertebra(canvas, thorax, height, size=14 + 0.38 * number)


def _paint_bone(canvas: Canvas, bone: tubes.Tube, tall: float = 1.0) -> None:
    """A shell of cortex around marrow."""
    canvas.tubes(*bone, CORTEX, tall)
    canvas.tubes(*tubes.shrink(bone, 1.7), MARROW, tall)


def _paint_vertebra(canvas: Canvas, thorax: Thorax, height: float, size: float) -> None:
    """A vertebral body of half width ``size`` with the disc around it, its canal and processes."""
    spine_x, spine_y = (float(v) for v in thorax.spine_xy(height))
    center = np.array([spine_x, spine_y, height])

    def column(x: Array, y: Array, z: Array) -> Array:
        waist = 1 - 0.09 * (1 - np.square((z - height) / (thorax.vertebra_pitch / 2)))
        return (np.hypot((x - spine_x) / waist, (y - spine_y) / (0.8 * waist)) - size).astype(np.float32)

    def part(half_height: float, inside: float) -> Level:
        return lambda x, y, z: np.maximum(column(x, y, z), np.abs(z - height) - half_height) + inside

    def canal(x: Array, y: Array, z: Array) -> Array:
        ring = np.hypot(x - spine_x, y - spine_y - 0.8 * size - 8) - 8.0
        return np.maximum(ring, np.abs(z - height) - thorax.vertebra_pitch / 2)

    half, reach = thorax.vertebra_pitch / 2, 36.0
    canvas.shape(part(half, 0), center, reach, 90.0)
    canvas.shape(part(half - 2.6, 0), center, reach, 0.65 * CORTEX)
    canvas.shape(part(half - 2.6, 1.6), center, reach, MARROW)
    _paint_bone(canvas, tubes.vertebral_processes(thorax, center))
    canvas.shape(canal, center, 40.0, 25.0)


def _paint_table(canvas: Canvas, thorax: Thorax, rng: np.random.Generator) -> None:
    """A curved table of two carbon shells with foam between, where the patient is not."""
    back = thorax.body_half[1] + rng.uniform(5, 9)
    curve, thickness = rng.uniform(700, 1100), rng.uniform(28, 50)
    x, y = canvas.x[None, :], canvas.y[:, None]
    depth = y + x * x / np.float32(curve) - np.float32(back)
    inside = soft(np.abs(depth - thickness / 2) - thickness / 2, canvas.edge_mm)
    shell = soft(np.minimum(np.abs(depth), np.abs(depth - thickness)) - 1.0, canvas.edge_mm)
    hu = AIR + 45 * inside + shell * 800
    np.maximum(canvas.hu, np.where(inside + shell > 0.05, hu, AIR), out=canvas.hu)


def _scan(canvas: Canvas, rng: np.random.Generator) -> NDArray[np.int16]:
    """What the scanner adds: noise that neighbours share, the limits of its numbers, perhaps padding."""
    deviation, padding = rng.uniform(8, 20), float(rng.choice((AIR, -1024, -2000, -2048, -3024)))
    radius_x, radius_y = (canvas.x - canvas.x.mean())[None, :], (canvas.y - canvas.y.mean())[:, None]
    outside = np.hypot(radius_x, radius_y) > (canvas.x[-1] - canvas.x[0]) / 2
    scan = np.empty(canvas.hu.shape, dtype=np.int16)
    for k, plane in enumerate(canvas.hu):
        noise = rng.standard_normal(plane.shape, dtype=np.float32)
        noise = noise + np.roll(noise, 1, axis=0) + np.roll(noise, 1, axis=1)
        plane = np.rint(plane + noise * np.float32(deviation / np.sqrt(3)))
        scan[k] = np.clip(plane, -1024, 3071)
        if padding != AIR:
            scan[k][outside] = padding
    return scan
