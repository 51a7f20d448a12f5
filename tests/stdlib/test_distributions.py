"""distributions.wg: densities, draws and their derivatives, against SciPy.

Draws pass a Kolmogorov-Smirnov or chi-square test of level 1e-6 on COUNT numbers at a fixed seed: a
distribution function wrong by 0.02 somewhere is found with probability above 0.999. Averages are
within five standard errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import integrate, special, stats

import wengert as wg

COUNT = 100_000
LEVEL = 1e-6


@dataclass(frozen=True)
class Case:
    """A distribution of one number: SciPy's of the same parameters, and parameters to try."""

    scipy: Callable[..., Any]
    parameters: dict[str, list[float]]
    pathwise: str = ""  # reparam or implicit
    weak: tuple[str, ...] = ()  # parameters with a measure-valued derivative
    whole: bool = False
    outside: float | None = None
    moments: bool = True


CASES: dict[str, Case] = {
    "normal": Case(stats.norm, {"loc": [0.0, -2.0, 5.0], "scale": [1.0, 0.3, 4.0]}, "reparam", ("loc", "scale")),
    "student_t": Case(stats.t, {"df": [0.8, 3.0, 40.0], "loc": [0.0, 1.0, -2.0], "scale": [1.0, 0.5, 3.0]}, "implicit"),
    "cauchy": Case(stats.cauchy, {"loc": [0.0, 3.0], "scale": [1.0, 0.5]}, "reparam", moments=False),
    "laplace": Case(stats.laplace, {"loc": [0.0, 3.0], "scale": [1.0, 0.5]}, "reparam", ("loc", "scale")),
    "logistic": Case(stats.logistic, {"loc": [0.0, 3.0], "scale": [1.0, 0.5]}, "reparam"),
    "half_normal": Case(lambda s: stats.halfnorm(0, s), {"scale": [1.0, 0.3]}, "reparam", ("scale",), outside=-0.1),
    "half_cauchy": Case(lambda s: stats.halfcauchy(0, s), {"scale": [1.0, 0.3]}, "reparam", outside=-0.1, moments=False),
    "log_normal": Case(lambda m, s: stats.lognorm(s, 0, np.exp(m)), {"loc": [0.0, -1.0], "scale": [0.3, 1.0]}, "reparam", outside=-0.1),
    "exponential": Case(lambda r: stats.expon(0, 1 / np.asarray(r)), {"rate": [1.0, 0.2, 30.0]}, "reparam", ("rate",), outside=-0.1),
    "gamma": Case(lambda a, r: stats.gamma(a, 0, 1 / np.asarray(r)), {"shape": [0.3, 1.0, 4.0, 500.0], "rate": [1.0, 0.5, 2.0, 100.0]}, "implicit", ("rate",), outside=-0.1),
    "inverse_gamma": Case(lambda a, s: stats.invgamma(a, 0, s), {"shape": [0.6, 2.5, 30.0], "scale": [1.0, 0.5, 2.0]}, "implicit", ("scale",), outside=-0.1),
    "uniform": Case(lambda a, b: stats.uniform(a, np.asarray(b) - a), {"low": [0.0, -3.0], "high": [1.0, 4.0]}, "reparam", ("low", "high"), outside=9.0),
    "beta": Case(stats.beta, {"a": [0.4, 1.0, 2.0, 300.0], "b": [0.7, 1.0, 5.0, 200.0]}, "implicit", outside=1.1),
    "truncated_normal": Case(
        lambda m, s, a, b: stats.truncnorm((np.asarray(a) - m) / s, (np.asarray(b) - m) / s, m, s),
        {"loc": [0.0, 1.0, 0.0, -1.0], "scale": [1.0, 2.0, 1.0, 0.5], "low": [-1.0, -np.inf, 5.0, -9.0], "high": [0.5, 0.0, np.inf, 9.0]},
        "reparam", outside=-10.0,
    ),
    "von_mises": Case(lambda m, k: stats.vonmises(k, m), {"loc": [0.0, 1.0, -0.5], "concentration": [0.5, 3.0, 80.0]}, "implicit", outside=4.0, moments=False),
    "bernoulli": Case(stats.bernoulli, {"p": [0.3, 0.99]}, weak=("p",), whole=True),
    "bernoulli_logit": Case(lambda l: stats.bernoulli(special.expit(l)), {"logit": [-1.0, 4.0]}, weak=("logit",), whole=True),
    "binomial": Case(stats.binom, {"n": [1, 12, 400], "p": [0.5, 0.2, 0.9]}, weak=("p",), whole=True, outside=-1),
    "geometric": Case(lambda p: stats.geom(p, -1), {"p": [0.6, 0.1]}, weak=("p",), whole=True, outside=-1),
    "poisson": Case(stats.poisson, {"rate": [0.2, 3.0, 200.0]}, weak=("rate",), whole=True, outside=-1),
    "negative_binomial": Case(stats.nbinom, {"count": [0.5, 4.0], "p": [0.3, 0.7]}, weak=("p",), whole=True, outside=-1),
}  # fmt: skip


