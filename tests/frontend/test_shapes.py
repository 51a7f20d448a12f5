"""Shape programs: what they mean, on every backend and in the interpreter, and their messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from wengert.frontend.program import compile_text
from wengert.frontend.specialize import specialize
from wengert.frontend.type_errors import ShapeMistake
from wengert.ir.errors import WengertError
from wengert.ir.interp import run
from wengert.ir.types import F64, I32, TensorType
from wengert.ir.verify import verify
from wengert.passes.shapes import shapes

import wengert as wg

P = np.random.default_rng(1).normal(size=(80, 3)) * 2

TABLE = """
shape table(width: real, high: real, top: real, leg: real):
    part("top", color="#b5835a"):
        translate(0, 0, high): cuboid(width, width, top)
    for i in 0..4:
        rotate(z, i * 90deg):
            part("leg"):
                at = width / 2 - leg
                translate(at, at, high / 2): cylinder(radius=leg, height=high)
"""

# Bodies of s(a: real, k: i32), all of which the interpreter runs op by op.
BODIES = {
    "loop": "for i in 0..3:\n        translate(a * real(i), 0, 0): sphere(0.5 + 0.1 * real(i))",
    "long_loop": "for i in 0..400:\n        translate(0.01 * a * real(i), 0, 0): sphere(0.5)",
    "carry": "r = 0.2\n    for i in 0..3:\n        r += 0.1 * a\n        translate(real(i), 0, 0): sphere(r)",
    "while": "r = 0.3\n    while r < a max 9:\n        translate(2 * r, 0, 0): sphere(r)\n        r += 0.3",
    "branch": "if a > 1.0:\n        sphere(a)\n    else:\n        cuboid(a, 1, 1)",
    "maybe": "sphere(0.5)\n    if k > 2:\n        part(\"odd\"):\n            cuboid(a, 1, 1)",
    "difference": "difference:\n        cuboid(2, 2, 2)\n        for i in 0..2:\n            translate(real(i), 0, 0): sphere(0.7)",
    "difference_maybe": "difference:\n        if k > 2:\n            cuboid(2, 2, 2)\n        sphere(a)",
    "nested": "part(\"all\"):\n        inner(a)\n        translate(0, 2, 0): inner(0.5 * a)",
    "field": "field(q) = q[0]^2 + a * q[1]^2 - q[2] - 1",
    "field_in": "scale(a): field(q) = abs(q[0]) + abs(q[1]) + abs(q[2]) - 1",
    "invalid": "sphere(0.5 - a)\n    cuboid(1, 1, 1)",
    "nothing": "if k > 9:\n        sphere(a)",
}  # fmt: skip
INNER = 'shape inner(r: real):\n    part("ball"): sphere(r)\n    cuboid(r, r, 3 * r)\n\n'


def program(body: str) -> str:
    return (
        f"{INNER}shape s(a: real, k: i32):\n    {body}\n\n"
        "fn f(p: real[m, 3], a: real, k: i32):\n"
        "    return distance(s(a, k), p), part_of(s(a, k), p), requirements(s(a, k))\n"
    )


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize(("a", "k"), [(1.3, 1), (0.8, 3)])
def test_the_pass_keeps_what_the_interpreter_says(name: str, a: float, k: int) -> None:
    args = {"p": TensorType(F64, P.shape), "a": TensorType(F64), "k": TensorType(I32)}
    module = specialize(compile_text(program(BODIES[name])), "f", args, F64).module
    verify(module)
    values = [P, np.array(a), np.array(k, np.int32)]
    want = run(module, values)
    plain = shapes(module)
    verify(plain)
    assert not any("shape." in str(op.name) for f in plain.functions.values() for op in f.body.ops)
    for got, expected in zip(run(plain, values), want):
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    for backend in ("llvm", "xla"):
        found = wg.compile(program(BODIES[name]), backend=backend, real="f64").f(P, a, k)
        np.testing.assert_allclose(found[0], want[0], rtol=1e-9, atol=1e-12)
        assert np.mean(np.asarray(found[1]) == want[1]) > 0.98  # ties may fall either way
        np.testing.assert_array_equal(found[2], want[2])


def test_a_table() -> None:
    text = TABLE + "fn d(p: real[m, 3], w: real): return distance(table(w, 4.0, 0.5, 0.3), p)\n"
    found = wg.compile(text, real="f64").d(P * 2, 3.0)
    top = np.abs(P * 2 - [0, 0, 4.0]) - [1.5, 1.5, 0.25]

    def box(q: Any) -> Any:
        return np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(-1), 0)

    want = box(top)
    for x in (-1.2, 1.2):
        for y in (-1.2, 1.2):
            q = P * 2 - [x, y, 2.0]
            sides = [np.hypot(q[:, 0], q[:, 1]) - 0.3, np.abs(q[:, 2]) - 2.0]
            want = np.minimum(want, box(np.stack(sides, -1)))
    np.testing.assert_allclose(found, want, atol=1e-12)


GRAMMAR = """
shape post(r: real, square: bool):
    if square:
        cuboid(2 * r, 2 * r, 1.0)
    else:
        cylinder(r, 1.0)

