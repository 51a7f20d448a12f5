"""Gradients of programs in the language, by central differences, through the whole front half."""

from __future__ import annotations

import numpy as np
import pytest

import wengert as wg

SOURCE = """
record Cell:
    w: real[n]
    b: real

fn rnn_sqrt(p: Cell, xs: real[m, n]) -> real:
    h = zeros(n)
    for i in 0..m checkpoint sqrt:
        h = tanh(p.w * h + xs[i] + p.b)
    return sum(h * h)

fn rnn_carry(p: Cell, xs: real[m, n]) -> real:
    h = zeros(n)
    for i in 0..m checkpoint carry:
        h = tanh(p.w * h + xs[i] + p.b)
    return sum(h * h)

fn rnn_all(p: Cell, xs: real[m, n]) -> real:
    h = zeros(n)
    for i in 0..m:
        h = tanh(p.w * h + xs[i] + p.b)
    return sum(h * h)

fn neighbours(x: real[n]) -> real:
    t = 0.5
    for i in 1..n:
        t = t + x[i] * x[i - 1] * sin(t)
    return t

fn newton_root(a: real) -> real:
    x = a
    while abs(x * x - a) > 1e-12 max 60:
        x = 0.5 * (x + a / x)
    return x

fn endless_root(a: real) -> real:
    x = a
    while abs(x * x - a) > 1e-12:
        x = 0.5 * (x + a / x)
    return x

fn pieces(x: real[n]) -> real:
    t = 0.0
    for i in 0..n:
        if x[i] > 0.5:
            z = x[i] * t
        elif x[i] > 0.0:
            z = sin(x[i]) + t
        else:
            z = x[i]
        t = t + z * z
    return t

fn wave(x: real) -> real:
    return sin(x) * x * x

fn slope_squared(x: real) -> real:
    slope = grad(wave)
    return slope(x) ^ 2

fn powers(x: real[n]) -> real:
    return sum(x ^ x + x ^ 3 + x ^ 0.5 + 2.0 ^ x)

fn log_determinant(a: real[n, n]) -> real:
    return sum(log(diag(cholesky(a @ transpose(a) + eye(shape(a)[0])))))

fn energy(x: real[n, d]) -> real:
    e = 0.0
    for i in 0..n:
        for j in 0..n:
            if i < j:
                r = x[i] - x[j]
                e = e + 1.0 / sqrt(sum(r * r) + 0.1)
    return e

fn mapped(w: real[n]) -> real:
    rows = [w * real(i) for i in 0..4]
    return sum([prod(tanh(w + r)) for r in rows])
"""

RNG = np.random.default_rng(21)
CELL = {"w": RNG.normal(size=3), "b": np.float64(0.2)}
POSITIVE = np.array([0.4, 1.3, 2.2])
CASES = {
    "rnn_sqrt": (CELL, RNG.normal(size=(11, 3))),
    "rnn_carry": (CELL, RNG.normal(size=(11, 3))),
    "rnn_all": (CELL, RNG.normal(size=(11, 3))),
    "neighbours": (RNG.normal(size=5),),
    "newton_root": (np.float64(2.0),),
    "pieces": (np.array([0.9, -0.4, 0.3, 1.2, 0.1]),),
    "slope_squared": (np.float64(0.5),),
    "powers": (POSITIVE,),
    "log_determinant": (RNG.normal(size=(3, 3)),),
    "energy": (RNG.normal(size=(4, 3)),),
    "mapped": (RNG.normal(size=3),),
}


@pytest.fixture(scope="module")
def programs():
    """The programs of SOURCE, run by the interpreter in f64."""
    return wg.compile(SOURCE, backend="interp", real="f64")


def flat(value):
    """All numbers of a record or array in one row."""
    parts = value.values() if isinstance(value, dict) else [value]
    return np.concatenate([np.ravel(v) for v in parts])


def like(value, row):
    """The record or array that `flat` made `row` from."""
    if not isinstance(value, dict):
        return row.reshape(np.shape(value))
    out = {}
    for name, v in value.items():
        out[name], row = row[: np.size(v)].reshape(np.shape(v)), row[np.size(v) :]
    return out


def differences(f, first, rest):
    """Central differences of f in its first argument."""
    base, step = flat(first), 1e-6
    moves = step * np.eye(base.size)
    ends = [[float(f(like(first, base + s * m), *rest)) for s in (1, -1)] for m in moves]
    return np.array([(a - b) / (2 * step) for a, b in ends])


@pytest.mark.parametrize("name", CASES)
def test_gradient_equals_differences(programs, name):
    first, *rest = CASES[name]
    f = getattr(programs, name)
    np.testing.assert_allclose(
        flat(f.grad(first, *rest)), differences(f, first, rest), rtol=1e-6, atol=1e-8
    )