def text(name: str, case: Case) -> str:
    names = ", ".join(case.parameters)
    typed = ", ".join(f"{p}: {'i32' if p == 'n' else 'real'}[m]" for p in case.parameters)
    made = f"distributions.{name}({names})"
    kind = "bool" if "bernoulli" in name else "i32" if case.whole else "real"
    one = ", ".join(f"e_{p}" for p in case.parameters)
    lines = [
        f"fn logpdf(x: {kind}[m], {typed}): return map(lambda v, {one}: distributions.{name}({one}).logpdf(v), x, {names})",
        f"fn total(x: {kind}[m], {typed}): return {made}.logpdf(x)",
        f"fn sample(k: key, {typed}): return {made}.sample(k)",
    ]
    if case.moments:
        lines += [f"fn {m}({typed}): return {made}.{m}()" for m in ("mean", "variance")]
    if case.pathwise:
        lines.append(f"fn pathwise(k: key, {typed}): return {made}.{case.pathwise}(k)")
    if case.weak:
        lines.append(f"fn mvd(k: key, {typed}): return {made}.mvd(k)")
    return "\n".join(lines) + "\n"


def arrays(case: Case, copies: int = 1, real: Any = np.float64) -> list[Any]:
    """Parameters, each set of them `copies` times in a row."""
    return [
        np.repeat(np.asarray(v, np.int32 if n == "n" else real), copies)
        for n, v in case.parameters.items()
    ]


def frozen(case: Case, i: int) -> Any:
    return case.scipy(*(v[i] for v in case.parameters.values()))


def points(name: str, case: Case) -> tuple[Any, list[Any]]:
    """Values over the bulk and the tails, and the parameters they go with."""
    u = np.array([1e-4, 0.02, 0.2, 0.5, 0.7, 0.95, 0.999])
    sets = len(next(iter(case.parameters.values())))
    x = np.concatenate([frozen(case, i).ppf(u) for i in range(sets)])
    x = np.angle(np.exp(1j * x)) if name == "von_mises" else x
    kind = bool if "bernoulli" in name else np.int32 if case.whole else np.float64
    return x.astype(kind), arrays(case, len(u))


def exact_logpdf(case: Case, x: Any, parameters: list[Any]) -> Any:
    d = case.scipy(*parameters)
    return d.logpmf(np.asarray(x, np.int64)) if case.whole else d.logpdf(x)


@pytest.mark.parametrize("name", CASES)
def test_density(library: Any, name: str) -> None:
    case = CASES[name]
    program = library(text(name, case))
    x, parameters = points(name, case)
    want = exact_logpdf(case, x, parameters)
    np.testing.assert_allclose(program.logpdf(x, *parameters), want, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(program.total(x, *parameters), want.sum(), rtol=1e-9)
    narrow = [np.asarray(v, np.float32) if v.dtype == np.float64 else v for v in (x, *parameters)]
    wide = [v.astype(np.float64) if v.dtype == np.float32 else v for v in narrow]
    single = library(text(name, case), real="f32").logpdf(*narrow)
    want = exact_logpdf(case, wide[0], wide[1:])
    seen = np.isfinite(want)  # a value may be rounded onto the end of its support
    np.testing.assert_allclose(np.asarray(single)[seen], want[seen], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", CASES)
def test_slopes_of_density(library: Any, name: str) -> None:
    case = CASES[name]
    program = library(text(name, case))
    x, parameters = points(name, case)
    names = [n for n in case.parameters if n != "n"]
    pull = program.total.vjp(x, *parameters, wrt=names)[1]
    for n, got in zip(names, pull(1.0)):
        at = list(case.parameters).index(n)
        # a step that is small, also beside the distance to a singularity, and keeps inside the support
        h = 1e-5 * np.minimum(
            np.abs(parameters[at]) + 1e-3, np.ones(1) if n != "p" else 1 - parameters[at]
        )
        moved = [[*parameters[:at], parameters[at] + s * h, *parameters[at + 1 :]] for s in (1, -1)]
        with np.errstate(all="ignore"):
            want = (exact_logpdf(case, x, moved[0]) - exact_logpdf(case, x, moved[1])) / (2 * h)
        good = np.isfinite(want)
        assert good.any()
        np.testing.assert_allclose(np.asarray(got)[good], want[good], rtol=2e-4, atol=2e-4)
        assert np.isfinite(got).all()
    if not case.whole:
        got = program.total.vjp(x, *parameters, wrt="x")[1](1.0)
        h = 1e-6 * np.minimum(np.abs(x) + (name != "beta") * 1e-3, 1 - x if name == "beta" else 1)
        want = (exact_logpdf(case, x + h, parameters) - exact_logpdf(case, x - h, parameters)) / (
            2 * h
        )
        good = np.isfinite(want)
        np.testing.assert_allclose(got[good], want[good], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.outside is not None])
def test_outside_the_support(library: Any, name: str) -> None:
    """The density is 0 there, and derivatives are not NaN."""
    case = CASES[name]
    program = library(text(name, case))
    parameters = arrays(case)
    x = np.full(len(parameters[0]), case.outside, np.int32 if case.whole else np.float64)
    density = np.asarray(program.logpdf(x, *parameters))
    out = exact_logpdf(case, x, parameters) == -np.inf if name != "von_mises" else True
    assert (np.isneginf(density) == out).all()
    names = [n for n in case.parameters if n != "n"] + ([] if case.whole else ["x"])
    for got in program.total.vjp(x, *parameters, wrt=names)[1](1.0):
        assert not np.isnan(got).any()


@pytest.mark.parametrize("name", CASES)
def test_draws(library: Any, name: str) -> None:
    case = CASES[name]
    program = library(
        text(name, case), real="f32" if name in ("gamma", "beta", "poisson") else "f64"
    )
    real = program.real.numpy
    x = program.sample(wg.key(3), *arrays(case, COUNT, real))
    assert x.dtype == (bool if "bernoulli" in name else np.int32 if case.whole else real)
    for i, draws in enumerate(np.asarray(x, np.float64).reshape(-1, COUNT)):
        exact = frozen(case, i)
        if case.whole:
            limit = int(exact.ppf(1 - 1e-12)) + 2
            cells = np.unique(exact.ppf(np.linspace(0.005, 0.995, 100)))
            edges = np.array([-np.inf, *cells, np.inf])
            p = np.diff(np.array([0, *exact.cdf(cells), 1]))
            o = np.histogram(draws, edges + 0.5)[0]
            seen = p * COUNT > 5
            statistic = ((o - p * COUNT)[seen] ** 2 / (p * COUNT)[seen]).sum()
            assert stats.chi2.sf(statistic, max(seen.sum() - 1, 1)) > LEVEL
            assert (o[~seen] < 40).all()
            assert draws.max() < limit
        else:
            cdf = (
                exact.cdf if name != "von_mises" else lambda v, i=i: _circle_cdf(frozen(case, i), v)
            )
            assert stats.kstest(draws, cdf).pvalue > LEVEL


def _circle_cdf(exact: Any, x: Any) -> Any:
    """SciPy's von Mises distribution function counts turns from -pi around the mean: from -pi instead."""
    grid = np.linspace(-np.pi, np.pi, 20001)
    table = np.concatenate([[0], integrate.cumulative_trapezoid(exact.pdf(grid), grid)])
    return np.interp(x, grid, table / table[-1])


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.moments])
def test_moments(library: Any, name: str) -> None:
    case = CASES[name]
    program = library(text(name, case))
    exact = case.scipy(*arrays(case))
    want = np.asarray(exact.mean())
    got = np.asarray(program.mean(*arrays(case)))
    if name == "student_t":
        want = np.where(np.asarray(case.parameters["df"]) > 1, want, np.nan)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    want = np.asarray(exact.var())
    if name == "student_t":
        want = np.where(np.asarray(case.parameters["df"]) > 1, want, np.nan)
    np.testing.assert_allclose(program.variance(*arrays(case)), want, rtol=1e-9)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.pathwise])
