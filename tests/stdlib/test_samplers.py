"""samplers.wg: distributions against SciPy at fixed seeds, and implicit derivatives.

A row of COUNT draws passes the Kolmogorov-Smirnov test if its distribution function is within
LIMIT of the true one: a right sampler fails with probability 1e-6 a row, one whose distribution
function is wrong by 2 LIMIT = 0.012 somewhere is found with probability above 0.999. Counts pass
the chi-square test at the same level, in cells of at least 10 expected draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import special, stats

import wengert as wg

COUNT = 200_000
LEVEL = 1e-6
LIMIT = np.sqrt(np.log(2 / LEVEL) / 2 / COUNT)

TEXT = """
fn gamma(k: key, a): return samplers.gamma(k, a)
fn log_gamma(k: key, a): return samplers.log_gamma(k, a)
fn gamma_implicit(k: key, a): return samplers.gamma_implicit(k, a)
fn log_gamma_implicit(k: key, a): return samplers.log_gamma_implicit(k, a)
fn beta(k: key, a, b): return samplers.beta(k, a, b)
fn beta_implicit(k: key, a, b): return samplers.beta_implicit(k, a, b)
fn beta_logit(k: key, a, b): return samplers.beta_logit_implicit(k, a, b)
fn dirichlet(k: key, a): return samplers.dirichlet(k, a)
fn dirichlet_implicit(k: key, a): return samplers.dirichlet_implicit(k, a)
fn poisson(k: key, rate): return samplers.poisson(k, rate)
fn binomial(k: key, n, p): return samplers.binomial(k, n, p)
fn log_binomial_pmf(k, n, p): return samplers.log_binomial_pmf(k, n, p)
fn geometric(k: key, p): return samplers.geometric(k, p)
fn negative_binomial(k: key, r, p): return samplers.negative_binomial(k, r, p)
fn multinomial(k: key, n: i32, p: real[m]): return samplers.multinomial(k, n, p)
fn von_mises(k: key, kappa): return samplers.von_mises(k, kappa)
fn von_mises_implicit(k: key, kappa): return samplers.von_mises_implicit(k, kappa)
fn student_t(k: key, df): return samplers.student_t(k, df)
fn student_t_implicit(k: key, df): return samplers.student_t_implicit(k, df)
fn truncated_normal(k: key, low, high): return samplers.truncated_normal(k, low, high)
fn lkj(k: key, n: static int, c: real): return samplers.lkj_cholesky(k, n, c)
fn lkj_implicit(k: key, n: static int, c: real): return samplers.lkj_cholesky_implicit(k, n, c)
fn lkjs(k: key, n: static int, c: real, m: static int): return map(lambda j: samplers.lkj_cholesky(j, n, c), split(k, m))
fn lkj_square(k: key, c: real):
    l = samplers.lkj_cholesky_implicit(k, 4, c)
    return (sum((l @ l.T)^2) - 4.0) / 12.0
fn dirichlets(k: key, a: real[n], m: static int): return map(lambda j: samplers.dirichlet(j, a), split(k, m))
fn dirichlet_square(k: key, a: real[n]): return samplers.dirichlet_implicit(k, a)[0]^2
fn student_log(k: key, df: real): return log1p(samplers.student_t_implicit(k, df)^2)
fn multinomials(k: key, n: i32, p: real[m], times: static int): return map(lambda j: samplers.multinomial(j, n, p), split(k, times))
"""


@pytest.fixture
def f64(library: Any) -> Any:
    return library(TEXT)


class Typed:
    """Functions of a program that take float arrays of any width."""

    def __init__(self, program: Any) -> None:
        self.program = program

    def __getattr__(self, name: str) -> Any:
        f = getattr(self.program, name)
        return lambda *args: f(*(typed(self.program, a) for a in args))


def typed(program: Any, value: Any) -> Any:
    """Float arrays in the program's float type."""
    floats = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return value.astype(program.real.numpy) if floats else value