objective loss(theta: real[2], p: real[n, 3], target: real[n]):
    square ~ bernoulli_logit(theta[0]) by {by}
    r = exp(theta[1])
    return mean(square_of(occupancy(post(r, square), p, 0.2) - target))

fn square_of(x): return x * x
"""


@pytest.mark.parametrize("by", ["enum", "reinforce", "mvd"])
def test_a_choice_of_primitives_has_a_gradient(by: str) -> None:
    """The gradient by the odds of a primitive and its size, against the exact expectation."""
    theta, target = np.array([0.4, -0.5]), np.zeros(80)
    step = wg.compile(GRAMMAR.format(by=by), real="f64").loss.value_and_grad
    exact = wg.compile(GRAMMAR.format(by="enum"), real="f64").loss

    def value(t: Any) -> float:
        return float(exact(t, P, target, key=wg.key(0)))

    want = [(value(theta + e) - value(theta - e)) / 2e-5 for e in 1e-5 * np.eye(2)]
    if by == "enum":
        np.testing.assert_allclose(step(theta, P, target, key=wg.key(0))[1], want, rtol=1e-5)
        return
    draws = np.stack([step(theta, P, target, key=wg.key(i))[1] for i in range(2000)])
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - want) < 4.5 * error + 1e-12).all()


BAD = {
    "sphere(1.0): cuboid(1, 1, 1)": "a block cannot be drawn under this",
    "translate(1, 0, 0)": "this draws nothing",
    "circle(1.0)": "'circle' is a shape of 2 dimensions",
    "a + 1": "this draws nothing",
    "part(3): sphere(a)": "'part' does not take these arguments",
    "field(q) = q": "a field is one number at every point",
    "spher(1.0)": "nothing is called 'spher' here",
    "sphere()": "sphere",
}


@pytest.mark.parametrize("body", BAD)
def test_messages(body: str) -> None:
    with pytest.raises(WengertError) as caught:
        wg.compile(program(body)).f(P.astype(np.float32), 1.0, 1)
    assert BAD[body] in str(caught.value) and "<text>:6:" in str(caught.value)
    assert "^" in str(caught.value)
    if not body.startswith("sphe"):
        assert isinstance(caught.value, ShapeMistake) or "part" in body


@pytest.mark.parametrize("line", ["sphere(1.0)", "union:\n        sphere(1.0)"])
def test_only_shape_programs_draw(line: str) -> None:
    with pytest.raises(WengertError, match="not used|only shape programs draw|nothing is called"):
        wg.compile(f"fn f(x):\n    {line}\n    return x\n")


def test_tools_of_ones_own() -> None:
    text = """
primitive slab(thick: real):
    "Between two planes."
    require thick > 0.0, "the thickness is positive"
    fn distance(p: real[3]): return abs(p[2]) - thick / 2.0

transform up(by: real):
    fn back(p: real[3]): return p - [0.0, 0.0, by]

combinator average():
    fn join(a, b): return (a + b) / 2.0
    fn first(a, b): return true

shape s(t: real):
    average:
        up(1.0): slab(t)
        slab(t)

fn d(p: real[m, 3], t: real): return distance(s(t), p)
"""
    found = wg.compile(text, real="f64").d(P, 0.5)
    z = P[:, 2]
    np.testing.assert_allclose(found, (np.abs(z - 1) + np.abs(z)) / 2 - 0.25, atol=1e-12)
    with pytest.raises(WengertError, match="has no 'distance'"):
        wg.compile(text.replace("fn distance(p: real[3])", "fn distanc(p: real[3])"))