def test_pathwise_draws(library: Any, name: str) -> None:
    """The same draws as `sample`, with the derivative of the quantile at each draw's probability."""
    case = CASES[name]
    program = library(text(name, case))
    parameters = arrays(case, 40)
    key = wg.key(5)
    x = np.asarray(program.pathwise(key, *parameters))
    np.testing.assert_allclose(x, program.sample(key, *parameters), rtol=1e-14)
    u = case.scipy(*parameters).cdf(x)
    for i, n in enumerate(case.parameters):
        got = program.pathwise.jvp((key, *parameters), np.ones_like(x), wrt=n)[1]
        assert np.isfinite(got).all()
        if name == "von_mises" and n == "loc":
            np.testing.assert_array_equal(got, 1)
        if name == "von_mises" or (name == "student_t" and n == "df"):
            continue  # tests of the samplers compare these
        h = 1e-4 * np.where(np.isinf(parameters[i]), 1, np.abs(parameters[i]) + 1e-2)
        quantile = lambda s, i=i, h=h: case.scipy(
            *parameters[:i], parameters[i] + s * h, *parameters[i + 1 :]
        ).ppf(u)
        with np.errstate(all="ignore"):
            want = (8 * (quantile(1) - quantile(-1)) - quantile(2) + quantile(-2)) / (12 * h)
        kept = (u > 1e-3) & (u < 0.999) & np.isfinite(parameters[i])
        np.testing.assert_allclose(got[kept], want[kept], rtol=2e-5, atol=1e-7)
        backward = program.pathwise.vjp(key, *parameters, wrt=n)[1](np.ones_like(x))
        np.testing.assert_allclose(backward, got, rtol=1e-12)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.weak])
def test_weak_derivatives(library: Any, name: str) -> None:
    """c (E f(plus) - E f(minus)) is the derivative of E f by each parameter."""
    case = CASES[name]
    program = library(text(name, case))
    items = program.mvd(wg.key(7), *arrays(case, COUNT))
    assert len(items) == len(case.weak)
    sets = len(next(iter(case.parameters.values())))
    f = lambda v: special.expit(0.7 * np.asarray(v, float)) + 1 / (1 + np.asarray(v, float) ** 2)
    for n, (parameter, c, plus, minus) in zip(case.weak, items):
        at = list(case.parameters).index(n)
        np.testing.assert_array_equal(parameter, arrays(case, COUNT)[at])
        for i in range(sets):
            row = slice(i * COUNT, (i + 1) * COUNT)
            weight = np.broadcast_to(c, np.shape(plus))[row]
            each = weight * (f(plus[row]) - f(minus[row]))
            values = [v[i] for v in case.parameters.values()]
            want = _slope_of_mean(case, f, values, at)
            assert abs(each.mean() - want) < 5 * each.std() / np.sqrt(COUNT) + 1e-9, (
                n,
                i,
                each.mean(),
                want,
            )


