"""`assess`: choices summed out against sums over all of them, and maps against their Jacobians."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp
from wengert.frontend.type_errors import AddressMistake, SupportMistake
from wengert.ir.errors import WengertError
from wengert.passes.assess import EnumerationMistake

import wengert as wg

MODELS = """
model plate(n: static int):
    w ~ beta(2.0, 2.0)
    mu ~ normal(zeros(2), 3.0)
    b ~ bernoulli(0.3)
    for i in 0..n:
        z ~ bernoulli(w)
        y ~ normal(where(z, mu[1], mu[0]) + real(b), 1.0)

model chained():
    a ~ categorical([0.2, 0.3, 0.5])
    c ~ bernoulli(0.1 + 0.2 * real(a))
    d ~ bernoulli(0.6)
    y ~ normal(real(a) + 2.0 * real(c) * real(d), 0.7)
    e ~ bernoulli(0.5)
    v ~ normal(real(e), 1.0)

model branching():
    b ~ bernoulli(0.4)
    x ~ normal(0.0, 1.0)
    if b:
        k ~ categorical([0.5, 0.5])
        y ~ normal(x + real(k), 1.0)
    else:
        y ~ normal(-x, 2.0)

model part(m: real):
    z ~ bernoulli(0.25)
    y ~ normal(m + 3.0 * real(z), 1.0)
    return m

model nested(n: static int):
    x ~ normal(0.0, 1.0)
    one ~ part(x)
    for i in 0..n:
        many ~ part(one)

model vector():
    z ~ bernoulli([0.2, 0.9, 0.5])
    y ~ normal(sum(real(z)), 1.0)

fn plate_sum(n: static int, w, mu, y): return score(assess(plate(n), {w, mu, y}))
fn chained_sum(y, v): return score(assess(chained(), {y, v}))
fn branching_sum(x, y): return score(assess(branching(), {x, y}))
fn nested_sum(n: static int, x, y, ys): return score(assess(nested(n), {x, one: {y}, many: {y: ys}}))
fn vector_sum(y): return score(assess(vector(), {y}))
fn branching_slope(x, y): return grad(branching_sum, x, y)
"""
Y = np.array([0.3, -1.0, 2.2])


@pytest.fixture(scope="module", params=["llvm", "xla", "interp"])
def program(request: Any) -> wg.Program:
    return wg.compile(MODELS, real="f64", backend=request.param)


BOOLS = (False, True)


def brute(program: wg.Program, name: str, *args: Any, given: dict[str, Any], over: Any) -> float:
    """log sum of exp(logpdf) over all joint values of the choices that `over` lists."""
    model = getattr(program, name)
    values = [dict(zip(over, v)) for v in itertools.product(*over.values())]
    return float(logsumexp([float(model.logpdf({**given, **v}, *args)) for v in values]))


def test_choices_of_loops_are_summed_trip_by_trip(program: wg.Program) -> None:
    w, mu = 0.4, np.array([-1.0, 1.5])
    zs = [np.array(z) for z in itertools.product(BOOLS, repeat=3)]
    want = brute(program, "plate", 3, given={"w": w, "mu": mu, "y": Y}, over={"b": BOOLS, "z": zs})
    assert float(program.plate_sum(3, w, mu, Y)) == pytest.approx(want, rel=1e-10)


def test_choices_that_meet_are_summed_jointly(program: wg.Program) -> None:
    over = {"a": range(3), "c": BOOLS, "d": BOOLS, "e": BOOLS}
    want = brute(program, "chained", given={"y": 1.3, "v": 0.2}, over=over)
    assert float(program.chained_sum(1.3, 0.2)) == pytest.approx(want, rel=1e-10)


def test_branches_on_a_choice_that_is_summed_out(program: wg.Program) -> None:
    given = {"x": 0.3, "y": 1.1}
    values = [{"b": True, "k": 0}, {"b": True, "k": 1}, {"b": False, "k": 0}]
    joint = [float(program.branching.logpdf(given | v)) for v in values]
    assert float(program.branching_sum(0.3, 1.1)) == pytest.approx(logsumexp(joint), rel=1e-10)


def test_gradient_of_a_sum(program: wg.Program) -> None:
    h = 1e-6
    above, below = (float(program.branching_sum(x, 1.1)) for x in (0.3 + h, 0.3 - h))
    slope = float(program.branching_slope(0.3, 1.1))
    assert slope == pytest.approx((above - below) / (2 * h), rel=1e-6)


def test_choices_of_nested_programs(program: wg.Program) -> None:
    zs = [np.array(z) for z in itertools.product(BOOLS, repeat=3)]
    both = itertools.product(BOOLS, zs)
    values = [{"x": 0.2, "one": {"z": a, "y": 1.0}, "many": {"z": z, "y": Y}} for a, z in both]
    joint = [float(program.nested.logpdf(v, 3)) for v in values]
    assert float(program.nested_sum(3, 0.2, 1.0, Y)) == pytest.approx(logsumexp(joint), rel=1e-10)


def test_elements_of_an_array_are_summed_jointly(program: wg.Program) -> None:
    zs = [np.array(z) for z in itertools.product(BOOLS, repeat=3)]
    want = brute(program, "vector", given={"y": 1.2}, over={"z": zs})
    assert float(program.vector_sum(1.2)) == pytest.approx(want, rel=1e-10)


def test_choices_that_do_not_meet_cost_their_sum() -> None:
    """2^2000 joint values: the sum must go apart into 1000 pairs."""
    text = """