@pytest.fixture(params=["f64", "f32"])
def program(library: Any, request: Any) -> Any:
    return Typed(library(TEXT, real=request.param))


def rows(values: Any, count: int = COUNT) -> Any:
    """A row of equal parameters for each value."""
    return np.broadcast_to(np.asarray(values)[:, None], (len(values), count)).copy()


def ks(draws: Any, cdf: Any) -> None:
    ordered = np.sort(np.asarray(draws, np.float64))
    assert np.isfinite(ordered).all()
    probability = cdf(ordered)
    grid = np.arange(len(ordered) + 1) / len(ordered)
    # equal draws (rounding) count at their last place
    distance = max((grid[1:] - probability).max(), (probability - grid[:-1]).max())
    assert distance < np.sqrt(np.log(2 / LEVEL) / 2 / len(ordered)), distance


def chi_square(draws: Any, pmf: Any) -> None:
    """Whole draws against probabilities of 0, 1, ..."""
    draws = np.asarray(draws).ravel()
    assert draws.min() >= 0
    top = int(draws.max()) + 2
    expected = pmf(np.arange(top)) * len(draws)
    observed = np.bincount(draws, minlength=top).astype(float)
    cell = np.cumsum(expected) // 20
    e = np.bincount(np.unique(cell, return_inverse=True)[1], expected)
    o = np.bincount(np.unique(cell, return_inverse=True)[1], observed)
    e[-1] += len(draws) - e.sum()
    keep = e > 5
    e, o = np.append(e[keep], e[~keep].sum()), np.append(o[keep], o[~keep].sum())
    e, o = (e[:-1], o[:-1]) if e[-1] < 1e-9 else (e, o)
    if e[-1] < 5 and len(e) > 1:
        e, o = np.append(e[:-2], e[-2] + e[-1]), np.append(o[:-2], o[-2] + o[-1])
    statistic = ((o - e) ** 2 / e).sum()
    assert stats.chi2.sf(statistic, max(len(e) - 1, 1)) > LEVEL, (statistic, len(e))


def mean_is(draws: Any, mean: float, sd: float) -> None:
    """Within five standard errors."""
    draws = np.asarray(draws, np.float64)
    assert abs(draws.mean() - mean) < 5 * sd / np.sqrt(draws.size), (draws.mean(), mean)


def test_gamma(program: Any) -> None:
    shapes = [0.02, 0.3, 1.0, 1.7, 12.0, 900.0, 1e4]
    key = wg.key(1)
    x, y = program.gamma(key, rows(shapes)), program.log_gamma(key, rows(shapes))
    np.testing.assert_allclose(np.log(x[1:]), y[1:], rtol=1e-5, atol=1e-5)
    for a, draws, logs in zip(shapes, x, y):
        ks(logs, lambda v, a=a: stats.loggamma.cdf(v, a))
        mean_is(draws, a, np.sqrt(a))
        mean_is(logs, special.digamma(a), np.sqrt(special.polygamma(1, a)))
    assert np.isnan(program.gamma(key, np.float64([-1.0, np.nan]))).all()


def test_beta(program: Any) -> None:
    a, b = [0.05, 0.5, 1.0, 3.0, 40.0, 2.0], [0.1, 0.5, 1.0, 0.7, 700.0, 1e4]
    x = program.beta(wg.key(2), rows(a), rows(b))
    z = program.beta_logit(wg.key(2), rows(a), rows(b))
    assert x.min() > 0
    assert x.max() < 1
    for p, q, draws, logits in zip(a, b, x, z):
        mean_is(draws, p / (p + q), stats.beta.std(p, q))
        cut = logits < 0
        assert abs(cut.mean() - stats.beta.cdf(0.5, p, q)) < LIMIT
        ks(
            logits,
            lambda v, p=p, q=q: np.where(
                v < 0,
                stats.beta.cdf(special.expit(v), p, q),
                stats.beta.sf(special.expit(-v), q, p),
            ),
        )
    assert program.beta(wg.key(0), np.full(9, 1e-3), np.full(9, 1e-3)).min() > 0


