"""Surfaces of fields as triangles: closed, manifold, measured, and as functions of parameters."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from wengert.runtime.shapes.cell_cases import EDGES, FACES, loops, table
from wengert.runtime.shapes.field import Field
from wengert.runtime.shapes.marching import TILE, crossings, triangles
from wengert.runtime.shapes.marching import loops as loops_of
from wengert.runtime.shapes.mesh import CutSurface, Mesh, NoSurface, UndefinedField, mesh

import wengert as wg

TEXT = """
import surfaces
import shape_losses

fn ball(p: real[3], r: real) -> real: return sqrt(sum(p * p)) - r
fn box(p: real[3], h: real[3], at: real[3] = [0.0, 0.0, 0.0]) -> real:
    return max(abs(p - at) - h)
fn egg(p: real[3], a: real, b: real) -> real:
    return (p[0] / a)^2 + (p[1] / b)^2 + p[2]^2 + 0.3 * p[0] * p[1] - 1.0
fn two(p: real[3], gap: real) -> real:
    return minimum(ball(p - [gap, 0.0, 0.0], 0.5), ball(p + [gap, 0.0, 0.0], 0.5))
fn gyroid(p: real[3], thick: real) -> real:
    x = 7.0 * p
    wave = sin(x[0]) * cos(x[1]) + sin(x[1]) * cos(x[2]) + sin(x[2]) * cos(x[0])
    return maximum(abs(wave) - thick, max(abs(p)) - 0.8)
fn half(p: real[3], level: real) -> real: return p[2] - level
fn bitten(p: real[3], r: real) -> real: return sqrt(p[0] - r)

fn moved(points: real[m, 3], a: real, b: real):
    return surfaces.vertices(lambda p: egg(p, a, b), points)
fn cloud_loss(a: real, b: real, points: real[m, 3], cloud: real[n, 3]) -> real:
    return shape_losses.chamfer(moved(points, a, b), cloud)
