"""Shape programs: every primitive, transform and combinator of the library.

Distances are those of dense samples of the surface; gradients by points and parameters are central
differences in f64; the interpreter, LLVM and XLA agree.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wengert.frontend.program import library

import wengert as wg

RNG = np.random.default_rng(0)
BODY = "        translate(0.3, -0.2, 0.1): cuboid(1.1, 0.8, 1.3)\n"
FLAT = "        shift(0.9, 0.1): rectangle(0.8, 0.5)\n"
PAIR = BODY + "        translate(a[0], 0.2, -0.3): sphere(0.7)\n"

# Statements with `a`, a vector of parameters, and its values.
SOLIDS: dict[str, tuple[str, list[float]]] = {
    "cuboid": ("cuboid(a[0], a[1], a[2])", [1.2, 0.8, 1.5]),
    "rounded_box": ("rounded_box(a[0], a[1], a[2], a[3])", [1.2, 0.9, 1.5, 0.2]),
    "sphere": ("sphere(a[0])", [0.9]),
    "ellipsoid": ("ellipsoid(a[0], a[1], a[2])", [1.2, 0.8, 1.0]),
    "cylinder": ("cylinder(a[0], a[1])", [0.7, 1.4]),
    "cone": ("cone(a[0], a[1], a[2])", [0.9, 0.4, 1.4]),
    "capsule": ("capsule(a[0], a[1])", [0.5, 1.2]),
    "torus": ("torus(a[0], a[1])", [0.9, 0.3]),
    "plane": ("plane([a[0], a[1], a[2]], a[3])", [0.5, -0.4, 1.0, 0.2]),
    "rod": ("rod([a[0], a[1], 0.2], [0.8, -0.5, a[2]], a[3])", [-0.5, 0.4, 0.9, 0.3]),
}
PLANAR = {
    "circle": ("circle(a[0])", [0.8]),
    "rectangle": ("rectangle(a[0], a[1])", [1.2, 0.7]),
    "regular": ("regular(5, a[0])", [0.8]),
    "polygon": ("polygon([[a[0], -0.7], [0.9, a[1]], [-0.2, 0.2], [-0.9, 0.8]])", [-0.5, -0.5]),
}
TRANSFORMS = {
    "translate": ("translate(a[0], a[1], a[2]):\n" + BODY, [0.3, -0.4, 0.6]),
    "rotate": ("rotate([a[0], a[1], 0.7], a[2]):\n" + BODY, [0.3, -0.4, 0.9]),
    "euler": ("euler(a[0], a[1], a[2]):\n" + BODY, [0.3, -0.4, 0.9]),
    "turn_by": ("turn_by([[0.0, a[0], 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]):\n" + BODY, [-1.0]),
    "scale": ("scale(a[0]):\n" + BODY, [1.3]),
    "stretch": ("stretch(a[0], a[1], a[2]):\n" + BODY, [1.3, 0.9, 1.1]),
    "mirror": ("mirror([a[0], a[1], 0.3]):\n" + BODY, [1.0, 0.2]),
    "reflect": ("reflect([a[0], a[1], 0.3]):\n" + BODY, [1.0, 0.2]),
    "twist": ("twist(a[0]):\n" + BODY, [0.4]),
    "bend": ("bend(a[0]):\n" + BODY, [0.3]),
    "shear": ("shear(a[0], a[1]):\n" + BODY, [0.3, -0.2]),
    "polar": ("polar(5):\n        translate(a[0], 0.0, 0.0): sphere(a[1])\n", [1.1, 0.4]),
    "grid": ("grid(3, 2, 1, a[0]):\n        sphere(a[1])\n", [0.9, 0.3]),
    "extrude": ("extrude(a[0]):\n" + FLAT, [0.8]),
    "revolve": ("revolve():\n        shift(a[0], 0.1): circle(0.3)\n", [1.1]),
    "shift": ("extrude(1.0):\n        shift(a[0], a[1]): circle(0.6)\n", [0.4, -0.3]),
    "spin": ("extrude(1.0):\n        spin(a[0]):\n            rectangle(1.2, 0.5)\n", [0.7]),
    "offset": ("offset(a[0]):\n" + BODY, [0.2]),
    "shell": ("shell(a[0]):\n" + BODY, [0.2]),
}
COMBINATORS = {
    name: (f"{name}{arguments}:\n" + PAIR, [0.6, 0.4])
    for name, arguments in {
        "union": "",
        "intersection": "",
        "difference": "",
        "smooth_union": "(a[1])",
        "smooth_intersection": "(a[1])",
        "smooth_difference": "(a[1])",
        "blend": "(a[1])",
    }.items()
}
ALL = SOLIDS | PLANAR | TRANSFORMS | COMBINATORS


def field(statement: str, backend: str = "llvm", size: int = 3) -> Any:
    text = f"shape s(a: real[n]):\n    {statement}\n"
    text += f"fn d(p: real[m, {size}], a: real[n]): return distance(s(a), p)\n"
    text += f"fn total(p: real[m, {size}], a: real[n], w: real[m]): return sum(w * d(p, a))\n"
    return wg.compile(text, backend=backend, real="f64")


def size_of(name: str) -> int:
    return 2 if name in PLANAR else 3


def test_the_table_has_all_of_the_library() -> None:
    text = Path(library("shapes").root.path.replace("<stdlib>", "stdlib")).name
    source = (Path(__file__).parents[2] / "stdlib" / text).read_text()
    declared = re.findall(r"^(?:primitive|transform|combinator) (\w+)", source, re.M)
    assert set(declared) == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_central_differences(name: str) -> None:
    statement, values = ALL[name]
    program, a = field(statement, size=size_of(name)), np.array(values)
    p = RNG.normal(size=(60, size_of(name)))
    w = RNG.normal(size=60)
    step = 1e-6
    found_p, found_a = program.total.grad(p, a, w, wrt=("p", "a"))
    want_a = [
        (program.total(p, a + e, w) - program.total(p, a - e, w)) / (2 * step)
        for e in step * np.eye(len(a))
    ]
    np.testing.assert_allclose(found_a, want_a, rtol=2e-5, atol=2e-6)
    want_p = [
        (program.d(p + e, a) - program.d(p - e, a)) / (2 * step) for e in step * np.eye(p.shape[1])
    ]
    np.testing.assert_allclose(found_p, np.stack(want_p, 1) * w[:, None], rtol=2e-5, atol=2e-6)


EXACT = [n for n in (*SOLIDS, *PLANAR) if n not in ("ellipsoid", "plane")]


@pytest.mark.parametrize("name", EXACT)
def test_distances_are_those_of_the_surface(name: str) -> None:
    """Steps of the distance along the gradient end on the surface, and no surface is nearer."""
    statement, values = ALL[name]
    program, a, size = field(statement, size=size_of(name)), np.array(values), size_of(name)
    axis = np.linspace(-2.0, 2.0, 61 if size == 3 else 401)
    grid = np.stack(np.meshgrid(*[axis] * size, indexing="ij"), -1).reshape(-1, size)
    found = program.d(grid, a)
    cell = (axis[1] - axis[0]) * np.sqrt(size) / 2
    p = RNG.uniform(-1.8, 1.8, size=(200, size))
    d = program.d(p, a)
    for point, distance in zip(p, d):
        other = grid[(found <= 0) != (distance <= 0)]
        nearest = np.linalg.norm(other - point, axis=1).min()
        tips = 4 if name == "polygon" else 2  # sharp corners fall between the points of the grid
        assert nearest - tips * cell < abs(distance) <= nearest + 1e-9


@pytest.mark.parametrize("name", ALL)
def test_xla_agrees(name: str) -> None:
    statement, values = ALL[name]
    p = RNG.normal(size=(40, size_of(name)))
    ours, other = (
        field(statement, b, size_of(name)).d(p, np.array(values)) for b in ("llvm", "xla")
    )
    np.testing.assert_allclose(other, ours, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["mirror", "translate", "rotate", "shell"])
def test_transforms_by_points(name: str) -> None:
    """What a transform does to a body, by the body's own field."""
    statement, values = TRANSFORMS[name]
    p = RNG.normal(size=(50, 3))
    own = field("union:\n" + BODY)
    body = lambda q: own.d(q, np.zeros(1))
    got = field(statement).d(p, np.array(values))
    if name == "mirror":
        n = np.array([1.0, 0.2, 0.3]) / np.linalg.norm([1.0, 0.2, 0.3])
        other = p - 2 * np.outer(p @ n, n)
        want = np.where(p @ n >= 0, body(p), body(other))
    elif name == "translate":
        want = body(p - np.array(values))
    elif name == "shell":
        want = np.abs(body(p)) - 0.1
    else:
        from scipy.spatial.transform import Rotation

        axis = np.array([0.3, -0.4, 0.7])
        turn = Rotation.from_rotvec(0.9 * axis / np.linalg.norm(axis))
        want = body(turn.inv().apply(p))
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_combinators_by_their_members() -> None:
    p, a = RNG.normal(size=(300, 3)), np.array([0.6, 0.4])
    box = field("union:\n" + BODY).d(p, a)
    ball = np.linalg.norm(p - [0.6, 0.2, -0.3], axis=1) - 0.7
    want = {
        "union": np.minimum(box, ball),
        "intersection": np.maximum(box, ball),
        "difference": np.maximum(box, -ball),
        "blend": 0.6 * box + 0.4 * ball,
    }
    for name, expected in want.items():
        np.testing.assert_allclose(field(COMBINATORS[name][0]).d(p, a), expected, atol=1e-12)
    smooth = field(COMBINATORS["smooth_union"][0]).d(p, a)
    assert (smooth <= want["union"] + 1e-12).all() and (smooth >= want["union"] - 0.1).all()
    far = np.abs(box - ball) > 0.4
    np.testing.assert_allclose(smooth[far], want["union"][far])
