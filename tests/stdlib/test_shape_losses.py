"""shape_losses.wg and the measures of surfaces.wg, against closed forms and NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import wengert as wg

TEXT = """
import shape_losses
import surfaces

fn ball(p: real[3], r: real, c: real[3]) -> real: return sqrt(sum((p - c)^2)) - r
fn egg(p: real[3], a: real) -> real: return (p[0] / a)^2 + p[1]^2 + p[2]^2 - 1.0

fn chamfer(a: real[n, 3], b: real[m, 3]) -> real: return shape_losses.chamfer(a, b)
fn nearest(a: real[n, d], b: real[m, d]): return shape_losses.nearest(a, b)
fn fit_ball(r: real, c: real[3], points: real[n, 3]) -> real:
    return shape_losses.to_surface(lambda p: ball(p, r, c), points)
fn fit_egg(a: real, points: real[n, 3]) -> real:
    return shape_losses.to_surface(lambda p: egg(p, a), points)
fn iou(a, b): return shape_losses.iou(a, b)
fn soft_iou(a, b): return shape_losses.soft_iou(a, b)
fn iou_loss(a: real[n, n], b: real[n, n]): return shape_losses.iou_loss(a, b)
fn occupancy(d: real[n], inside, t: real): return shape_losses.occupancy_loss(d, inside, t)
fn masked(a: real[h, w], b: real[h, w], mask: bool[h, w]): return shape_losses.masked_error(a, b, mask)
fn pyramid(a: real[h, w], b: real[h, w], levels: static int): return shape_losses.pyramid_error(a, b, levels)
fn halved(a: real[h, w]): return shape_losses.halved(a)

fn volume(r: real, c: real[3], low: real[3], high: real[3], n: static int):
    return surfaces.volume(lambda p: ball(p, r, c), low, high, n, 0.05)
fn centre(r: real, c: real[3], low: real[3], high: real[3], n: static int):
    return surfaces.centre_of_mass(lambda p: ball(p, r, c), low, high, n, 0.05)
fn area(r: real, c: real[3], low: real[3], high: real[3], n: static int):
    return surfaces.surface_area(lambda p: ball(p, r, c), low, high, n, 0.05)