def test_dirichlet(program: Any) -> None:
    a = np.float64([0.05, 0.4, 2.0, 7.0])
    x = program.dirichlets(wg.key(3), a, COUNT)
    np.testing.assert_allclose(x.sum(-1), 1, rtol=1e-5)
    for i in range(4):
        mean_is(x[:, i], a[i] / a.sum(), stats.beta.std(a[i], a.sum() - a[i]))
    for i in (1, 2, 3):
        ks(x[:, i], lambda v, i=i: stats.beta.cdf(v, a[i], a.sum() - a[i]))
    both = x[:, 2].astype(float) * x[:, 3]
    want = a[2] * a[3] / (a.sum() * (a.sum() + 1))
    mean_is(both, want, both.std())


def test_poisson(program: Any) -> None:
    rates = [0.0, 0.01, 1.0, 9.99, 10.0, 35.0, 400.0, 1e5]
    x = program.poisson(wg.key(4), rows(rates))
    assert x.dtype == np.int32
    for rate, draws in zip(rates, x):
        chi_square(draws, lambda k, rate=rate: stats.poisson.pmf(k, rate))
        mean_is(draws, rate, np.sqrt(rate) + 1e-9)


def test_binomial(program: Any) -> None:
    n, p = (
        np.int32([0, 1, 10, 10, 30, 50, 1000, 1000, 20000, 7]),
        [0.5, 0.3, 0.0, 1.0, 0.5, 0.9, 0.002, 0.4, 0.77, 0.5],
    )
    x = program.binomial(wg.key(5), rows(n), rows(p))
    for count, q, draws in zip(n, p, x):
        assert draws.max() <= count
        chi_square(draws, lambda k, count=count, q=q: stats.binom.pmf(k, count, q))
        mean_is(draws, count * q, np.sqrt(count * q * (1 - q)) + 1e-9)


def test_log_binomial_pmf(f64: Any) -> None:
    k, n = np.float64([0, 0, 3, 10, 10, 55, 0, 7]), np.float64([0, 10, 10, 10, 12, 1000, 5, 7])
    p = np.float64([0.3, 0.3, 0.2, 0.9, 0.4, 0.05, 0.0, 1.0])
    np.testing.assert_allclose(
        f64.log_binomial_pmf(k, n, p), stats.binom.logpmf(k, n, p), rtol=1e-12, atol=1e-13
    )
    assert f64.log_binomial_pmf(1.0, 2.0, 0.0) == -np.inf
    grad = f64.log_binomial_pmf.vjp(k, n, p, wrt="p")[1](np.ones(8))
    inner = slice(0, 6)
    np.testing.assert_allclose(
        grad[inner], (k / p.clip(1e-9) - (n - k) / (1 - p).clip(1e-9))[inner], rtol=1e-12
    )
    assert np.isfinite(grad).all()


def test_geometric_and_negative_binomial(program: Any) -> None:
    ps = [1.0, 0.9, 0.3, 0.01]
    for p, draws in zip(ps, program.geometric(wg.key(6), rows(ps))):
        chi_square(draws, lambda k, p=p: stats.geom.pmf(k + 1, p))
    r, ps = [0.3, 2.0, 50.0], [0.2, 0.5, 0.4]
    for count, p, draws in zip(r, ps, program.negative_binomial(wg.key(7), rows(r), rows(ps))):
        chi_square(draws, lambda k, count=count, p=p: stats.nbinom.pmf(k, count, p))


def test_multinomial(program: Any) -> None:
    p = np.float64([2.0, 0.0, 5.0, 3.0, 0.0])
    x = program.multinomials(wg.key(8), 60, p, 50_000)
    assert (x.sum(1) == 60).all()
    assert x[:, [1, 4]].max() == 0
    for i in (0, 2, 3):
        chi_square(x[:, i], lambda k, i=i: stats.binom.pmf(k, 60, p[i] / 10))
    assert abs(np.cov(x[:, 0], x[:, 2])[0, 1] + 60 * 0.2 * 0.5) < 0.2


