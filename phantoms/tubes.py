"""What is drawn as balls along lines in a phantom: bones, great vessels, and the trees in the lungs.

A part is a pair (points, radii) of shapes (N, 3) and (N,), in mm in the patient's frame, ready for
``Canvas.tubes``. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phantoms.thorax import LEFT, RIGHT, Thorax

Points = NDArray[np.floating]
Tube = tuple[Points, Points]

MURRAY_EXPONENT = 2.4  # radius ** exponent is what a branching keeps: Murray's law has 3, lungs about 2.5


def join(parts: Iterable[Tube]) -> Tube:
    """All balls of several parts."""
    points, radii = zip(*parts, strict=True)
    return np.concatenate(points), np.concatenate(radii)


def shrink(tube: Tube, wall_mm: float) -> Tube:
    """What is inside a wall of this thickness."""
    points, radii = tube
    keep = radii > wall_mm + 0.3
    return points[keep], radii[keep] - wall_mm


def line(knots: Sequence[ArrayLike] | Points, radii: ArrayLike, step_mm: float = 0.0) -> Tube:
    """A smooth curve through the knots (Catmull-Rom), its radius linear between them."""
    p = np.asarray(knots, dtype=np.float64)
    r = np.broadcast_to(np.asarray(radii, dtype=np.float64), len(p))
    step = step_mm or max(0.6, 0.35 * float(r.min()))
    padded = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    slopes = (padded[2:] - padded[:-2]) / 2
    return _curves(p[:-1], p[1:], slopes[:-1], slopes[1:], r[:-1], r[1:], step)


def _curves(
    start: Points, stop: Points, slope0: Points, slope1: Points, radius0: Points, radius1: Points, step: float | Points
) -> Tube:
    """Cubic Hermite curves, each sampled about every ``step`` mm."""
    counts = np.maximum(2, np.ceil(np.linalg.norm(stop - start, axis=1) / step).astype(int) + 1)
    which = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    t = ((np.arange(len(which)) - first[which]) / (counts - 1)[which])[:, None]
    points = (
        (1 + 2 * t) * (1 - t) ** 2 * start[which]
        + t * (1 - t) ** 2 * slope0[which]
        + t * t * (3 - 2 * t) * stop[which]
        + t * t * (t - 1) * slope1[which]
    )
    return points, radius0[which] + t[:, 0] * (radius1 - radius0)[which]


def grow_tree(root: Points, terminals: Points, tip_mm: float, balance: float = 0.35) -> Tube:
    """A tapering tree from ``root`` to every terminal.

    A minimum spanning tree that also keeps the paths to the root short (Cuntz et al., PLoS Computational
    Biology 6(8), 2010): each terminal, nearest first, joins the node for which the new branch plus
    ``balance`` times that node's path is shortest. Radii follow Murray's law, from ``tip_mm`` at the tips.
    """
    order = np.argsort(np.linalg.norm(terminals - root, axis=1))
    nodes = np.concatenate([root[None], terminals[order]])
    parent, path, load = (np.zeros(len(nodes), dtype=kind) for kind in (np.intp, np.float64, np.float64))
    for i in range(1, len(nodes)):
        reach = np.linalg.norm(nodes[:i] - nodes[i], axis=1)
        parent[i] = np.argmin(reach + balance * path[:i])
        path[i] = path[parent[i]] + reach[parent[i]]
    for i in range(len(nodes) - 1, 0, -1):
        load[i] += 1
        load[parent[i]] += load[i]
    radius = tip_mm * np.maximum(load, 1) ** (1 / MURRAY_EXPONENT)
    start, stop = nodes[parent[1:]], nodes[1:]
    length = np.linalg.norm(stop - start, axis=1, keepdims=True)
    heading = np.concatenate([np.zeros((1, 3)), (stop - start) / np.maximum(length, 1e-6)])
    slope0 = (0.5 * heading[parent[1:]] + 0.5 * heading[1:]) * length  # leave on the parent's course, then turn
    wide = np.minimum(radius[parent[1:]], 1.25 * radius[1:])
    return _curves(start, stop, slope0, heading[1:] * length, wide, radius[1:], step=np.maximum(0.9, 0.5 * radius[1:]))


def rib_height(thorax: Thorax, number: int) -> float:
    """Height at which rib ``number`` (1..12) leaves the spine."""
    return thorax.apex_z + 4 - thorax.vertebra_pitch * (number - 1)


def _contour(thorax: Thorax, angle: Points, z: Points, outside_mm: float) -> Points:
    """Points on the chest's contour: angle 0 is the back's midline, pi the sternum."""
    width, depth, middle = thorax.cavity_axes(z.astype(np.float32))
    width, depth = width + outside_mm, depth + outside_mm
    sin, cos = np.sin(angle), np.cos(angle)
    radius = (np.abs(sin / width) ** 2.5 + np.abs(cos / depth) ** 2.5) ** (-1 / 2.5)
    return np.stack([radius * sin, middle + radius * cos, z], axis=1)


def sternum_point(thorax: Thorax, share: float) -> Points:
    """A point of the sternum: share 0 is its upper end, 1 its lower."""
    z = thorax.apex_z - 38 - 145 * share
    return _contour(thorax, np.array([np.pi]), np.array([z]), 7)[0]


def ribs(thorax: Thorax) -> tuple[Tube, Tube]:
    """Twelve pairs of ribs that slant forward and down, and their cartilages up to the sternum."""
    bones, cartilages = [], []
    for number in range(1, 13):
        end = {1: 0.80, 11: 0.48, 12: 0.36}.get(number, 0.80 if number < 8 else 0.88 - 0.022 * number)
        t = np.linspace(0, 1, 150)
        angle = 0.30 + t * (end * np.pi - 0.30)
        drop = min(26 + 15 * number, 92) * end / 0.8
        z = rib_height(thorax, number) + 6 * np.sin(np.pi * np.minimum(3 * t, 1)) - drop * t**1.8
        outer = _contour(thorax, angle, z, 6)
        spine_x, spine_y = thorax.spine_xy(z[:1])
        joint = np.array([[spine_x[0] + 19, spine_y[0] + 9, z[0]]])
        for side in (RIGHT, LEFT):
            mirror = np.array([side, 1, 1])
            course = np.concatenate([joint, outer])[::6]
            bones.append(line(course * mirror, np.linspace(4.7, 3.3, len(course)), step_mm=2.2))
            if number < 11:
                goal = np.add(sternum_point(thorax, min(0.07 + 0.125 * (number - 1), 0.95)), (15, -1, 0))
                bow = np.add(0.45 * outer[-1] + 0.55 * goal, (-8, -7, -5))
                cartilages.append(line(np.stack([outer[-1], bow, goal]) * mirror, 4.0, step_mm=2.2))
    return join(bones), join(cartilages)


def shoulder_girdle(thorax: Thorax, upright: bool) -> Tube:
    """Sternum, clavicles, scapulae and, in a standing patient, the humeri."""
    top = sternum_point(thorax, 0)
    wide, apex = thorax.body_half[0], thorax.apex_z
    parts = [
        line(np.add([sternum_point(thorax, share) for share in (0, 0.3, 0.6, 1)], (x, 0, 0)), [6.5, 5.5, 5.5, 4])
        for x in (-14, -10, -6, -2, 2, 6, 10, 14)
    ]
    lift = 0 if upright else 14  # on the scanner's table the arms lie above the head
    for side in (RIGHT, LEFT):
        clavicle = [
            (side * 20, top[1] - 1, top[2] + 3),
            (side * 62, top[1] - 6, top[2] + 9 + 0.3 * lift),
            (side * 105, top[1] + 22, top[2] + 19 + 0.7 * lift),
            (side * (wide + 2), 12, apex - 14 + lift),
        ]
        parts.append(line(clavicle, [8, 6, 6, 7]))
        parts.append(_scapula(thorax, side, lift))
        if upright:
            shoulder, elbow = thorax.arm_axis(side)
            along = [shoulder + t * (elbow - shoulder) for t in (0, 0.06, 0.16, 1)]
            parts.append(line(along, [21, 20, 12, 11.5], step_mm=4))
    return join(parts)


def _scapula(thorax: Thorax, side: int, lift: float) -> Tube:
    """A triangular blade over the back ribs with a thick lateral border, and the spine that ends as acromion."""
    down, across = (a.ravel() for a in np.meshgrid(np.linspace(0, 1, 52), np.linspace(0, 1, 40)))
    z = thorax.apex_z - 22 + lift - 112 * down
    angle = 0.62 + across * (0.8 - 0.56 * down)
    # The chest narrows upwards, the blade does not: follow the contour of one middle height.
    level = np.full_like(z, thorax.apex_z - 75)
    blade = _contour(thorax, angle, level, 17)
    blade[:, 2] = z
    border = 1.6 + 2.6 * (across > 0.93)
    ridge = _contour(thorax, np.linspace(0.66, 1.35, 4), level[:4], 22)
    ridge[:, 2] = np.linspace(thorax.apex_z - 52, thorax.apex_z - 16, 4) + lift
    tip = np.array([[thorax.body_half[0] + 6, 14, thorax.apex_z - 12 + lift]])
    mirror = np.array([side, 1, 1])
    return join([(blade * mirror, border), line(np.concatenate([ridge, tip]) * mirror, [3, 3.5, 4, 5, 6])])


def vertebral_processes(thorax: Thorax, center: Points) -> Tube:
    """Arch, transverse and spinous processes of the vertebra whose body has this middle."""
    knots = [([[s * 12, 10, 3], [s * 13, 20, 2], [s * 34, 25, 6]], [4.5, 4.5, 3.5]) for s in (RIGHT, LEFT)] + [
        ([[-13, 20, 1], [0, 31, -3], [13, 20, 1]], [3, 3, 3]),
        ([[0, 31, -3], [0, 39, -13], [0, 47, -23]], [3.5, 3, 3.5]),
    ]
    return join(line(np.add(course, center), radii) for course, radii in knots)


def great_vessels(thorax: Thorax) -> Tube:
    """Aorta, superior vena cava and the branches of the pulmonary artery up to the hila."""
    heart, z = thorax.heart.center, thorax.apex_z - 105
    sx, sy = (float(v) for v in thorax.spine_xy(z))
    low = thorax.dome_z[0] - 120
    lx, ly = (float(v) for v in thorax.spine_xy(low))
    aorta = [
        (0, -18, heart[2] + 25), (-12, -32, z), (-8, -30, z + 38), (8, -10, z + 54), (25, 14, z + 44),
        (sx + 26, sy - 12, z + 10), (sx + 24, sy - 14, z - 40), (sx + 10, sy - 24, thorax.dome_z[0] - 40),
        (lx + 6, ly - 26, low),
    ]  # fmt: skip
    cava = [(-24, -12, heart[2] + 20), (-26, -16, z + 20), (-24, -16, z + 60), (-30, -12, z + 95)]
    brachiocephalic = [(-6, -26, z + 46), (-12, -14, z + 75), (-24, 0, z + 110), (-34, 8, z + 170)]
    carotid = [(8, -8, z + 52), (14, -2, z + 85), (24, 4, z + 120), (32, 8, z + 170)]
    trunk = [(18, -34, heart[2] + 25), (22, -30, z + 4), (16, -8, z + 16)]
    return join(
        [
            line(aorta, [14, 15, 14, 13.5, 13, 12.5, 12, 11, 10]),
            line(cava, 9),
            line(brachiocephalic, [7, 6, 5, 4]),
            line(carotid, [5, 4.5, 4, 4]),
            line(trunk, [13, 13, 11]),
            line([(16, -8, z + 16), (-8, -4, z + 2), hilum(thorax, RIGHT)], [10, 9, 7.5]),
            line([(16, -8, z + 16), (26, 4, z + 12), hilum(thorax, LEFT)], [10, 9, 7.5]),
        ]
    )


def hilum(thorax: Thorax, side: int) -> Points:
    """Where vessels and bronchi enter a lung; the left one lies higher."""
    return np.array([side * (thorax.mediastinum_mm + 7), 4, thorax.apex_z - (113 if side == RIGHT else 105)])


def airways(thorax: Thorax) -> Tube:
    """Lumen of the trachea and of the two main bronchi."""
    z = thorax.apex_z - 85
    fork = (0, 6, z)
    trachea = line([fork, (0, 4, z + 40), (0, -4, z + 90), (0, -12, z + 190)], 8)
    bronchi = [line([fork, np.add(hilum(thorax, s), (0, 3, 3))], [7.5, 6], step_mm=2) for s in (RIGHT, LEFT)]
    return join([trachea, *bronchi])


def lung_trees(thorax: Thorax, rng: np.random.Generator, terminals: int = 550) -> tuple[Tube, Tube]:
    """Vessels (an artery and a vein) and bronchi (lumen) in both lungs."""
    vessels, bronchi = [], []
    for side in (RIGHT, LEFT):
        root = hilum(thorax, side)
        ends = places_in_lung(thorax, rng, side, 2 * terminals)
        vessels.append(grow_tree(root, ends[:terminals], tip_mm=0.48))
        vessels.append(grow_tree(np.add(root, (side * -4, 6, -32)), ends[terminals:], tip_mm=0.48))
        near = ends[np.linalg.norm(ends - root, axis=1) < 75][:22]
        bronchi.append(grow_tree(np.add(root, (0, 3, 3)), near, tip_mm=1.1))
    return join(vessels), join(bronchi)


def places_in_lung(thorax: Thorax, rng: np.random.Generator, side: int, count: int) -> Points:
    """Random places in one lung, at least 5 mm below its surface."""
    found = np.empty((0, 3))
    low = (0, -thorax.half_depth - 10, min(thorax.dome_z) - 80)
    high = (thorax.half_width, thorax.half_depth, thorax.apex_z)
    while len(found) < count:  # a lung fills a third of its box
        tries = rng.uniform(low, high, (4 * count, 3)) * (side, 1, 1)
        x, y, z = tries.T.astype(np.float32)
        found = np.concatenate([found, tries[thorax.lung_level(x, y, z) < -5]])
    return found[:count]
