"""grad, vjp, jvp, jacobian, hessian in the language, and rules of one's own.

Derivative ops run by central differences here: what is tested is what lowering asks for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from wengert.frontend.specialize import Static
from wengert.frontend.type_errors import DerivativeMistake
from wengert.ir.core import walk
from wengert.ir.types import F64

pytestmark = pytest.mark.usefixtures("differences")
X = np.array([0.5, -1.5, 2.0])
CLOSE = {"rtol": 1e-6, "atol": 1e-7}


def test_grad_in_every_form(run: Any) -> None:
    text = """
fn loss(x: f64[n], k: static int, y: f64 = 2.0): return sum(x ^ k) * y
fn f(x: f64[n], y: f64):
    scale = 3.0
    h = lambda v, w: sum(v * w) * scale
    a = grad(loss, x, 3)
    b = grad(loss)(x, k=2, y=y)
    c = grad(loss, x, 2, y, wrt=(0, "y"))
    d = grad(h, wrt="w")(x, x * y)
    e = grad(lambda v: v^3, 2)
    g = value_and_grad(loss, x, 2)
    return a, b, c, d, e, g
"""
    a, b, c, d, e, g = run(text, real=F64, x=X, y=5.0)
    np.testing.assert_allclose(a, 6 * X**2, **CLOSE)
    np.testing.assert_allclose(b, 10 * X, **CLOSE)
    np.testing.assert_allclose(c[0], 10 * X, **CLOSE)
    np.testing.assert_allclose(c[1], np.sum(X**2), **CLOSE)
    np.testing.assert_allclose(d, 3 * X, **CLOSE)
    np.testing.assert_allclose(e, 12, **CLOSE)
    np.testing.assert_allclose(g[0], 2 * np.sum(X**2), **CLOSE)
    np.testing.assert_allclose(g[1], 4 * X, **CLOSE)


def test_gradients_have_the_structure_of_the_argument(run: Any) -> None:
    text = """
record P:
    w: f64[n]
    b: (f64, f64[n])
fn loss(p: P, s: f64): return sum(p.w * p.b[1]) * s + p.b[0]^2
fn f(p: P):
    g = grad(loss, p, 2.0)
    p.w -= 0.5 * g.w
    return g, p
"""
    p = {"w": X, "b": (np.float64(3.0), X + 1)}
    g, updated = run(text, real=F64, p=p)
    np.testing.assert_allclose(g["w"], 2 * (X + 1), **CLOSE)
    np.testing.assert_allclose(g["b"][0], 6, **CLOSE)
    np.testing.assert_allclose(g["b"][1], 2 * X, **CLOSE)
    np.testing.assert_allclose(updated["w"], X - (X + 1), **CLOSE)


def test_grad_inside_loops_captures_what_is_around(run: Any) -> None:
    text = """
fn f(x: f64[n], steps: static int):
    target = x * 2
    p = 0
    for i in 0..steps:
        p -= 0.25 * grad(lambda q: sum((q - target)^2), p + zeros(n))
    rows = [grad(lambda q: q^2 * f64(i), v) for i, v in enumerate(x)]
    return p, rows
"""
    p, rows = run(text, real=F64, x=X, steps=Static(40))
    np.testing.assert_allclose(p, 2 * X, rtol=1e-5)
    np.testing.assert_allclose(rows, 2 * X * np.arange(3), **CLOSE)


def test_vjp_and_jvp(run: Any) -> None:
    text = """
fn g(x: f64[n], a: f64, i: i32): return (x^2 * a, i), a * sum(x)
fn f(x: f64[n]):
    (first, total), back = vjp(g, x, 2.0, 7)
    gx, ga = back(((x, 0), 1))
    _, one = vjp(lambda v: v * x, x)
    value, slope = jvp(g, (x, 2.0, 7), (x, 1))
    only, along = jvp(sin, x, 1)
    _, partly = jvp(g, (x, 2.0, 7), x, wrt=0)
    return first[0], first[1], total, gx, ga, one(x), value[1], slope, only, along, partly[1]
"""
    first, seven, total, gx, ga, one, value, slope, only, along, partly = run(text, real=F64, x=X)
    np.testing.assert_allclose(first, 2 * X**2)
    assert seven == 7
    np.testing.assert_allclose(total, 2 * X.sum())
    np.testing.assert_allclose(gx, 4 * X**2 + 2, **CLOSE)
    np.testing.assert_allclose(ga, np.sum(X**3) + X.sum(), **CLOSE)
    np.testing.assert_allclose(one, X**2, **CLOSE)
    np.testing.assert_allclose(value, 2 * X.sum())
    np.testing.assert_allclose(slope[0][0], 4 * X**2 + X**2, **CLOSE)
    assert slope[0][1] == 0
    np.testing.assert_allclose(slope[1], 3 * X.sum(), **CLOSE)
    np.testing.assert_allclose(only, np.sin(X))
    np.testing.assert_allclose(along, np.cos(X), **CLOSE)
    np.testing.assert_allclose(partly, 2 * X.sum(), **CLOSE)


def test_jacobian_and_hessian(run: Any) -> None:
    text = """
fn g(x: f64[n], m: f64[n, n]): return m @ x^2, sum(x)
fn f(x: f64[n], m: f64[n, n]):
    j, s = jacobian(g, x, m)
    h = hessian(lambda v: sum(v^3) + v[0] * v[1], x)
    by_m = jacobian(lambda q, r: q @ r, m, x, wrt=0)
    return j, s, h, by_m, hessian(lambda v: v^3)(2.0)