def test_von_mises(program: Any, wide: Any) -> None:
    kappas = [0.0, 1e-3, 0.7, 5.0, 300.0, 1e5]
    x = program.von_mises(wg.key(9), rows(kappas))
    for kappa, draws in zip(kappas, x):
        grid = np.linspace(-1, 1, 1001) * min(np.pi, 14 / np.sqrt(kappa + 1e-9))
        table = np.float64(
            np.concatenate([wide.von_mises_cdf(g, kappa) for g in np.array_split(grid, 10)])
        )
        ks(draws, lambda v, grid=grid, table=table: np.interp(v, grid, table))


def test_student_t(program: Any) -> None:
    df = [0.3, 1.0, 4.5, 1e4]
    for v, draws in zip(df, program.student_t(wg.key(10), rows(df))):
        ks(draws, lambda x, v=v: stats.t.cdf(x, v))


def test_truncated_normal(program: Any) -> None:
    low, high = (
        [-1.0, -np.inf, 2.0, 8.0, -np.inf, -3.0, 30.0],
        [2.0, -1.0, 2.5, np.inf, np.inf, 9.0, 31.0],
    )
    x = program.truncated_normal(wg.key(11), rows(low), rows(high))
    for a, b, draws in zip(low, high, x):
        assert draws.min() >= a
        assert draws.max() <= b
        ks(draws, lambda v, a=a, b=b: stats.truncnorm.cdf(v, a, b))


def test_lkj(program: Any) -> None:
    for n, c in ((2, 0.6), (4, 1.5)):
        l = np.asarray(program.lkjs(wg.key(12), n, c, COUNT), np.float64)
        np.testing.assert_allclose((l**2).sum(-1), 1, rtol=1e-5)
        assert np.abs(np.triu(l, 1)).max() == 0
        r = np.einsum("mij,mkj->mik", l, l)
        a = c - 1 + n / 2
        for i, j in ((1, 0), (n - 1, 0), (n - 1, n - 2)):
            ks((r[:, i, j] + 1) / 2, lambda v, a=a: stats.beta.cdf(v, a, a))
    # the determinant of the matrix has mean prod (1 - i / 2 / (c + (n - 1) / 2)) over the rows
    det = np.prod(np.diagonal(l, axis1=1, axis2=2) ** 2, axis=1)
    mean_is(det, np.prod([1 - i / 2 / (1.5 + 1.5) for i in (1, 2, 3)]), det.std())
    np.testing.assert_array_equal(program.lkj(wg.key(0), 1, 2.0), [[1.0]])


# Derivatives


def test_implicit_gamma(f64: Any) -> None:
    a = 10 ** np.random.default_rng(0).uniform(-2, 3.5, 300)
    x, slope = f64.gamma_implicit.jvp((wg.key(1), a), np.ones_like(a), wrt="a")
    np.testing.assert_array_equal(x, f64.gamma(wg.key(1), a))
    seen = (x > 1e-280) & (stats.gamma.sf(x, a) > 1e-3)
    a, x, slope, h = a[seen], x[seen], slope[seen], 1e-4 * a[seen]
    u = stats.gamma.cdf(x, a)
    want = (
        8 * (stats.gamma.ppf(u, a + h) - stats.gamma.ppf(u, a - h))
        - stats.gamma.ppf(u, a + 2 * h)
        + stats.gamma.ppf(u, a - 2 * h)
    ) / (12 * h)
    np.testing.assert_allclose(slope, want, rtol=2e-6)
    tiny = np.full(50, 1e-3)
    y, slope = f64.log_gamma_implicit.jvp((wg.key(2), tiny), np.ones(50), wrt="a")
    assert y.min() < -1000  # far below what a number holds
    far = y < -20
    np.testing.assert_allclose(slope[far], ((special.digamma(1.001) - y) / 1e-3)[far], rtol=1e-6)
    grad = f64.gamma_implicit.vjp(wg.key(1), tiny, wrt="a")[1](np.ones(50))
    assert np.isfinite(grad).all()