"""


@pytest.fixture(scope="module")
def program():
    return wg.compile(TEXT, "meshes.wg")


@pytest.fixture(scope="module")
def double():
    return wg.compile(TEXT, "meshes.wg", real="f64")


def test_every_case_cuts_off_the_inside_corners():
    assert loops(0) == loops(255) == []
    for case in range(256):
        crossed = {e for e, (a, b) in enumerate(EDGES) if (case >> a ^ case >> b) & 1}
        found = [e for loop in loops(case) for e in loop]
        assert sorted(found) == sorted(crossed)
    assert loops(1) == [(0, 4, 8)] or set(loops(1)[0]) == {0, 4, 8}
    assert {known.size for known in table()} == {3, 4, 5, 6, 7}


def test_no_triangle_has_a_diagonal_in_a_face_of_the_cell():
    faces = [{e for e, ends in enumerate(EDGES) if set(ends) <= set(f)} for f in FACES]
    for known in table():
        for loop, cut in zip(known.edges, known.triangles):
            sides = {frozenset(pair) for pair in zip(loop, np.roll(loop, 1))}
            for t in cut:
                for pair in itertools.combinations(loop[t], 2):
                    in_a_face = any(set(pair) <= f for f in faces)
                    assert frozenset(pair) in sides or not in_a_face


def whole(values):
    """All triangles of a grid of values, as a mesh in cells."""
    tiles = np.array(list(np.ndindex(*(-(-n // TILE) for n in values.shape))), np.int32)
    edges, cells = crossings(values, tiles)
    faces = np.concatenate([triangles(group) for group in loops_of(cells)])
    return Mesh(edges.at(np.full(len(edges.low), 0.5)), faces, np.zeros(len(faces), np.int32))


def fans(found):
    """For every vertex, whether the edges opposite to it in its faces are one ring."""
    following = {}
    for a, b, c in found.faces.tolist():
        for v, x, y in ((a, b, c), (b, c, a), (c, a, b)):
            following.setdefault(v, {})[x] = y
    for ring in following.values():
        start = next(iter(ring))
        at, count = ring[start], 1
        while at != start:
            at, count = ring[at], count + 1
        yield count == len(ring)


@pytest.mark.parametrize("seed", range(3))
def test_noise_has_a_closed_manifold_surface(seed):
    values = np.random.default_rng(seed).normal(size=(19, 11, 18)).astype(np.float32)
    values[[0, -1]] = values[:, [0, -1]] = values[:, :, [0, -1]] = 1
    found = whole(values)
    assert found.is_watertight()
    assert len(fanned := list(fans(found))) == len(found.vertices) and all(fanned)
    # Each inside point is an octahedron of volume 1/6 cut where it meets its neighbours.
    assert 0 < found.volume() < np.sum(values <= 0)


def test_a_single_point_is_an_octahedron():
    values = np.ones((12, 12, 12), np.float32)
    values[7, 8, 7] = -1
    found = whole(values)
    assert (len(found.vertices), len(found)) == (6, 8)
    assert found.volume() == pytest.approx(1 / 6)
    np.testing.assert_allclose(found.centre_of_mass(), [7, 8, 7])


def test_ball(program):
    for resolution, error in ((16, 2e-2), (64, 1.5e-3)):
        found = mesh(program.ball, resolution=resolution, r=1.5)
        assert found.is_watertight() and all(fans(found))
        assert found.volume() == pytest.approx(4.5 * np.pi, rel=error)
        assert found.surface_area() == pytest.approx(9 * np.pi, rel=error)
        np.testing.assert_allclose(found.centre_of_mass(), 0, atol=1e-4)
        np.testing.assert_allclose(
            np.linalg.norm(found.vertices, axis=1), 1.5, atol=1e-4 * 48 / resolution
        )
        outward = found.face_normals() * found.vertices[found.faces].mean(axis=1)
        assert (outward.sum(axis=1) > 0).all()


def test_box_keeps_edges_and_corners(program):
    half, at = np.array([0.7, 0.45, 0.2], np.float32), np.array([3.0, -1.0, 0.5], np.float32)
    found = mesh(program.box, resolution=37, h=half, at=at)
    assert found.is_watertight() and all(fans(found))
    assert found.volume() == pytest.approx(8 * half.prod(), rel=1e-4)
    a, b, c = half
    assert found.surface_area() == pytest.approx(8 * (a * b + b * c + a * c), rel=1e-4)
    np.testing.assert_allclose(found.centre_of_mass(), at, atol=1e-4)
    np.testing.assert_allclose(found.bounds(), [at - half, at + half], atol=2e-4)
    for corner in itertools.product((-1, 1), repeat=3):
        gap = np.linalg.norm(found.vertices - (at + half * corner), axis=1).min()
        assert gap < 1e-3
    blunt = mesh(program.box, resolution=37, sharp=False, h=half, at=at)
    assert blunt.is_watertight() and blunt.volume() < found.volume()


def test_two_pieces_and_many_tunnels(program):
    found = mesh(program.two, gap=1.0, resolution=50)
    assert found.is_watertight()
    assert found.volume() == pytest.approx(np.pi / 3, rel=1e-2)
    found = mesh(program.gyroid, thick=0.4, resolution=60)
    assert found.is_watertight() and all(fans(found))
    points = np.random.default_rng(0).uniform(-0.8, 0.8, (200_000, 3))
    share = np.mean(Field(program.gyroid, {"thick": 0.4}).values(points) <= 0)
    assert found.volume() == pytest.approx(share * 1.6**3, rel=1e-2)


def test_points_on_the_surface(program):
    found = mesh(program.box, resolution=16, h=[1.0, 0.5, 0.5])
    points = found.sample(20_000)
    np.testing.assert_allclose(np.max(np.abs(points) - [1, 0.5, 0.5], axis=1), 0, atol=1e-3)
    ends = np.mean(np.abs(np.abs(points[:, 0]) - 1) < 1e-3)
    assert ends == pytest.approx(2 / 10, abs=0.02)


def test_bounds_that_cut_the_shape_are_told_and_closed(program):
    with pytest.warns(CutSurface, match=r"cut the shape at x-, z\+"):
        found = mesh(program.ball, r=1.0, bounds=((-0.5, -2, -2), (2, 2, 0.25)), resolution=40)
    assert found.cut == ("x-", "z+") and found.is_watertight()
    np.testing.assert_allclose(found.vertices[:, 0].min(), -0.5, atol=1e-3)
    with pytest.warns(CutSurface):
        full = mesh(program.ball, r=9.0, bounds=(-1, 1), resolution=8)
    assert full.volume() == pytest.approx(8, rel=1e-3) and full.is_watertight()


def test_an_empty_shape_is_an_empty_mesh(program):
    for found in (mesh(program.ball, r=-1.0), mesh(program.ball, r=-1.0, bounds=(-1, 1))):
        assert len(found) == len(found.vertices) == 0
        assert found.volume() == found.surface_area() == 0 and found.is_watertight()
        for ask in (Mesh.bounds, Mesh.centre_of_mass, lambda mesh: mesh.sample(3)):
            with pytest.raises(NoSurface, match="empty mesh has no"):
                ask(found)


def test_bad_input(program):
    def fails(error, text, function, **options):
        with pytest.raises(error, match=text):
            mesh(function, **options)

    fails(UndefinedField, r"NaN at \(", program.ball, r=np.nan, bounds=(-1, 1))
    fails(UndefinedField, r"NaN at \(", program.bitten, r=0.0, bounds=(-1, 1))
    fails(wg.CallError, "no end along x", program.half, level=0.0)
    fails(wg.CallError, "misses 1 argument 'r'", program.ball)
    fails(wg.CallError, "no parameter 'size'", program.ball, r=1.0, size=3)
    for bounds in ((1, -1), 3, (0, np.nan), ((0, 0), (1, 1)), "ab", (0, (1, 1, 0))):
        fails(wg.CallError, "bounds are two corners", program.ball, r=1.0, bounds=bounds)
    for resolution in (0, -3, 2.5, True, 10**7, "fine"):
        fails(wg.CallError, "a number of cells", program.ball, r=1.0, resolution=resolution)
    fails(wg.CallError, "no field", program.moved, points=np.zeros((2, 3)), a=1.0, b=1.0)
    fails(wg.WengertError, "does not fit in memory", program.ball, r=1.0, resolution=4096)


def roots(function, points, normals, **parameters):
    """Where a field is 0 along lines: the way from points, by Newton's method."""
    way = np.zeros(len(points))
    for _ in range(30):
        step = 1e-6
        f, g = (
            np.array([function(q, **parameters) for q in points + (way + s)[:, None] * normals])
            for s in (0, step)
        )
        way -= f * step / (g - f)
    return way


