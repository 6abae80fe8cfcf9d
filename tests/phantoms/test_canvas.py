"""What phantoms are painted with: soft shapes, tubes, smooth noise, poses and trees."""

from __future__ import annotations

import numpy as np
import pytest

from phantoms.canvas import Canvas, Pose, SmoothNoise, smooth_max, smooth_min
from phantoms.thorax import Ellipsoid
from phantoms.tubes import MURRAY_EXPONENT, grow_tree, line

SPACING = (1.0, 1.5, 2.0)


def canvas(pose: Pose | None = None) -> Canvas:
    return Canvas((60, 48, 40), SPACING, (-30.0, -36.0, -40.0), pose or Pose(), edge_mm=1.5)


def volume_mm3(painted: Canvas) -> float:
    """Volume of what was painted with 0 HU into air."""
    return float((painted.hu.astype(np.float64) / 1000 + 1).sum() * np.prod(SPACING))


@pytest.mark.parametrize("radius", [0.4, 2.0, 6.0])
def test_a_tube_has_its_volume_and_is_painted_once(radius: float) -> None:
    painted = canvas()
    points, radii = line([(-18, -10, -20), (0, 5, 2), (16, 12, 18)], radius)
    length = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
    painted.tubes(points, radii, 0.0)
    expected = np.pi * radius**2 * length + 4 / 3 * np.pi * radius**3
    assert volume_mm3(painted) == pytest.approx(expected, rel=0.06 if radius > 1 else 0.6)
    once = painted.hu.copy()
    painted.tubes(np.empty((0, 3)), np.empty(0), 500.0)
    np.testing.assert_array_equal(painted.hu, once)
    assert painted.hu.max() <= 0.01


def test_tubes_may_leave_the_grid() -> None:
    painted = canvas()
    painted.tubes(*line([(-60, 0, 0), (60, 0, 0)], 3.0), 0.0)
    assert volume_mm3(painted) == pytest.approx(np.pi * 9 * 60, rel=0.06)


def test_a_turned_ellipsoid_has_its_volume_place_and_extent() -> None:
    turned, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))
    ellipsoid = Ellipsoid(np.array([3.0, -2.0, 4.0]), np.array([14.0, 9.0, 11.0]), turned)
    painted = canvas()
    painted.shape(ellipsoid.level, ellipsoid.center, 25.0, 0.0)
    assert volume_mm3(painted) == pytest.approx(4 / 3 * np.pi * 14 * 9 * 11, rel=0.03)
    inside = np.argwhere(painted.hu > -500)[:, ::-1] * SPACING + painted.origin_mm
    np.testing.assert_allclose(inside.mean(axis=0), ellipsoid.center, atol=0.2)
    lost = ellipsoid.extent() - np.ptp(inside, axis=0) / 2  # the surface lies between two voxels
    assert ((lost > 0) & (lost < SPACING)).all()


def test_a_pose_leads_there_and_back_and_moves_what_is_painted() -> None:
    pose = Pose(0.2, (0.02, -0.01))
    points = np.random.default_rng(1).uniform(-30, 30, (20, 3))
    x, y, z = pose.to_grid(points).T
    np.testing.assert_allclose(np.stack([*pose.to_patient(x, y, z), z], axis=1), points, atol=1e-4)
    painted = canvas(pose)
    place = np.array([10.0, -8.0, 15.0])
    painted.tubes(place[None], np.array([4.0]), 0.0)
    ball = canvas(pose)
    ball.shape(Ellipsoid(place, np.full(3, 4.0), np.eye(3)).level, place, 6.0, 0.0)
    np.testing.assert_allclose(painted.hu, ball.hu, atol=80)  # leaning shears the ball a little
    middle = np.argwhere(painted.hu > -500).mean(axis=0)[::-1] * SPACING + painted.origin_mm
    np.testing.assert_allclose(middle, pose.to_grid(place), atol=0.7)


def test_a_window_holds_what_is_asked_for() -> None:
    posed = canvas(Pose(0.3, (0.05, 0.02)))
    rows, columns = posed.window((-8, -10), (9, 11))
    for k in range(len(posed.z)):
        x, y = posed.patient_slice(k)
        wanted = (x > -8) & (x < 9) & (y > -10) & (y < 11)
        assert wanted.sum() == wanted[rows, columns].sum() > 0
    assert (rows.stop - rows.start) * (columns.stop - columns.start) < x.size


def test_noise_is_smooth_and_has_unit_size() -> None:
    large = Canvas((150, 140, 60), SPACING, (0.0, 0.0, 0.0), Pose(), 1.5)
    noise = SmoothNoise(np.random.default_rng(0), large, 12.0)
    volume = np.stack([noise.slice(k) for k in range(60)])
    assert volume.mean() == pytest.approx(0, abs=0.1)
    assert volume.std() == pytest.approx(1, abs=0.15)
    for axis in range(3):
        assert np.abs(np.diff(volume, axis=axis)).max() < 1.8 * 8 * 2 / 12  # a twelfth of the way a mm, at most


def test_rounded_union_and_intersection_are_sharp_far_from_the_edge() -> None:
    a, b = np.array([-30.0, 3.0, 5.0]), np.array([10.0, 3.0, -20.0])
    np.testing.assert_allclose(smooth_max(a, b, 8), [10, 5, 5])
    np.testing.assert_allclose(smooth_min(a, b, 8), [-30, 1, -20])


def test_a_tree_reaches_every_terminal_and_tapers_by_murrays_law() -> None:
    terminals = np.random.default_rng(2).uniform((20, -30, -30), (80, 30, 30), (90, 3))
    root = np.zeros(3)
    points, radii = grow_tree(root, terminals, tip_mm=0.5)
    distance = np.linalg.norm(points[:, None] - terminals, axis=-1).min(axis=0)
    np.testing.assert_allclose(distance, 0, atol=1e-9)
    near = np.linalg.norm(points, axis=1) < 1e-9
    assert near.any()
    flow = (radii[near] / 0.5) ** MURRAY_EXPONENT
    assert flow.sum() == pytest.approx(90)  # as much leaves the root as arrives
    assert radii.min() == pytest.approx(0.5)