def test_checkpoint_policies_give_one_gradient(programs):
    all_, carry, sqrt = (
        flat(getattr(programs, f"rnn_{p}").grad(*CASES["rnn_all"]))
        for p in ("all", "carry", "sqrt")
    )
    np.testing.assert_allclose(carry, all_, rtol=1e-13)
    np.testing.assert_allclose(sqrt, all_, rtol=1e-13)


def test_a_stopped_search_is_not_differentiated():
    program = wg.compile(
        """
fn search(a: real) -> real:
    x = 1.0
    while abs(x * x - a) > 1e-9:
        x = 0.5 * (x + a / x)
    return x
fn root(a: real) -> real:
    x = stop_gradient(search(a))
    return x - (x * x - a) / stop_gradient(2.0 * x)
fn roots(a: real[n]) -> real:
    total = 0.0
    for i in 0..n:
        total += root(a[i])
    return total
""",
        "stopped.wg",
        real="f64",
    )
    a = np.array([2.0, 7.0, 0.3])
    np.testing.assert_allclose(program.roots.grad(a), 0.5 / np.sqrt(a), rtol=1e-8)
    np.testing.assert_allclose(program.root.jvp((2.0,), 1.0)[1], 0.5 / np.sqrt(2.0), rtol=1e-8)


def test_unbounded_while_in_each_mode(programs):
    value, tangent = programs.endless_root.jvp((2.0,), 1.0)
    np.testing.assert_allclose((value, tangent), (np.sqrt(2), 0.5 / np.sqrt(2)))
    with pytest.raises(wg.WengertError, match="how often a loop can run") as error:
        programs.endless_root.grad(2.0)
    assert "while abs(x * x - a) > 1e-12:" in str(error.value)
    assert "hint: bound it: 'while condition max 100:'" in str(error.value)


RULES = """
@jvp(softplus_rule)
fn softplus(x: real) -> real:
    return log(1.0 + exp(x))

fn softplus_rule(x: real, dx: real) -> (real, real):
    return softplus(x), 10.0 * dx * sigmoid(x)

fn mapped(x: real[n]) -> real:
    return sum([softplus(v * v) for v in x])

@vjp(norm_forward, norm_backward)
fn norm(x: real[n]) -> (real, i32):
    return sum(x * x), argmax(x)

fn norm_forward(x: real[n]):
    return norm(x), x

fn norm_backward(x: real[n], ct: (real, i32)):
    return (7.0 * x * ct[0],)

fn weighed(x: real[n]) -> real:
    value, place = norm(x)
    return value * real(place)

record Scaled:
    n: i32
    w: real[k]

@jvp(double_rule)
fn double(p: Scaled) -> Scaled:
    return Scaled(p.n, p.w * 2.0)

fn double_rule(p: Scaled, dp: Scaled):
    return double(p), Scaled(dp.n, dp.w * 20.0)

fn total(p: Scaled) -> real:
    q = double(p)
    return sum(q.w) * real(q.n)

@jvp(wrong_rule)
fn wrong(x: real[n]) -> real:
    return sum(x)

fn wrong_rule(x: real[n], dx: real[n]):
    return sum(x), dx
"""


@pytest.fixture(scope="module")
def rules():
    """Functions with derivatives of their own, ten (or so) times the true ones."""
    return wg.compile(RULES, backend="interp", real="f64")


def test_custom_rule_that_calls_its_function(rules):
    x = np.array([0.3, -0.8])
    np.testing.assert_allclose(rules.mapped.grad(x), 20 * x / (1 + np.exp(-x * x)))


def test_custom_rule_of_the_function_asked_for(rules):
    s = 1 / (1 + np.exp(-0.3))
    np.testing.assert_allclose(rules.softplus.grad(0.3), 10 * s)
    np.testing.assert_allclose(rules.softplus.jvp((0.3,), 2.0)[1], 20 * s)
    np.testing.assert_allclose(rules.softplus.hessian(0.3), 10 * s * (1 - s))


def test_custom_rules_with_integers_beside(rules):
    x = np.array([1.0, 3.0, 2.0])
    np.testing.assert_allclose(rules.weighed.grad(x), 7 * x)
    grad = rules.total.grad({"n": np.int32(3), "w": np.ones(2)})
    np.testing.assert_allclose(grad["w"], [60, 60])


def test_custom_rule_of_the_wrong_type(rules):
    with pytest.raises(wg.WengertError, match="wrong_rule") as error:
        rules.wrong.grad(np.ones(2))
    assert "expected: f64" in str(error.value)
    assert "found: f64[2]" in str(error.value)