model many(n: static int):
    for i in 0..n:
        a ~ bernoulli(0.3)
        b ~ bernoulli(0.6)
        y ~ normal(real(a) + real(b), 1.0)
fn total(n: static int, y: real[n]): return score(assess(many(n), {y}))
"""
    program = wg.compile(text, real="f64")
    one = program.total(1, Y[:1])
    assert float(program.total(1000, np.full(1000, Y[0]))) == pytest.approx(1000 * one, rel=1e-9)


SUPPORTS = {
    "normal(zeros(3), 2.0)": (3, slice(None)),
    "gamma([2.0, 0.5], 1.0)": (2, slice(None)),
    "beta([2.0, 0.5], 1.5)": (2, slice(None)),
    "uniform(-1.0, [0.5, 2.0])": (2, slice(None)),
    "truncated_normal(0.0, [1.0, 2.0], 0.5, inf)": (2, slice(None)),
    "von_mises([0.0, 1.0], 2.0)": (2, slice(None)),
    "dirichlet([2.0, 1.0, 3.0])": (2, slice(0, 2)),
    "lkj_cholesky(3, 2.0)": (3, [3, 6, 7]),
}


@pytest.mark.parametrize("dist", SUPPORTS)
def test_score_of_free_numbers_has_the_log_determinant(dist: str) -> None:
    """log p(x) + log |det dx / du|, with the free coordinates of x as rows of dx / du."""
    size, coordinates = SUPPORTS[dist]
    text = f"""
model m():
    x ~ {dist}
fn onto(u): return assess(m(), {{}}, {{x: u}}).x
fn total(u): return score(assess(m(), {{}}, {{x: u}}))
fn slopes(u): return jacobian(onto, u)
"""
    program = wg.compile(text, real="f64")
    u = np.linspace(-0.8, 0.9, size)
    x = program.onto(u)
    slopes = np.asarray(program.slopes(u)).reshape(-1, size)[coordinates]
    want = program.m.logpdf({"x": x}) + np.linalg.slogdet(slopes)[1]
    assert float(program.total(u)) == pytest.approx(want, rel=1e-9)


DEPENDENT = """
model stick(n: static int):
    low ~ exponential(1.0)
    b ~ bernoulli(0.5)
    for i in 0..n:
        x ~ uniform(low, low + 2.0)
        z ~ bernoulli(0.2)
        y ~ normal(x + real(z) + real(b), 1.0)

fn run(n: static int, low, x, y):
    t = assess(stick(n), {y}, {low, x})
    return {choices: choices(t), score: score(t)}