NODES = np.polynomial.legendre.leggauss(600)


def _slope_of_mean(case: Case, f: Any, values: list[Any], at: int) -> float:
    h = 1e-4 * max(abs(values[at]), 0.1)
    h = min(h, (1 - values[at]) / 2) if case.whole and values[at] < 1 else h

    def mean(s: float) -> float:
        exact = case.scipy(*values[:at], values[at] + s * h, *values[at + 1 :])
        if case.whole:
            k = np.arange(int(exact.ppf(1 - 1e-13)) + 2)
            return float((exact.pmf(k) * f(k)).sum())
        u, w = NODES
        low, high = exact.ppf(1e-12), exact.ppf(1 - 1e-12)
        if case.scipy is CASES["uniform"].scipy:
            low, high = exact.support()
        if case.scipy is CASES["laplace"].scipy:  # a kink
            middle = exact.median()
            halves = [(low, middle), (middle, high)]
        else:
            halves = [(low, high)]
        total = 0.0
        for a, b in halves:
            if a >= 0 and b > 1e3 * max(a, 1e-300):  # a long tail or a pole: in log x
                a, b = np.log(max(a, 1e-300)), np.log(b)
                x = np.exp((a + b) / 2 + (b - a) / 2 * u)
                total += float((w * exact.pdf(x) * x * f(x)).sum() * (b - a) / 2)
            else:
                x = (a + b) / 2 + (b - a) / 2 * u
                total += float((w * exact.pdf(x) * f(x)).sum() * (b - a) / 2)
        return total

    return (mean(1) - mean(-1)) / (2 * h)


# Vectors

VECTORS = """
fn mvn_diag(x: real[n], loc: real[n], s: real[n]): return distributions.mvn_diag(loc, s).logpdf(x)
fn mvn(x: real[n], loc: real[n], cov: real[n, n]): return distributions.mvn(loc, cov).logpdf(x)
fn mvn_cholesky(x: real[n], loc: real[n], l: real[n, n]): return distributions.mvn_cholesky(loc, l).logpdf(x)
fn mvn_precision(x: real[n], loc: real[n], p: real[n, n]): return distributions.mvn_precision(loc, p).logpdf(x)
fn mvn_lowrank(x: real[n], loc: real[n], f: real[n, r], d: real[n]): return distributions.mvn_lowrank(loc, f, d).logpdf(x)
fn variances(loc: real[n], cov: real[n, n], l: real[n, n], f: real[n, r], d: real[n]):
    a = distributions.mvn(loc, cov).variance(), distributions.mvn_cholesky(loc, l).variance()
    return a, distributions.mvn_lowrank(loc, f, d).variance()
fn draws(k: key, loc: real[n], s: real[n], cov: real[n, n], l: real[n, n], p: real[n, n], f: real[n, r], d: real[n], m: static int):
    ks = split(k, m)
    a = [distributions.mvn_diag(loc, s).reparam(j) for j in ks]
    b = [distributions.mvn(loc, cov).reparam(j) for j in ks]
    c = [distributions.mvn_cholesky(loc, l).reparam(j) for j in ks]
    e = [distributions.mvn_precision(loc, p).reparam(j) for j in ks]
    return a, b, c, e, [distributions.mvn_lowrank(loc, f, d).reparam(j) for j in ks]
fn same(k: key, loc: real[n], cov: real[n, n], p: real[n, n], f: real[n, r], d: real[n]):
    a = distributions.mvn(loc, cov).sample(k) - distributions.mvn(loc, cov).reparam(k)
    b = distributions.mvn_precision(loc, p).sample(k) - distributions.mvn_precision(loc, p).reparam(k)
    return a, b, distributions.mvn_lowrank(loc, f, d).sample(k) - distributions.mvn_lowrank(loc, f, d).reparam(k)
fn batch(x: real[m, n], loc: real[m, n], cov: real[m, n, n]): return distributions.mvn(loc, cov).logpdf(x)
fn precision_draw(k: key, loc: real[n], p: real[n, n]): return distributions.mvn_precision(loc, p).reparam(k)
fn dirichlet(x: real[n], a: real[n]): return distributions.dirichlet(a).logpdf(x)
fn dirichlet_moments(a: real[n]): return distributions.dirichlet(a).mean(), distributions.dirichlet(a).variance()
fn dirichlet_draws(k: key, a: real[n]): return distributions.dirichlet(a).sample(k), distributions.dirichlet(a).implicit(k)
fn multinomial(x: i32[m], n: i32, p: real[m]): return distributions.multinomial(n, p).logpdf(x)
fn multinomial_draw(k: key, n: i32, p: real[m]): return distributions.multinomial(n, p).sample(k)
fn multinomial_moments(n: i32, p: real[m]): return distributions.multinomial(n, p).mean(), distributions.multinomial(n, p).variance()
fn lkj(u: real[m], n: static int, c: real): return distributions.lkj_cholesky(n, c).logpdf(bijectors.correlation_cholesky_forward(u, n)) + bijectors.correlation_cholesky_logdet(u, n)
fn lkj_logpdf(l: real[n, n], size: static int, c: real): return distributions.lkj_cholesky(size, c).logpdf(l)
fn lkj_draws(k: key, n: static int, c: real): return distributions.lkj_cholesky(n, c).sample(k), distributions.lkj_cholesky(n, c).implicit(k)
fn lkj_mean(n: static int, c: real): return distributions.lkj_cholesky(n, c).mean()
fn delta(x: real[n], v: real[n]): return distributions.delta(v).logpdf(x), distributions.delta(v).reparam(key(0))
"""