def test_implicit_beta(f64: Any) -> None:
    rng = np.random.default_rng(0)
    a, b = 10 ** rng.uniform(-0.5, 2.5, (2, 300))
    for name, other in (("a", False), ("b", True)):
        x, slope = f64.beta_implicit.jvp((wg.key(1), a, b), np.ones_like(a), wrt=name)
        np.testing.assert_array_equal(x, f64.beta(wg.key(1), a, b))
        u, h = stats.beta.cdf(x, a, b), 1e-4 * (b if other else a)
        ppf = lambda t, u=u, other=other: (
            stats.beta.ppf(u, a, b + t) if other else stats.beta.ppf(u, a + t, b)
        )
        want = (8 * (ppf(h) - ppf(-h)) - ppf(2 * h) + ppf(-2 * h)) / (12 * h)
        kept = (u > 1e-3) & (u < 0.999)
        np.testing.assert_allclose(slope[kept], want[kept], rtol=1e-5)
    edge = np.full(200, 1e-2)
    for name in ("a", "b"):
        assert np.isfinite(f64.beta_implicit.jvp((wg.key(3), edge, edge), edge, wrt=name)[1]).all()


def test_implicit_von_mises(f64: Any, wide: Any) -> None:
    kappa = 10 ** np.random.default_rng(0).uniform(-2, 3, 300)
    x, slope = f64.von_mises_implicit.jvp((wg.key(1), kappa), np.ones_like(kappa), wrt="kappa")
    np.testing.assert_array_equal(x, f64.von_mises(wg.key(1), kappa))
    by_kappa = wide.slope(lambda k: wide.von_mises_cdf(x, k), kappa, 1e-3 * np.sqrt(1 + kappa))
    np.testing.assert_allclose(
        slope, np.float64(-by_kappa / stats.vonmises.pdf(x, kappa)), rtol=1e-7, atol=1e-10
    )