"""


@pytest.mark.parametrize("backend", ["llvm", "xla"])
def test_bounds_that_are_choices_in_a_loop(backend: str) -> None:
    program = wg.compile(DEPENDENT, real="f64", backend=backend)
    u = np.array([0.3, -0.4])
    y = np.array([1.0, 0.5])
    out = program.run(2, -0.2, u, y)
    low, share = np.exp(-0.2), 1 / (1 + np.exp(-u))
    np.testing.assert_allclose(out["choices"]["low"], low, rtol=1e-12)
    np.testing.assert_allclose(out["choices"]["x"], low + 2 * share, rtol=1e-12)
    logdet = -0.2 + np.sum(np.log(2 * share * (1 - share)))
    given = {"low": low, "x": low + 2 * share, "y": y}
    zs = [np.array(z) for z in itertools.product(BOOLS, repeat=2)]
    want = brute(program, "stick", 2, given=given, over={"b": BOOLS, "z": zs}) + logdet
    assert float(out["score"]) == pytest.approx(want, rel=1e-10)


BAD: dict[str, tuple[type[WengertError], str, list[str]]] = {
    "model m():\n    k ~ poisson(2.0)\n    y ~ normal(real(k), 1.0)": (
        AddressMistake,
        "assess(m(), {y: 1.0})",
        ["the choice 'k' of the model 'm' is missing", "no finite list of values"],
    ),
    "model m():\n    x ~ normal(0.0, 1.0)\n    y ~ normal(x, 1.0)": (
        AddressMistake,
        "assess(m(), {y: 1.0})",
        ["the choice 'x' of the model 'm' is missing", "given or free"],
    ),
    "model m():\n    x ~ normal(0.0, 1.0)": (
        AddressMistake,
        "assess(m(), {x: 1.0}, {x: 0.5})",
        ["'x' is both given and free"],
    ),
    "model m():\n    z ~ bernoulli(0.5 * ones(13))\n    y ~ normal(sum(real(z)), 1.0)": (
        AddressMistake,
        "assess(m(), {y: 1.0})",
        ["'z' has too many values", "2^13", "in a 'for' loop"],
    ),
    "model m():\n    z ~ bernoulli(0.5)": (
        AddressMistake,
        "assess(m(), {}, {z: 0.5})",
        ["makes no choice called 'z'"],
    ),
    "distribution odd(a: real):\n    support even\n    fn sample(key): return a\n"
    "    fn logpdf(x): return x - a\n    fn reparam(key): return a\n"
    "model m():\n    x ~ odd(1.0)": (
        SupportMistake,
        "assess(m(), {}, {x: 0.5})",
        ["support that no unconstrained numbers are mapped to", "found: even"],
    ),
    "model m():\n    s = 0.0\n    for i in 0..3:\n        z ~ bernoulli(0.5)\n"
    "        y ~ normal(s, 1.0)\n        s = s + real(z)": (
        EnumerationMistake,
        "assess(m(), {y: ones(3)})",
        ["'z' of one trip reaches the next", "in its own trip only"],
    ),
    "model n():\n    z ~ bernoulli(0.5)\n    return real(z)\n"
    "model m():\n    sub ~ n()\n    y ~ normal(sub, 1.0)": (
        EnumerationMistake,
        "assess(m(), {y: 1.0})",
        ["'sub' is summed out where it is chosen", "'y'"],
    ),
    "model m():\n    z ~ bernoulli(0.5)\n    x ~ uniform(real(z), 2.0)": (
        EnumerationMistake,
        "assess(m(), {}, {x: 0.5})",
        ["the bounds of 'x' depend on 'z'"],
    ),
    "model m():\n    z ~ bernoulli(0.5)\n    s = real(z)\n    for i in 0..2:\n"
    "        x ~ uniform(s, 2.0)\n        s = 0.5 * s": (
        EnumerationMistake,
        "assess(m(), {}, {x: zeros(2)})",
        ["the bounds of 'x' depend on 'z'"],
    ),
    "model m():\n    z ~ bernoulli(0.5)\n    s = 0.0\n    for i in 0..2:\n"
    "        x ~ uniform(s, 2.0)\n        s = s + 0.1 * real(z)": (
        EnumerationMistake,
        "assess(m(), {}, {x: zeros(2)})",
        ["the bounds of 'x' depend on 'z'"],
    ),
    "model m():\n    z ~ bernoulli(0.5)\n    if z:\n        x ~ uniform(0.0, 2.0)": (
        EnumerationMistake,
        "assess(m(), {}, {x: 0.5})",
        ["the bounds of 'x' depend on 'z'"],
    ),
    "model n(a: real):\n    x ~ uniform(a, 2.0)\n"
    "model m():\n    z ~ bernoulli(0.5)\n    s ~ n(real(z))": (
        EnumerationMistake,
        "assess(m(), {}, {s: {x: 0.5}})",
        ["the bounds of 's/x' depend on 'z'"],
    ),
    "model m():\n"
    + "".join(f"    z{i} ~ categorical(ones(8))\n" for i in range(5))
    + "    y ~ normal(real(z0 + z1 + z2 + z3 + z4), 1.0)": (
        EnumerationMistake,
        "assess(m(), {y: 1.0})",
        ["too many joint values", "found: 32768"],
    ),
}


@pytest.mark.parametrize("models", BAD, ids=lambda m: m[:40])
def test_bad_use(models: str) -> None:
    kind, call, parts = BAD[models]
    with pytest.raises(kind) as caught:
        wg.compile(f"{models}\nfn f(): return score({call})\n").f()
    for part in parts:
        assert part in str(caught.value)
    assert "<text>:" in str(caught.value)


def test_a_carry_that_no_trip_reads_may_be_summed_out() -> None:
    text = """
model m():
    s = 0.0
    for i in 0..3:
        z ~ bernoulli(0.25)
        s = real(z)
        y ~ normal(s, 1.0)
fn total(y: real[3]): return score(assess(m(), {y}))
"""
    program = wg.compile(text, real="f64")
    zs = [np.array(z) for z in itertools.product(BOOLS, repeat=3)]
    want = brute(program, "m", given={"y": Y}, over={"z": zs})
    assert float(program.total(Y)) == pytest.approx(want, rel=1e-10)


def test_a_trace_outside_the_support_is_refused() -> None:
    text = """
guide wide():
    x ~ normal(0.0, 1.0)
model narrow():
    x ~ uniform(0.0, 1.0)
objective f():
    t ~ wide()
    return score(assess(narrow(), t))
"""
    with pytest.raises(SupportMistake, match="drawn with support real"):
        wg.compile(text).f(key=wg.key(0))