RNG = np.random.default_rng(0)
LOC, SCALE, X = RNG.normal(size=4), RNG.uniform(0.5, 2, 4), RNG.normal(size=4)
ROOT = RNG.normal(size=(4, 4))
COV = ROOT @ ROOT.T + np.eye(4)
FACTOR, NOISE = RNG.normal(size=(4, 2)), RNG.uniform(0.5, 2, 4)


def test_multivariate_normal(library: Any) -> None:
    p = library(VECTORS)
    l, precision = np.linalg.cholesky(COV), np.linalg.inv(COV)
    low = FACTOR @ FACTOR.T + np.diag(NOISE)
    exact = lambda c: stats.multivariate_normal(LOC, c)
    np.testing.assert_allclose(p.mvn_diag(X, LOC, SCALE), exact(np.diag(SCALE**2)).logpdf(X))
    np.testing.assert_allclose(p.mvn(X, LOC, COV), exact(COV).logpdf(X))
    np.testing.assert_allclose(p.mvn_cholesky(X, LOC, l), exact(COV).logpdf(X))
    np.testing.assert_allclose(p.mvn_precision(X, LOC, precision), exact(COV).logpdf(X))
    np.testing.assert_allclose(p.mvn_lowrank(X, LOC, FACTOR, NOISE), exact(low).logpdf(X))
    (a, b), c = p.variances(LOC, COV, l, FACTOR, NOISE)
    np.testing.assert_allclose(a, np.diag(COV))
    np.testing.assert_allclose(b, np.diag(COV))
    np.testing.assert_allclose(c, np.diag(low))
    draws = p.draws(wg.key(1), LOC, SCALE, COV, l, precision, FACTOR, NOISE, COUNT)
    for x, cov in zip(draws, (np.diag(SCALE**2), COV, COV, COV, low)):
        error = 5 * np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / COUNT)
        assert (np.abs(np.cov(x.T) - cov) < error).all()
        assert (np.abs(x.mean(0) - LOC) < 5 * np.sqrt(np.diag(cov) / COUNT)).all()
    for difference in p.same(wg.key(2), LOC, COV, precision, FACTOR, NOISE):
        np.testing.assert_allclose(difference, 0, atol=1e-14)
    total = p.batch(np.stack([X, X + 1]), np.stack([LOC, LOC]), np.stack([COV, low]))
    np.testing.assert_allclose(total, exact(COV).logpdf(X) + exact(low).logpdf(X + 1))
    sym = RNG.normal(size=(4, 4)) * 0.1
    sym = sym + sym.T
    h = 1e-6
    args = (wg.key(3), LOC, precision)
    got = p.precision_draw.jvp(args, sym, wrt="p")[1]
    ahead, behind = (p.precision_draw(wg.key(3), LOC, precision + s * h * sym) for s in (1, -1))
    np.testing.assert_allclose(got, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-8)
    h = 1e-6 * np.eye(4)
    slopes = p.mvn_lowrank.grad(X, LOC, FACTOR, NOISE, wrt="d")
    want = [
        (p.mvn_lowrank(X, LOC, FACTOR, NOISE + e) - p.mvn_lowrank(X, LOC, FACTOR, NOISE - e)) / 2e-6
        for e in h
    ]
    np.testing.assert_allclose(slopes, want, rtol=1e-6, atol=1e-8)


def test_dirichlet(library: Any) -> None:
    p = library(VECTORS)
    for a in ([0.3, 1.0, 2.5], [400.0, 50.0, 0.1, 9.0]):
        a = np.asarray(a)
        x = RNG.dirichlet(np.maximum(a, 1))
        np.testing.assert_allclose(p.dirichlet(x, a), stats.dirichlet(a).logpdf(x), rtol=1e-10)
        mean, variance = p.dirichlet_moments(a)
        np.testing.assert_allclose(mean, stats.dirichlet(a).mean())
        np.testing.assert_allclose(variance, stats.dirichlet(a).var())
        slope = p.dirichlet.grad(x, a, wrt="a")
        np.testing.assert_allclose(
            slope, special.digamma(a.sum()) - special.digamma(a) + np.log(x), rtol=1e-9
        )
        np.testing.assert_allclose(
            p.dirichlet.grad(x, a, wrt="x"), (a - 1) / x, rtol=1e-9, atol=1e-9
        )
        one, two = p.dirichlet_draws(wg.key(0), a)
        np.testing.assert_array_equal(one, two)
    edge = np.array([0.0, 0.4, 0.6])
    assert p.dirichlet(edge, np.ones(3)) == -np.inf
    assert np.isfinite(p.dirichlet.grad(edge, np.ones(3), wrt="a")).all()