"""
    m = np.arange(9.0).reshape(3, 3)
    j, s, h, by_m, scalar = run(text, real=F64, x=X, m=m)
    np.testing.assert_allclose(j, m * 2 * X, **CLOSE)
    np.testing.assert_allclose(s, np.ones(3), **CLOSE)
    want = np.diag(6 * X)
    want[0, 1] = want[1, 0] = 1
    np.testing.assert_allclose(h, want, rtol=1e-2, atol=1e-2)  # differences of differences
    np.testing.assert_allclose(by_m, np.einsum("ij,k->ijk", np.eye(3), X), **CLOSE)
    np.testing.assert_allclose(scalar, 12, rtol=1e-2)


RULES = """
fn cube(x, k: static int): return x^k
fn cube_rule(x, k, t): return x^k, 100 * t
@jvp(cube_rule)
fn forward(x, k: static int): return cube(x, k)

fn pair_fwd(x, p, n): return (x * p.a, n + 1), (x, p)
fn pair_bwd(residuals, c): return c[0] * residuals[1].a, {a: c[0] * residuals[0]}
@vjp(pair_fwd, pair_bwd)
fn backward(x, p, n): return x * p.a, n + 1
"""


def test_rules_become_attributes_of_calls(lower: Any) -> None:
    text = (
        RULES
        + """
fn f(x: f64[m], n: i32):
    a = forward(x, 3) + forward(x, 3) + forward(x, 2)
    return grad(lambda v: sum(forward(v, 3)), x), a, backward(x, {a: x}, n)
"""
    )
    lowered = lower(text, real=F64, x=X, n=1)
    calls = [o for f in lowered.module.functions.values() for o in walk(f.body) if o.name == "call"]
    jvps = [o.attrs["jvp"] for o in calls if o.attrs["jvp"]]
    assert len(jvps) == 4 and len(set(jvps)) == 2
    rule = lowered.module.functions[jvps[0]]
    assert [str(p.type) for p in rule.params] == ["f64[3]", "f64[3]"]
    (call,) = [o for o in calls if o.attrs["fwd"]]
    fwd, bwd = (lowered.module.functions[call.attrs[k]] for k in ("fwd", "bwd"))
    assert [str(p.type) for p in fwd.params] == ["f64[3]", "f64[3]", "i32"]
    assert [str(r.type) for r in fwd.results] == ["f64[3]", "i32", "f64[3]", "f64[3]"]
    assert [str(p.type) for p in bwd.params] == ["f64[3]", "f64[3]", "f64[3]"]
    assert [str(r.type) for r in bwd.results] == ["f64[3]", "f64[3]"]


def test_a_rule_may_call_its_function_and_meet_integers(lower: Any, run: Any) -> None:
    text = """
fn rule(p, t): return power(p), {out: t.x * power(p).out, n: p.n}
@jvp(rule)
fn power(p): return {out: exp(p.x), n: p.n}
fn f(x: f64[m], n: i32): return power({x, n}).out
"""
    lowered = lower(text, real=F64, x=X, n=1)
    (call,) = [o for o in lowered.module.main.body.ops if o.name == "call"]
    rule = lowered.module.functions[call.attrs["jvp"]]
    assert [str(p.type) for p in rule.params] == ["f64[3]", "i32", "f64[3]"]
    assert [str(r.type) for r in rule.results] == ["f64[3]", "i32", "f64[3]"]
    body = lowered.module.functions["rule"].body
    inner = [o.attrs["jvp"] for o in walk(body) if o.name == "call"]
    assert inner == [call.attrs["jvp"]] * 2
    np.testing.assert_allclose(run(text, real=F64, x=X, n=1), np.exp(X))


def test_the_entry_keeps_its_rule(lower: Any) -> None:
    lowered = lower(RULES, "forward", real=F64, x=X, k=Static(3))
    (call,) = [o for o in lowered.module.main.body.ops if o.name == "call"]
    assert call.attrs["jvp"] in lowered.module.functions


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("@jvp(bad)\nfn g(x): return x\nfn bad(x, t): return x\n", "must return (value, tangent)"),
        ("@jvp(bad)\nfn g(x): return x\nfn bad(x, t): return x, 1\n", "the tangent of 'bad' has the wrong type"),
        ("@jvp(bad)\nfn g(x): return x\nfn bad(x): return x, x\n", "given 2 arguments"),
        ("@vjp(bad)\nfn g(x): return x\nfn bad(x): return x, x\n", "needs one derivative rule"),
        ("@vjp(fw, bad)\nfn g(x): return x\nfn fw(x): return x, x\nfn bad(r, c): return 1.0\n", "a cotangent for every"),
        ("@jvp(sin)\nfn g(x): return x\n", "a function of this file"),
    ],
)  # fmt: skip
def test_rules_that_do_not_fit(lower: Any, rule: str, message: str) -> None:
    with pytest.raises(DerivativeMistake) as caught:
        lower(rule + "fn f(x): return g(x)\n", real=F64, x=X)
    assert message in str(caught.value)


def test_a_rule_with_a_closure_argument_is_refused(lower: Any) -> None:
    text = """
fn rule(h, x, t): return h(x), t
@jvp(rule)
fn g(h, x): return h(x)
fn f(x: f64): return g(lambda v: v * x, x), g(sin, x)
"""
    with pytest.raises(DerivativeMistake, match="takes only declared functions"):
        lower(text, real=F64, x=1.0)
