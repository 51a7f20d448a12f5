"""render.wg: rays, depths, normals, shading and outlines, and their derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from wengert.runtime.shapes.camera import Camera
from wengert.runtime.shapes.rays import View

import wengert as wg

TEXT = """
import render
import shape_losses

fn ball(p: real[3], r: real, c: real[3]) -> real: return sqrt(sum((p - c)^2)) - r
fn floor_(p: real[3], level: real) -> real: return p[2] - level
fn bumpy(p: real[3], r: real, k: real) -> real:
    return 0.5 * (sqrt(sum(p * p)) - r + k * sin(5.0 * p[0]) * sin(5.0 * p[1]))

fn rays(camera: render.Camera, rows: static int, columns: static int, wide: static bool):
    if wide:
        return render.perspective(camera, rows, columns)
    return render.orthographic(camera, rows, columns)
fn see(camera: render.Camera, r: real, c: real[3], rows: static int, columns: static int, wide: static bool):
    o, d = rays(camera, rows, columns, wide)
    return render.hits(lambda p: ball(p, r, c), o, d, 0.0, 20.0)
fn see_floor(camera: render.Camera, level: real):
    o, d = render.perspective(camera, 6, 5)
    return render.hits(lambda p: floor_(p, level), o, d, 0.0, 50.0)
fn see_bumps(o: real[m, 3], d: real[m, 3], r: real, k: real):
    return render.hits(lambda p: bumpy(p, r, k), o, d, 0.0, 20.0)
fn outline(o: real[m, 3], d: real[m, 3], r: real, c: real[3], temperature: real):
    return render.silhouette(lambda p: ball(p, r, c), o, d, 0.0, 20.0, temperature)
fn shade(o: real[m, 3], d: real[m, 3], r: real, k: real):
    return render.shaded(lambda p: bumpy(p, r, k), o, d, 0.0, 20.0, [1.0, 1.0, 2.0], 0.1)
fn soft(o: real[m, 3], d: real[m, 3], r: real, c: real[3]):
    return render.softly_shaded(lambda p: ball(p, r, c), o, d, 0.0, 20.0, [1.0, 1.0, 2.0], 0.1, 0.2)
fn seen_from(eye: real[3], height: real):
    camera = render.Camera(eye, [0.0, 0.0, 0.0], height)
    o, d = render.perspective(camera, 8, 8)
    return render.silhouette(lambda p: ball(p, 1.0, [0.1, 0.0, 0.0]), o, d, 0.0, 20.0, 0.1)
fn match(r: real, c: real[3], camera: render.Camera, target: real[h, w]) -> real:
    o, d = render.perspective(camera, h, w)
    picture = render.softly_shaded(lambda p: ball(p, r, c), o, d, 0.0, 20.0, [1.0, 1.0, 2.0], 0.05)
    return shape_losses.pyramid_error(reshape(picture, (h, w)), target, 3)
fn match_both(r: real, c: real[3], cameras: (render.Camera, render.Camera), targets: real[2, h, w]) -> real:
    return match(r, c, cameras[0], targets[0]) + match(r, c, cameras[1], targets[1])
fn show(r: real, c: real[3], camera: render.Camera, rows: static int):
    o, d = render.perspective(camera, rows, rows)
    picture = render.softly_shaded(lambda p: ball(p, r, c), o, d, 0.0, 20.0, [1.0, 1.0, 2.0], 0.05)
    return reshape(picture, (rows, rows))