def test_multinomial(library: Any) -> None:
    p = library(VECTORS)
    q, x = np.array([2.0, 0.0, 1.0, 5.0]), np.int32([3, 0, 1, 6])
    np.testing.assert_allclose(p.multinomial(x, 10, q), stats.multinomial(10, q / 8).logpmf(x))
    assert p.multinomial(x, 11, q) == -np.inf
    assert p.multinomial(np.int32([3, 1, 0, 6]), 10, q) == -np.inf
    slope = p.multinomial.grad(x, 10, q, wrt="p")
    np.testing.assert_allclose(slope, np.where(q > 0, x / np.maximum(q, 1), 0) - 10 / 8)
    mean, variance = p.multinomial_moments(10, q)
    np.testing.assert_allclose(mean, 10 * q / 8)
    np.testing.assert_allclose(variance, 10 * q / 8 * (1 - q / 8))
    assert p.multinomial_draw(wg.key(0), 10, q).sum() == 10


@pytest.mark.parametrize(("n", "c"), [(2, 0.8), (3, 1.0), (3, 2.5)])
def test_lkj_density_integrates_to_one(library: Any, n: int, c: float) -> None:
    """Over the unconstrained numbers, by the trapezoid rule: the integrand falls off smoothly."""
    p = library(VECTORS)
    size = n * (n - 1) // 2
    axis = np.linspace(-14, 14, 81) if n == 2 else np.linspace(-8, 8, 41)
    u = np.stack(np.meshgrid(*[axis] * size, indexing="ij"), -1).reshape(-1, size)
    logs = p.lkj.batched(u, n, c, axes={"c": None})
    assert abs(np.exp(logs).sum() * (axis[1] - axis[0]) ** size - 1) < 1e-5
    one, two = p.lkj_draws(wg.key(0), n, c)
    np.testing.assert_array_equal(one, two)
    if n == 2:
        got = p.lkj_logpdf(one, 2, c)
        np.testing.assert_allclose(got, stats.beta.logpdf((one[1, 0] + 1) / 2, c, c) - np.log(2))