def test_truncated_normal_slopes(f64: Any) -> None:
    low = np.float64([-1, -np.inf, 2, 8, -3, -0.5, 30])
    high = np.float64([2, -1, 2.5, np.inf, 9, 0.1, 31])
    args = (wg.key(1), low, high)
    x = f64.truncated_normal(*args)
    u = stats.truncnorm.cdf(x, low, high)
    h = 1e-5
    by_low = f64.truncated_normal.jvp(args, np.ones(7), wrt="low")[1]
    want = (stats.truncnorm.ppf(u, low + h, high) - stats.truncnorm.ppf(u, low - h, high)) / (2 * h)
    np.testing.assert_allclose(by_low, np.where(np.isinf(low), 0, want), rtol=1e-4, atol=1e-8)
    by_high = f64.truncated_normal.jvp(args, np.ones(7), wrt="high")[1]
    want = (stats.truncnorm.ppf(u, low, high + h) - stats.truncnorm.ppf(u, low, high - h)) / (2 * h)
    np.testing.assert_allclose(by_high, np.where(np.isinf(high), 0, want), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("real", ["f64", "f32"])
def test_expected_derivatives(library: Any, real: str) -> None:
    """Averages of pathwise derivatives against those of the expectations; five standard errors, which are below 4%."""
    p = library(TEXT, real=real)
    count = 100_000

    def check(f: Any, args: tuple[Any, ...], wrt: str, want: float) -> None:
        keys = np.random.default_rng(0).integers(0, 2**32, (count, 2), np.uint32)
        g = np.asarray(f.grad(wg.key(5), *args, wrt=wrt, samples=count), np.float64)
        few = np.array(
            [np.atleast_1d(f.grad(k, *args, wrt=wrt))[0] for k in keys[:400]], np.float64
        )
        error = 5 * few.std() * 1.2 / np.sqrt(count)
        assert error < 0.04 * abs(want)
        assert abs(np.atleast_1d(g)[0] - want) < error, (g, want, error)

    a = typed(p, np.float64([0.7, 2.0, 0.3]))
    moment = lambda v: v * (v + 1) / ((v + 2.3) * (v + 3.3))
    check(p.dirichlet_square, (a,), "a", (moment(0.7 + 1e-6) - moment(0.7 - 1e-6)) / 2e-6)
    check(p.lkj_square, (1.3,), "c", -2 / (2 * 1.3 + 3) ** 2)
    expected = lambda df: stats.t.expect(lambda x: np.log1p(x**2), (df,))
    check(p.student_log, (2.5,), "df", (expected(2.5 + 1e-3) - expected(2.5 - 1e-3)) / 2e-3)


def test_second_derivative_of_an_implicit_draw(library: Any) -> None:
    """The derivative of the implicit derivative along a, x moving with it."""
    text = """
fn first(k: key, a: real): return grad(lambda v: samplers.gamma_implicit(k, v), a)
fn quantile_slope(a: real, logx: real): return special.gamma_log_slope(a, logx) * exp(logx)
"""
    program = library(text)
    for seed in range(4):
        for a in (0.6, 3.0):
            got = program.first.grad(wg.key(seed), a, wrt="a")
            y = np.log(library(TEXT).gamma(wg.key(seed), a))
            h, s = 1e-5, program.quantile_slope(a, y) / np.exp(y)
            want = (
                program.quantile_slope(a + h, y + h * s) - program.quantile_slope(a - h, y - h * s)
            ) / (2 * h)
            np.testing.assert_allclose(got, want, rtol=1e-5)


# Backends and batches

CALLS: dict[str, tuple[Any, ...]] = {
    "gamma": ([0.1, 0.9, 3.0, 80.0],), "log_gamma_implicit": ([0.01, 1.0, 7.0],),
    "beta_implicit": ([0.2, 3.0, 40.0], [0.3, 1.0, 9.0]), "dirichlet_implicit": ([0.2, 1.0, 4.0],),
    "poisson": ([0.0, 0.5, 8.0, 12.0, 300.0],), "binomial": (np.int32([5, 40, 900, 33]), [0.3, 0.5, 0.01, 0.99]),
    "geometric": ([0.1, 0.5, 1.0],), "negative_binomial": ([0.5, 4.0], [0.2, 0.6]), "multinomial": (30, [1.0, 2.0, 0.0]),
    "von_mises_implicit": ([0.1, 2.0, 80.0],), "student_t": ([0.5, 3.0, 90.0],),
    "truncated_normal": ([-1.0, 2.0, -9.0], [0.5, 9.0, -8.5]), "lkj_implicit": (3, 1.5),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("real", ["f32", "f64"])
def test_the_same_draws_everywhere(library: Any, name: str, real: str) -> None:
    args = tuple(np.asarray(a) if isinstance(a, list) else a for a in CALLS[name])
    programs = [Typed(library(TEXT, backend, real)) for backend in ("interp", "llvm", "xla")]
    results = [np.asarray(getattr(p, name)(wg.key(3), *args)) for p in programs]
    tolerance = 1e-4 if real == "f32" else 1e-10
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=tolerance, atol=tolerance / 10)


BATCHED = [
    *[(n, "llvm") for n in CALLS],
    *[(n, "xla") for n in ("gamma", "poisson", "von_mises_implicit")],
]


@pytest.mark.parametrize(("name", "backend"), BATCHED)
def test_batches_of_keys(library: Any, name: str, backend: str) -> None:
    """A function over keys, batched by the compiler, draws what single calls draw."""
    args = tuple(np.asarray(a) if isinstance(a, list) else a for a in CALLS[name])
    program = library(TEXT, backend)
    f = getattr(program, name)
    keys = np.stack([wg.key(i) for i in range(5)])
    shared = {p.name: None for p in f.decl.parameters[1:]}
    together = np.asarray(f.batched(keys, *args, axes=shared))
    for i in range(5):
        np.testing.assert_allclose(together[i], np.asarray(f(keys[i], *args)), rtol=1e-10)