def test_vertices_move_as_the_surface_does(double):
    found = mesh(double.egg, resolution=8, a=1.2, b=0.8)
    chosen = found.vertices[::9].astype(np.float64)
    normals = Field(double.egg, {"a": 1.2, "b": 0.8}).normals(chosen, 1e-3)
    for name, other in (("a", {"b": 0.8}), ("b", {"a": 1.2})):
        value, h = {"a": 1.2, "b": 0.8}[name], 1e-4
        ways = [
            roots(double.egg, chosen, normals, **{name: value + s * h}, **other) for s in (1, -1)
        ]
        want = ((ways[0] - ways[1]) / (2 * h))[:, None] * normals
        got = found.jvp({name: 1.0})[::9]
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
        direct = double.moved.jvp((chosen, 1.2, 0.8), 1.0, wrt=name)[1]
        np.testing.assert_allclose(direct, want, rtol=1e-4, atol=1e-5)


def test_gradient_of_a_loss_on_vertices(double):
    found = mesh(double.egg, resolution=8, a=1.2, b=0.8)
    cotangent = np.random.default_rng(0).normal(size=found.vertices.shape)
    pulled = found.vjp(cotangent)
    assert set(pulled) == {"a", "b"}
    for name in pulled:
        assert pulled[name] == pytest.approx(np.sum(cotangent * found.jvp({name: 1.0})))
    with pytest.raises(wg.CallError, match="by parameters of the shape"):
        found.jvp({"c": 1.0})


def test_chamfer_to_a_cloud_finds_the_shape(double):
    cloud = mesh(double.egg, resolution=40, a=1.0, b=0.7).sample(3000, seed=1)
    a, b = 1.2, 0.8
    for _ in range(12):
        points = mesh(double.egg, resolution=24, a=a, b=b, bounds=(-2, 2)).vertices
        grad = double.cloud_loss.grad(a, b, points, cloud, wrt=("a", "b"))
        a, b = a - 0.6 * grad[0], b - 0.6 * grad[1]
    assert (a, b) == (pytest.approx(1.0, abs=0.02), pytest.approx(0.7, abs=0.02))


SHAPES = """
shape table(width: real, height: real = 2.0):
    part("top", color="#b5835a"):
        translate(0, 0, height): cuboid(width, width, 0.25)
    for i in 0..4:
        rotate(z, i * 90deg):
            part("leg"):
                translate(width / 2 - 0.2, width / 2 - 0.2, height / 2): cylinder(0.15, height)

shape hollow(r: real):
    difference:
        sphere(1.0)
        sphere(r)
"""


@pytest.fixture(scope="module")
def shapes():
    return wg.compile(SHAPES, "solids.wg")


def test_parts_of_a_shape_program(shapes):
    found = mesh(shapes.table, width=3.0, resolution=60)
    assert found.names == ("top", "leg") and found.colours[0].tolist() == [0xB5, 0x83, 0x5A]
    assert found.is_watertight() and all(fans(found))
    legs = 4 * np.pi * 0.15**2 * (2 - 0.125)
    assert found.volume() == pytest.approx(9 * 0.25 + legs, rel=1e-2)
    centres = found.vertices[found.faces].mean(axis=1)
    assert (centres[found.parts == 0][:, 2] > 1.87).all()
    assert (centres[found.parts == 1][:, 2] < 1.9).all()
    np.testing.assert_allclose(found.bounds(), [[-1.5, -1.5, 0], [1.5, 1.5, 2.125]], atol=2e-3)


def test_volume_has_a_gradient_through_the_vertices(shapes):
    found = mesh(shapes.hollow, r=0.5, resolution=40)
    a, b, c = (found.vertices[found.faces[:, i]].astype(np.float64) for i in range(3))
    pull = np.zeros((len(found.vertices), 3))
    for i, (x, y) in enumerate(((b, c), (c, a), (a, b))):
        np.add.at(pull, found.faces[:, i], np.cross(x, y) / 6)
    assert found.vjp(pull)["r"] == pytest.approx(-4 * np.pi * 0.5**2, rel=0.01)
    assert found.volume() == pytest.approx(4 / 3 * np.pi * (1 - 0.5**3), rel=0.01)


def test_shapes_that_cannot_be_drawn(shapes):
    assert len(mesh(shapes.hollow, r=1.0, resolution=16)) == 0
    with pytest.raises(wg.shapes.InvalidShape, match="cannot draw 'cuboid'.*\n.*\n.*\n.*sides are"):
        mesh(shapes.table, width=-1.0)
    with pytest.raises(wg.CallError, match="misses 1 argument 'width'"):
        mesh(shapes.table)
