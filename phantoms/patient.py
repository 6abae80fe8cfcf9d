"""Draw a phantom patient: body, findings, nodules and the trees of the lungs. Pure numpy."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from phantoms import tubes
from phantoms.canvas import Array
from phantoms.thorax import (
    CARDIOMEGALY,
    CONSOLIDATION,
    EFFUSION,
    LEFT,
    MASS,
    NODULE,
    PNEUMOTHORAX,
    RIGHT,
    SUPINE,
    UPRIGHT,
    Thorax,
    sample_thorax,
)

FINDING_SHARES = {CARDIOMEGALY: 0.25, EFFUSION: 0.22, PNEUMOTHORAX: 0.12, CONSOLIDATION: 0.22, MASS: 0.12}
HEALTHY_SHARE = 0.3
MAX_NODULES = 5
LARGEST_NODULE_MM = 30.0  # by definition: what is larger is a mass
SMALLEST_VISIBLE_MM = 10.0  # a smaller nodule hardly shows on an X-ray: it earns no label


@dataclass(frozen=True)
class Nodule:
    """A slightly irregular ball. The centre's frame is the patient's or, in a Phantom, that of its volume."""

    center_mm: tuple[float, float, float]
    diameter_mm: float
    waves: Array  # (4, 4): of the radius; three frequencies and a phase each

    def level(self, x: Array, y: Array, z: Array) -> Array:
        """About the signed distance to the surface in mm."""
        radius = np.float32(self.diameter_mm / 2)
        dx, dy, dz = (a - np.float32(c) for a, c in zip((x, y, z), self.center_mm, strict=True))
        ripple = np.float32(0)
        for fx, fy, fz, phase in (self.waves / [radius, radius, radius, 1]).astype(np.float32):
            ripple = ripple + np.sin(fx * dx + fy * dy + fz * dz + phase)
        return np.sqrt(dx * dx + dy * dy + dz * dz) - radius * (1 + np.float32(0.05) * ripple)


@dataclass(frozen=True)
class Patient:
    """Everything that a scan and the X-rays of one person share; in the patient's frame, mm."""

    thorax: Thorax
    nodules: tuple[Nodule, ...]
    vessels: tubes.Tube
    bronchi: tubes.Tube
    labels: frozenset[str]


def sample_patient(
    rng: np.random.Generator, findings: Collection[str] | None = None, nodule_count: int | None = None
) -> Patient:
    """Draw a patient.

    ``findings``: of FINDING_SHARES' keys; None draws them. ``nodule_count``: None draws 0..5. Body and size
    do not depend on these two: the same generator gives the same person with and without a finding.

    Raises:
        ValueError: a finding that phantoms do not have (nodules come by ``nodule_count``).
    """
    healthy = rng.random() < HEALTHY_SHARE
    drawn = {name for name, share in FINDING_SHARES.items() if rng.random() < share and not healthy}
    findings = drawn if findings is None else set(findings)
    if not findings <= FINDING_SHARES.keys():
        raise ValueError(f"findings {sorted(findings)}: phantoms have {', '.join(FINDING_SHARES)}")
    count = int(rng.integers(MAX_NODULES + 1))
    body_rng, nodule_rng, tree_rng = rng.spawn(3)
    thorax = sample_thorax(body_rng, findings)
    nodules = _sample_nodules(thorax, nodule_rng, count if nodule_count is None else nodule_count, MASS in findings)
    vessels, bronchi = tubes.lung_trees(thorax, tree_rng)
    labels = findings - {MASS} | {
        MASS if nodule.diameter_mm > LARGEST_NODULE_MM else NODULE
        for nodule in nodules
        if nodule.diameter_mm >= SMALLEST_VISIBLE_MM
    }
    return Patient(thorax, nodules, vessels, bronchi, frozenset(labels))


def _sample_nodules(thorax: Thorax, rng: np.random.Generator, count: int, mass: bool) -> tuple[Nodule, ...]:
    """``count`` nodules of 4..20 mm, most of them small, and a mass; apart from each other, all in the lung."""
    mass_mm = rng.uniform(33, 48)  # drawn in any case: the nodules must not depend on it
    diameters = [mass_mm] * mass + list(4 + 16 * rng.beta(1.0, 2.8, size=count))
    nodules: list[Nodule] = []
    for diameter in diameters:
        places = np.concatenate([tubes.places_in_lung(thorax, rng, side, 150) for side in (RIGHT, LEFT)])
        room = _room(thorax, places, visible=diameter >= SMALLEST_VISIBLE_MM)
        for other in nodules:
            gap = np.linalg.norm(places - other.center_mm, axis=1) - other.diameter_mm / 2 - 6
            room = np.minimum(room, gap)
        wanted = diameter / 2 + 3 if diameter < LARGEST_NODULE_MM else 0.4 * diameter + 5  # a mass may touch the pleura
        place = places[rng.choice(np.flatnonzero(room > wanted)) if (room > wanted).any() else np.argmax(room)]
        waves = np.concatenate([rng.uniform(-2.5, 2.5, (4, 3)), rng.uniform(0, 2 * np.pi, (4, 1))], axis=1)
        x, y, z = (float(v) for v in place)
        nodules.append(Nodule((x, y, z), float(diameter), waves))
    return tuple(nodules)


def _room(thorax: Thorax, places: Array, visible: bool) -> Array:
    """Distance in mm to whatever would hide a nodule: the lung's surface, fluid and consolidation.

    ``visible``: on a frontal X-ray, too; then heart and diaphragm must not lie before or behind it.
    """
    x, y, z = places.T.astype(np.float32)
    level = thorax.lung_level(x, y, z)
    for posture in (SUPINE, UPRIGHT):
        fluid = thorax.fluid_level(x, y, z, posture)
        if fluid is not None:
            level = np.maximum(level, -fluid)
    if thorax.consolidation is not None:
        level = np.maximum(level, 8 - thorax.consolidation.level(x, y, z))
    if visible:
        heart = thorax.heart
        level = np.maximum(level, np.where(x < 0, *thorax.dome_z) - z)
        level = np.maximum(level, -heart.level(x, np.full_like(y, heart.center[1]), z))
    return -level.astype(np.float64)