fn to_egg(p: real[3], a: real): return surfaces.on_surface(lambda q: egg(q, a), p)
fn up(p: real[3], a: real): return surfaces.normal(lambda q: egg(q, a), p)
fn cells(low: real[3], high: real[3], n: static int): return surfaces.centres(low, high, n)
"""
LOW, HIGH = np.array([-1.5, -1.4, -1.6]), np.array([1.5, 1.7, 1.4])
CENTRE = np.array([0.1, 0.2, -0.15])


@pytest.fixture(scope="module")
def program():
    return wg.compile(TEXT, "losses.wg", real="f64")


def test_chamfer(program):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 3)), rng.normal(size=(25, 3))
    squared = ((a[:, None] - b) ** 2).sum(axis=-1)
    np.testing.assert_array_equal(program.nearest(a, b), squared.argmin(axis=1))
    want = squared.min(axis=1).mean() + squared.min(axis=0).mean()
    assert program.chamfer(a, b) == pytest.approx(want, rel=1e-12)
    assert program.chamfer(a, a) == 0
    grad = program.chamfer.grad(a, b)
    way = rng.normal(size=a.shape)
    steps = [program.chamfer(a + s * 1e-6 * way, b) for s in (1, -1)]
    assert np.sum(grad * way) == pytest.approx((steps[0] - steps[1]) / 2e-6, rel=1e-6)
    one = program.chamfer(np.zeros((1, 3)), np.ones((1, 3)))
    assert one == pytest.approx(6)
    with pytest.raises(wg.WengertError, match="a cloud needs a point"):
        program.chamfer(a, np.zeros((0, 3)))


def test_distance_to_a_surface(program):
    points = np.array([[2.0, 0, 0], [0, 0.5, 0], [0, 0, 1]])
    assert program.fit_ball(1.0, np.zeros(3), points) == pytest.approx((1 + 0.25) / 3)
    # To first order in the distance for a field that is none.
    near = np.array([[1.501, 0, 0], [0, 1.0, 0]])
    assert program.fit_egg(1.5, near) == pytest.approx(0.5e-6, rel=1e-2)
    cloud = np.random.default_rng(1).normal(size=(400, 3))
    cloud = CENTRE + 0.8 * cloud / np.linalg.norm(cloud, axis=1, keepdims=True)
    found = wg.fit(
        program.fit_ball, {"r": 1.0, "c": np.zeros(3)}, points=cloud, steps=300,
        optimizer=wg.adam(0.05),
    )  # fmt: skip
    assert found.params["r"] == pytest.approx(0.8, abs=1e-3)
    np.testing.assert_allclose(found.params["c"], CENTRE, atol=1e-3)


def test_intersection_over_union(program):
    rng = np.random.default_rng(2)
    a, b = rng.random((4, 5, 6)) < 0.5, rng.random((4, 5, 6)) < 0.3
    want = (a & b).sum() / (a | b).sum()
    assert program.iou(a, b) == pytest.approx(want)
    assert program.soft_iou(a.astype(float), b) == pytest.approx(want)
    none = np.zeros((2, 2), bool)
    assert program.iou(none, none) == program.soft_iou(none, none) == 1
    assert program.iou(none, ~none) == program.soft_iou(none, ~none) == 0
    p, q = rng.random((2, 3, 3))
    both = (p * q).sum()
    assert program.soft_iou(p, q) == pytest.approx(both / (p.sum() + q.sum() - both))
    grad = program.iou_loss.grad(p, q)
    step = np.zeros((3, 3))
    step[1, 2] = 1e-6
    want = (program.iou_loss(p + step, q) - program.iou_loss(p - step, q)) / 2e-6
    assert grad[1, 2] == pytest.approx(want, rel=1e-6)
    assert np.isfinite(program.iou_loss.grad(np.zeros((2, 2)), np.zeros((2, 2)))).all()


def test_occupancy_loss(program):
    d = np.array([-0.3, 0.2, 5.0, -200.0])
    inside = np.array([True, True, False, True])
    p = 1 / (1 + np.exp(d[:3] / 0.1))
    want = (-np.log(p[0]) - np.log(p[1]) - np.log1p(-p[2])) / 4
    assert program.occupancy(d, inside, 0.1) == pytest.approx(want, rel=1e-9)
    assert program.occupancy(np.full(2, 1e4), np.array([True, False]), 0.1) == pytest.approx(5e4)


def test_pictures(program):
    rng = np.random.default_rng(3)
    a, b = rng.random((2, 7, 6))
    mask = rng.random((7, 6)) < 0.5
    assert program.masked(a, b, mask) == pytest.approx(((a - b) ** 2)[mask].mean())
    assert program.masked(a, b, np.zeros((7, 6), bool)) == 0
    half = a[:6].reshape(3, 2, 3, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(program.halved(a), half)
    other = b[:6].reshape(3, 2, 3, 2).mean(axis=(1, 3))
    want = (((a - b) ** 2).mean() + ((half - other) ** 2).mean()) / 2
    assert program.pyramid(a, b, 2) == pytest.approx(want)
    assert program.pyramid(a, b, 1) == pytest.approx(((a - b) ** 2).mean())


def test_measures_of_a_ball(program):
    args = (0.9, CENTRE, LOW, HIGH)
    # A soft edge of a ball: the mean of r^3 over a logistic is r^3 + r (pi temperature)^2.
    volume = 4 / 3 * np.pi * (0.9**3 + 0.9 * (np.pi * 0.05) ** 2)
    assert program.volume(*args, n=48) == pytest.approx(volume, rel=1e-4)
    area = 4 * np.pi * (0.9**2 + (np.pi * 0.05) ** 2 / 3)
    assert program.area(*args, n=48) == pytest.approx(area, rel=1e-4)
    np.testing.assert_allclose(program.centre(*args, n=48), CENTRE, atol=1e-4)
    growth = 4 * np.pi * (0.9**2 + (np.pi * 0.05) ** 2 / 3)
    assert program.volume.grad(*args, n=48, wrt="r") == pytest.approx(growth, rel=1e-4)
    assert program.area.grad(*args, n=48, wrt="r") == pytest.approx(8 * np.pi * 0.9, rel=1e-3)
    moved = program.centre.jvp((*args, 48), np.array([1.0, 0, 0]), wrt="c")[1]
    np.testing.assert_allclose(moved, [1, 0, 0], atol=1e-3)


def test_cells_and_surfaces(program):
    centres = program.cells(np.zeros(3), np.array([2.0, 4.0, 1.0]), n=2)
    np.testing.assert_allclose(centres[0, 1, 1], [0.5, 3.0, 0.75])
    p = np.array([1.1, 0.3, 0.0])
    q = p
    for _ in range(6):
        q = program.to_egg(q, 1.3)
    assert (q[0] / 1.3) ** 2 + q[1] ** 2 == pytest.approx(1, abs=1e-12)
    normal = np.array([q[0] / 1.69, q[1], 0])
    np.testing.assert_allclose(program.up(q, 1.3), normal / np.linalg.norm(normal), rtol=1e-9)
    assert (program.up(np.zeros(3), 1.3) == 0).all()
    assert (program.to_egg(np.zeros(3), 1.3) == 0).all()
    assert np.isfinite(program.to_egg.jvp((np.zeros(3), 1.3), 1.0, wrt="a")[1]).all()