"""
CAMERA = {"eye": [3.0, -2.0, 1.5], "target": [0.2, 0.1, 0.0], "height": 2.6}
CENTRE = np.array([0.1, -0.05, 0.2])
H = 1e-5


@pytest.fixture(scope="module")
def program():
    return wg.compile(TEXT, "lit.wg", real="f64")


def sphere(o, d, r, c):
    """Depth along rays to a sphere, and whether they meet it."""
    o = o - c
    b, inside = (o * d).sum(axis=1), (o * o).sum(axis=1) - r * r
    square = b * b - inside
    return -b - np.sqrt(np.maximum(square, 0)), square > 0


def slope(f, x):
    """Central differences of order 4."""
    return (8 * (f(x + H) - f(x - H)) - (f(x + 2 * H) - f(x - 2 * H))) / (12 * H)


def by_parameter(f, args, name, tangent):
    """The derivative along a tangent, the same in both modes."""
    forward = f.jvp(args, tangent, wrt=name)[1]
    out, pull = f.vjp(*args, wrt=name)
    if isinstance(out, np.ndarray):
        cotangent = np.cos(np.arange(out.size)).reshape(out.shape)
        both = np.sum(cotangent * forward), np.sum(pull(cotangent) * np.asarray(tangent))
        np.testing.assert_allclose(*both, rtol=1e-9)
    return forward


@pytest.mark.parametrize("wide", [True, False])
def test_rays_are_those_of_the_python_camera(program, wide):
    o, d = program.rays(CAMERA, rows=6, columns=9, wide=wide)
    camera = Camera(tuple(CAMERA["eye"]), tuple(CAMERA["target"]), CAMERA["height"], wide)
    y, x = (i.reshape(-1) + 0.5 for i in np.mgrid[0:6, 0:9])
    view = View(camera, 6, 9)
    start = view.points(x, y, np.zeros(54))
    ahead = view.points(x, y, np.ones(54)) - start
    np.testing.assert_allclose(o, start, atol=1e-12)
    np.testing.assert_allclose(d, ahead / np.linalg.norm(ahead, axis=1)[:, None], atol=1e-12)
    record = camera.record()
    np.testing.assert_allclose(program.rays(record, rows=6, columns=9, wide=wide)[1], d)


@pytest.mark.parametrize("wide", [True, False])
def test_ball(program, wide):
    o, d = program.rays(CAMERA, rows=30, columns=36, wide=wide)
    hits = program.see(CAMERA, 1.0, CENTRE, rows=30, columns=36, wide=wide)
    depth, found = sphere(o, d, 1.0, CENTRE)
    assert (hits["found"] != found).sum() <= 2 and 200 < found.sum() < 900
    clear = found & hits["found"] & ((hits["normals"] * d).sum(axis=1) < -0.1)
    np.testing.assert_allclose(hits["depth"][clear], depth[clear], atol=1e-10)
    np.testing.assert_allclose(hits["points"], o + hits["depth"][:, None] * d, atol=1e-12)
    np.testing.assert_allclose(hits["normals"][clear], hits["points"][clear] - CENTRE, atol=1e-9)
    assert (hits["depth"][~hits["found"]] == 20).all() and (
        hits["normals"][~hits["found"]] == 0
    ).all()


def test_floor(program):
    camera = {"eye": [3.0, -2.0, 0.5], "target": [0.0, 0.0, 0.4], "height": 6.0}
    hits = program.see_floor(camera, -0.5)
    o, d = program.rays(camera, rows=6, columns=5, wide=True)
    depth = (-0.5 - o[:, 2]) / d[:, 2]
    meets = (depth > 0) & (depth < 50)
    assert (hits["found"] == meets).all() and meets.any() and not meets.all()
    np.testing.assert_allclose(hits["depth"][meets], depth[meets], rtol=1e-9)
    np.testing.assert_allclose(hits["normals"][meets], [[0, 0, 1]] * meets.sum(), atol=1e-12)
    tangent = program.see_floor.jvp((camera, -0.5), 1.0, wrt="level")[1]
    np.testing.assert_allclose(tangent["depth"][meets], 1 / d[meets, 2], rtol=1e-9)
    assert (tangent["depth"][~meets] == 0).all()


def test_depth_and_normals_follow_the_surface(program):
    o, d = program.rays(CAMERA, rows=9, columns=9, wide=True)
    args = (o, d, 0.9, 0.1)
    base = program.see_bumps(*args)
    kept = base["found"] & ((base["normals"] * d).sum(axis=1) < -0.3)
    assert kept.sum() > 10
    for name, i in (("r", 2), ("k", 3)):
        got = program.see_bumps.jvp(args, 1.0, wrt=name)[1]
        for what in ("depth", "normals", "points"):

            def value(x, what=what, i=i):
                return program.see_bumps(*args[:i], x, *args[i + 1 :])[what]

            want = slope(value, args[i])
            np.testing.assert_allclose(got[what][kept], want[kept], rtol=2e-5, atol=2e-5)


def test_shading(program):
    o, d = program.rays(CAMERA, rows=7, columns=7, wide=False)
    args = (o, d, 0.9, 0.1)
    light = np.array([1, 1, 2]) / np.sqrt(6)
    seen = program.see_bumps(*args)
    want = np.where(seen["found"], 0.3 + 0.7 * np.maximum(seen["normals"] @ light, 0), 0.1)
    np.testing.assert_allclose(program.shade(*args), want, rtol=1e-12)
    kept = ~seen["found"] | ((seen["normals"] * d).sum(axis=1) < -0.3)
    got = by_parameter(program.shade, args, "k", 1.0)
    step = slope(lambda k: program.shade(o, d, 0.9, k), 0.1)
    np.testing.assert_allclose(got[kept], step[kept], rtol=1e-4, atol=2e-5)


def test_outline(program):
    o, d = program.rays(CAMERA, rows=12, columns=12, wide=True)
    got = program.outline(o, d, 0.8, CENTRE, 0.1)
    away = o - CENTRE
    gap = np.sqrt((away * away).sum(axis=1) - (away * d).sum(axis=1) ** 2) - 0.8
    np.testing.assert_allclose(got, 1 / (1 + np.exp(gap / 0.1)), atol=1e-6)
    want = got * (1 - got) / 0.1
    np.testing.assert_allclose(
        by_parameter(program.outline, (o, d, 0.8, CENTRE, 0.1), "r", 1.0),
        want,
        rtol=1e-5,
        atol=1e-9,
    )
    along = by_parameter(program.outline, (o, d, 0.8, CENTRE, 0.1), "c", np.array([1.0, 0, 0]))
    step = slope(lambda x: program.outline(o, d, 0.8, CENTRE + [x, 0, 0], 0.1), 0.0)
    np.testing.assert_allclose(along, step, rtol=1e-4, atol=1e-5)


def test_soft_pictures_and_cameras(program):
    o, d = program.rays(CAMERA, rows=8, columns=8, wide=True)
    got = by_parameter(program.soft, (o, d, 0.8, CENTRE), "r", 1.0)
    step = slope(lambda r: program.soft(o, d, r, CENTRE), 0.8)
    depth, found = sphere(o, d, 0.8, CENTRE)
    touch = ((o + depth[:, None] * d - CENTRE) * d).sum(axis=1) / 0.8
    kept = ~found | (touch < -0.2)
    np.testing.assert_allclose(got[kept], step[kept], rtol=1e-3, atol=2e-4)
    eye = np.array(CAMERA["eye"])
    got = by_parameter(program.seen_from, (eye, 2.6), "eye", np.array([0.0, 1.0, 0.0]))
    step = slope(lambda y: program.seen_from(eye + [0, y, 0], 2.6), 0.0)
    np.testing.assert_allclose(got, step, rtol=1e-3, atol=1e-5)


def test_a_picture_is_matched(program):
    cameras = (CAMERA, CAMERA | {"eye": [-2.0, -3.0, 1.0]})  # one sees no depth
    centre = np.array([0.2, -0.1, 0.1])
    targets = np.stack([program.show(0.7, centre, c, rows=20) for c in cameras])
    start = {"r": 1.0, "c": np.zeros(3)}
    data = {"cameras": cameras, "targets": targets}
    found = wg.fit(program.match_both, start, data=data, steps=150, optimizer=wg.adam(0.03))
    assert found.params["r"] == pytest.approx(0.7, abs=0.01)
    np.testing.assert_allclose(found.params["c"], centre, atol=0.02)


def test_backends_agree():
    values = []
    for backend in ("llvm", "xla", "interp"):
        program = wg.compile(TEXT, "lit.wg", backend=backend, real="f64")
        o, d = program.rays(CAMERA, rows=4, columns=4, wide=True)
        values.append(np.asarray(program.soft(o, d, 0.8, CENTRE)))
    for other in values[1:]:
        np.testing.assert_allclose(other, values[0], rtol=1e-9)