def test_lkj_mean_and_delta(library: Any) -> None:
    p = library(VECTORS)
    draws = np.stack([p.lkj_draws(wg.key(i), 3, 1.5)[0] for i in range(4000)])
    assert (
        np.abs(draws.mean(0) - p.lkj_mean(3, 1.5)) < 5 * draws.std(0) / np.sqrt(4000) + 1e-12
    ).all()
    density, value = p.delta(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert density == 0
    np.testing.assert_array_equal(value, [1.0, 2.0])
    assert p.delta(np.array([1.0, 2.5]), np.array([1.0, 2.0]))[0] == -np.inf


# Choices among k

CHOICES = """
fn p_logpdf(x: i32, p: real[k]): return distributions.categorical(p).logpdf(x)
fn l_logpdf(x: i32, l: real[k]): return distributions.categorical_logit(l).logpdf(x)
fn relaxed_logpdf(x: real[k], l: real[k]): return distributions.categorical_logit(l).logpdf(x)
fn many(x: i32[m], l: real[m, k]): return distributions.categorical_logit(l).logpdf(x)
fn sample(key: key, l: real[m, k]): return distributions.categorical_logit(l).sample(key)
fn sample_p(key: key, p: real[m, k]): return distributions.categorical(p).sample(key)
fn p_mvd(key: key, p: real[k]): return distributions.categorical(p).mvd(key)
fn l_mvd(key: key, l: real[m, k]): return distributions.categorical_logit(l).mvd(key)
fn relaxed(key: key, l: real[m, k], tau: real): return distributions.categorical_logit(l).relaxed(key, tau)
fn relaxed_p(key: key, p: real[k], tau: real): return distributions.categorical(p).relaxed(key, tau)
fn relaxed_b(key: key, p: real[m], tau: real): return distributions.bernoulli(p).relaxed(key, tau), distributions.bernoulli_logit(log(p) - log1p(-p)).relaxed(key, tau)
fn values(): return distributions.bernoulli(0.3).values(), distributions.categorical_logit(zeros(3)).values(), distributions.categorical(ones(4)).values()
fn b_parts(key: key, p: real[m]): return distributions.bernoulli(p).parts(), distributions.bernoulli(p).draw_parts(key), distributions.bernoulli(p).from_parts(distributions.bernoulli(p).parts())
fn c_parts(key: key, l: real[m, k]):
    d = distributions.categorical_logit(l)
    return d.parts(), d.draw_parts(key), d.from_parts(d.parts())
fn soft_bernoulli(x: real, p: real): return distributions.bernoulli(p).logpdf(x)
fn edge(x: bool, p: real): return distributions.bernoulli(p).logpdf(x)
fn chain_sum(a: real[k], t: real[k, k], n: static int):
    d = distributions.markov_chain(a, t, n)
    return sum([exp(d.logpdf(x)) for x in d.values()])
fn chain_logpdf(x: i32[m], a: real[k], t: real[k, k], n: static int): return distributions.markov_chain(a, t, n).logpdf(x)
fn chain_sample(key: key, a: real[k], t: real[k, k], n: static int, m: static int): return [distributions.markov_chain(a, t, n).sample(j) for j in split(key, m)]
"""
LOGITS = np.array([0.3, -1.0, 2.0])


def test_categorical(library: Any) -> None:
    p = library(CHOICES)
    want = np.log(special.softmax(LOGITS))
    for i in range(3):
        np.testing.assert_allclose(p.l_logpdf(i, LOGITS), want[i])
        np.testing.assert_allclose(p.p_logpdf(i, 3 * np.exp(want)), want[i])
        assert np.isfinite(p.p_logpdf.grad(i, np.array([0.2, 0.3, 0.5]), wrt="p")).all()
    assert p.l_logpdf(3, LOGITS) == -np.inf == p.l_logpdf(-1, LOGITS)
    np.testing.assert_allclose(p.l_logpdf.grad(1, LOGITS, wrt="l"), np.eye(3)[1] - np.exp(want))
    np.testing.assert_allclose(p.relaxed_logpdf(np.eye(3)[1], LOGITS), want[1])
    np.testing.assert_allclose(
        p.many(np.int32([0, 2]), np.stack([LOGITS, LOGITS])), want[0] + want[2]
    )
    for draws in (
        p.sample(wg.key(1), np.tile(LOGITS, (COUNT // 10, 1))),
        p.sample_p(wg.key(1), np.tile(np.exp(LOGITS), (COUNT // 10, 1))),
    ):
        counts = np.bincount(draws, minlength=3)
        assert stats.chisquare(counts, np.exp(want) * len(draws)).pvalue > LEVEL
    values = p.values()
    for got, expected in zip(values, ([False, True], [0, 1, 2], [0, 1, 2, 3])):
        np.testing.assert_array_equal(got, expected)


def test_weak_derivative_of_categorical(library: Any) -> None:
    """Exactly p_i (f(i) - E f) by logit i, and (f(i) - E f) / sum(p) by p_i, on average over the draw."""
    p = library(CHOICES)
    f, q = np.array([1.0, -2.0, 0.5]), special.softmax(LOGITS)
    items = p.l_mvd(wg.key(2), np.tile(LOGITS, (20_000, 1)))
    for i, (parameter, c, plus, minus) in enumerate(items):
        np.testing.assert_allclose(parameter, LOGITS[i])
        assert (plus == i).all()
        each = c * (f[plus] - f[minus])
        assert abs(each.mean() - q[i] * (f[i] - q @ f)) < 5 * each.std() / np.sqrt(20_000)
    for i, (parameter, c, plus, minus) in enumerate(p.p_mvd(wg.key(2), 4 * q)):
        np.testing.assert_allclose([parameter, c, plus], [4 * q[i], 0.25, i])
        assert 0 <= minus < 3


def test_relaxations(library: Any) -> None:
    """At a low temperature nearly a draw, the largest share with its probability at any."""
    p = library(CHOICES)
    count, q = 20_000, special.softmax(LOGITS)
    for tau in (0.01, 1.0):
        x = p.relaxed(wg.key(3), np.tile(LOGITS, (count, 1)), tau)
        np.testing.assert_allclose(x.sum(-1), 1, rtol=1e-12)
        assert stats.chisquare(np.bincount(x.argmax(-1), minlength=3), q * count).pvalue > LEVEL
    assert np.median(p.relaxed(wg.key(3), np.tile(LOGITS, (count, 1)), 0.01).max(-1)) > 0.999
    np.testing.assert_allclose(p.relaxed_p(wg.key(3), 2 * q, 0.7), p.relaxed_p(wg.key(3), q, 0.7))
    one, two = p.relaxed_b(wg.key(4), np.full(count, 0.3), 0.5)
    np.testing.assert_allclose(one, two, rtol=1e-10)
    assert abs((one > 0.5).mean() - 0.3) < 5 * np.sqrt(0.21 / count)
    np.testing.assert_allclose(p.soft_bernoulli(0.25, 0.3), 0.25 * np.log(0.3) + 0.75 * np.log(0.7))


def test_parts(library: Any) -> None:
    p = library(CHOICES)
    probabilities, drawn, value = p.b_parts(wg.key(1), np.array([0.2, 0.7]))
    np.testing.assert_allclose(probabilities, [[0.8, 0.2], [0.3, 0.7]])
    np.testing.assert_allclose(value, [0.2, 0.7])
    assert set(drawn.ravel()) <= {0.0, 1.0}
    np.testing.assert_array_equal(drawn.sum(-1), 1)
    probabilities, drawn, value = p.c_parts(wg.key(1), np.stack([LOGITS, -LOGITS]))
    np.testing.assert_allclose(probabilities, special.softmax([LOGITS, -LOGITS], -1))
    np.testing.assert_array_equal(value, probabilities)
    np.testing.assert_array_equal(drawn.sum(-1), 1)


def test_certain_bernoulli(library: Any) -> None:
    """Probabilities 0 and 1: no NaN where the value is the certain one."""
    p = library(CHOICES)
    for x, q, slope in ((True, 1.0, 1.0), (False, 0.0, -1.0)):
        assert p.edge(x, q) == 0
        assert p.edge.grad(x, q, wrt="p") == slope
        assert p.edge(not x, q) == -np.inf


def test_markov_chain(library: Any) -> None:
    p = library(CHOICES)
    t = RNG.normal(size=(3, 3))
    np.testing.assert_allclose(p.chain_sum(LOGITS, t, 4), 1)
    first, steps = np.log(special.softmax(LOGITS)), np.log(special.softmax(t, -1))
    x = np.int32([2, 0, 1, 1])
    np.testing.assert_allclose(
        p.chain_logpdf(x, LOGITS, t, 4), first[2] + steps[2, 0] + steps[0, 1] + steps[1, 1]
    )
    np.testing.assert_allclose(p.chain_logpdf(x[:1], LOGITS, t, 1), first[2])
    draws = p.chain_sample(wg.key(5), LOGITS, t, 3, 20_000)
    counts = np.bincount(draws @ [9, 3, 1], minlength=27)
    want = np.exp(first[:, None, None] + steps[:, :, None] + steps[None]).ravel()
    assert stats.chisquare(counts, want * len(draws)).pvalue > LEVEL


def test_other_backends(library: Any) -> None:
    """Every method of a distribution on XLA and the interpreter, as on LLVM."""
    for name in ("gamma", "von_mises", "poisson", "truncated_normal", "beta"):
        case = CASES[name]
        x, parameters = points(name, case)
        want = library(text(name, case)).logpdf(x, *parameters)
        for backend in ("interp", "xla"):
            got = library(text(name, case), backend).logpdf(x, *parameters)
            np.testing.assert_allclose(np.asarray(got), want, rtol=1e-10, atol=1e-11)


# Strategies of choices in objectives

OBJECTIVES = """
fn f(x: real): return sin(x) + 0.3 * x^2
fn score_of(x: i32): return 1.0 / (1.0 + real(x))
objective gamma_implicit(a: real):
    x ~ gamma(a, 1.5) by implicit
    return f(x)
objective gamma_rate(a: real):
    x ~ gamma(2.0, a) by mvd
    return f(x)
objective poisson_mvd(a: real):
    x ~ poisson(a) by mvd
    return score_of(x)
objective categorical_mvd(l: real[k]):
    x ~ categorical_logit(l) by mvd
    return score_of(x)
objective categorical_enum(l: real[k]):
    x ~ categorical_logit(l) by enum
    return score_of(x)
objective gumbel(l: real[k]):
    x ~ categorical_logit(l) by gumbel(0.5)
    return sum(x / (1.0 + real(arange(k))))
objective through(a: real):
    x ~ bernoulli(a) by straight_through
    return 3.0 * x
objective chain(l: real[k]):
    x ~ markov_chain(l, zeros(k, k), 3) by enum
    return score_of(x[0])
objective truncated(a: real):
    x ~ truncated_normal(a, 1.0, -1.0, 2.0)
    return f(x)
"""


def test_strategies(library: Any) -> None:
    program = wg.compile(OBJECTIVES, real="f64")
    key = wg.key(0)

    def check(name: str, at: float, exact: Callable[[float], Any], samples: int = 40_000) -> None:
        f = getattr(program, name)
        keys = [wg.key(i) for i in range(200)]
        each = np.array([f.grad(at, key=k) for k in keys])
        got = f.grad(at, key=key, samples=samples)
        h = 1e-4
        mean = lambda v: exact(v).expect(lambda x: np.sin(x) + 0.3 * x**2)
        want = (mean(at + h) - mean(at - h)) / (2 * h)
        assert abs(got - want) < 6 * each.std() / np.sqrt(samples) + 1e-6, (name, got, want)

    check("gamma_implicit", 2.0, lambda a: stats.gamma(a, 0, 1 / 1.5))
    check("gamma_rate", 1.3, lambda r: stats.gamma(2.0, 0, 1 / r))
    check("truncated", 0.4, lambda m: stats.truncnorm(-1 - m, 2 - m, m, 1))
    k = np.arange(60)
    mean = lambda r: (stats.poisson.pmf(k, r) / (1 + k)).sum()
    got = program.poisson_mvd.grad(2.0, key=key, samples=40_000)
    assert abs(got - (mean(2.001) - mean(1.999)) / 0.002) < 5e-3
    q, f = special.softmax(LOGITS), 1 / (1 + np.arange(3.0))
    exact = q * (f - q @ f)
    np.testing.assert_allclose(program.categorical_enum.grad(LOGITS, key=key), exact)
    np.testing.assert_allclose(
        program.categorical_mvd.grad(LOGITS, key=key, samples=20_000), exact, atol=5e-3
    )
    np.testing.assert_allclose(program.chain.grad(LOGITS, key=key), exact)
    assert np.abs(program.gumbel.grad(LOGITS, key=key, samples=1000)).max() > 0.01
    np.testing.assert_allclose(program.through.grad(0.3, key=key), 3.0)
