"""special.wg against SciPy, and its derivatives against differences in 80-bit numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import special, stats

SIGNATURES = {
    "log1mexp": "x", "log1pmx": "x", "stirling": "a", "stirling_slope": "a", "betaln": "a, b", "log_gamma_step": "a",
    "xlogy": "x, y", "xlog1py": "x, y", "log_dirichlet_kernel": "a, x", "log_normal_interval": "a, b",
    "log_gamma_kernel": "a, x", "log_beta_kernel": "a, b, x, y", "gammainc": "a, x", "gammaincc": "a, x",
    "gamma_log_slope": "a, x", "betainc": "a, b, x", "beta_logit_slopes": "a, b, x", "student_t_cdf": "x, a",
    "student_t_logpdf": "x, a", "normal_cdf": "x", "log_normal_cdf": "x", "normal_icdf": "x", "log_normal_icdf": "x",
    "log_i0": "x", "bessel_gap": "x", "von_mises_cdf": "x, a", "von_mises_slope": "x, a",
}  # fmt: skip
TEXT = "".join(f"fn {n}({a}): return special.{n}({a})\n" for n, a in SIGNATURES.items())

RNG = np.random.default_rng(0)
COUNT = 400
U = RNG.uniform(1e-4, 1 - 1e-4, COUNT)
A = 10 ** RNG.uniform(-3, 4, COUNT)
B = 10 ** RNG.uniform(-3, 4, COUNT)
GAMMA = special.gammaincinv(A, U)
KEPT = GAMMA > 1e-300  # the others are below the smallest normal number
A_GAMMA, GAMMA, U_GAMMA = A[KEPT], GAMMA[KEPT], U[KEPT]


@pytest.fixture
def f64(library: Any) -> Any:
    return library(TEXT)


def at_f32(*arrays: Any) -> list[Any]:
    """Doubles that are f32 numbers."""
    return [np.float64(np.float32(a)) for a in arrays]


def narrow(*arrays: Any) -> list[Any]:
    return [np.float32(a) for a in arrays]


def close(got: Any, want: Any, rtol: float, atol: float = 0) -> None:
    np.testing.assert_allclose(
        np.asarray(got, np.float64), np.asarray(want, np.float64), rtol=rtol, atol=atol
    )


def tangent(f: Any, name: str, *args: Any) -> Any:
    """The derivative of an elementwise function by one argument, the same in both modes."""
    ones = np.ones_like(args[0])
    forward = f.jvp(args, ones, wrt=name)[1]
    (backward,) = np.atleast_2d(f.vjp(*args, wrt=name)[1](ones))
    close(forward, backward, 1e-12)
    return forward


def test_small_pieces(f64: Any, wide: Any) -> None:
    rng = np.random.default_rng(1)
    x = -(10 ** rng.uniform(-8, 2, COUNT))
    y = x.astype(wide.real)
    close(f64.log1mexp(x), np.where(x > -0.69, np.log(-np.expm1(y)), np.log1p(-np.exp(y))), 1e-13)
    close(tangent(f64.log1mexp, "x", x), -1 / np.expm1(-x), 1e-13)
    x = (
        np.concatenate([-(10 ** rng.uniform(-6, 0, COUNT)), 10 ** rng.uniform(-6, 3, COUNT)])
        * 0.999
    )
    y = x.astype(wide.real)
    close(f64.log1pmx(x), np.log1p(y) - y, 1e-12)  # the reference loses six digits near 0
    close(tangent(f64.log1pmx, "x", x), -x / (1 + x), 1e-12)


def test_log_gamma_and_beta(f64: Any, wide: Any) -> None:
    rng = np.random.default_rng(1)
    want = wide.lgamma(A) - ((A - wide.real(0.5)) * np.log(wide.real(1) * A) - A)
    close(f64.stirling(A), want - np.log(8 * np.arctan(wide.real(1))) / 2, 1e-12, 3e-14)
    close(
        f64.betaln(A, B),
        wide.lgamma(A) + wide.lgamma(B) - wide.lgamma(wide.real(1) * A + B),
        1e-13,
        1e-14,
    )
    close(f64.log_gamma_step(A), wide.lgamma(A + wide.real(0.5)) - wide.lgamma(A), 1e-13, 1e-14)
    x = A * 10 ** rng.uniform(-2, 1, COUNT)
    want = A * np.log(x.astype(wide.real)) - x - wide.lgamma(A + wide.real(1))
    close(f64.log_gamma_kernel(A, x), want, 1e-13, 1e-14)
    x = rng.uniform(0, 1, COUNT)
    y = 1 - x.astype(wide.real)
    want = (
        A * np.log(1 - y)
        + B * np.log(y)
        + wide.lgamma(wide.real(1) * A + B)
        - wide.lgamma(A)
        - wide.lgamma(B)
    )
    close(f64.log_beta_kernel(A, B, x, np.float64(y)), want, 1e-12, 1e-13)
    close(tangent(f64.betaln, "a", A, B), special.digamma(A) - special.digamma(A + B), 1e-10, 1e-13)
    close(
        tangent(f64.log_gamma_kernel, "a", A, x * A),
        np.log(x * A) - special.digamma(A + 1),
        1e-10,
        1e-13,
    )


def test_incomplete_gamma(f64: Any, wide: Any) -> None:
    rng = np.random.default_rng(1)
    for x in (GAMMA, np.maximum(A_GAMMA * 10 ** rng.uniform(-2, 1, len(GAMMA)), 1e-300)):
        p, q = special.gammainc(A_GAMMA, x), special.gammaincc(A_GAMMA, x)
        close(f64.gammainc(A_GAMMA, x), p, 2e-12, 1e-300)
        close(f64.gammaincc(A_GAMMA, x), q, 1e-12, 1e-15)
    assert f64.gammainc(2.0, 0.0) == 0
    assert f64.gammainc(2.0, np.inf) == 1 == f64.gammaincc(2.0, 0.0)
    close(tangent(f64.gammainc, "x", A_GAMMA, GAMMA), stats.gamma.pdf(GAMMA, A_GAMMA), 1e-10)
    # Q = 1 - P has the opposite derivatives
    close(tangent(f64.gammaincc, "x", A_GAMMA, GAMMA), -stats.gamma.pdf(GAMMA, A_GAMMA), 1e-10)
    some = A_GAMMA < 2000
    a, x = A_GAMMA[some], GAMMA[some]
    by_a = wide.slope(lambda v: wide.gammainc(v, x), a)
    close(tangent(f64.gammainc, "a", a, x), by_a, 1e-10, 1e-15)
    close(tangent(f64.gammaincc, "a", a, x), -by_a, 1e-10, 1e-15)
    density = a * np.exp(a * np.log(x.astype(wide.real)) - x - wide.lgamma(a + wide.real(1)))
    close(f64.gamma_log_slope(a, np.log(x)), -by_a / density, 1e-10)


def test_gamma_slope_of_tiny_and_of_huge_shapes(f64: Any) -> None:
    """log x = (log u + lgamma(a + 1)) / a + O(x) for small x; Wilson and Hilferty's quantile for large a."""
    a = np.float64([1e-3, 1e-2])
    logx = (np.log(1e-30) + special.gammaln(a + 1)) / a
    close(f64.gamma_log_slope(a, logx), (special.digamma(a + 1) - logx) / a, 1e-12)
    a, z = np.float64([1e6]), 1.5
    x = special.gammaincinv(a, stats.norm.cdf(z))
    close(f64.gamma_log_slope(a, np.log(x)) * x, 1 + z / (2 * np.sqrt(a)), 1e-6)


def test_incomplete_beta(f64: Any, wide: Any) -> None:
    rng = np.random.default_rng(1)
    x = special.betaincinv(A, B, U)
    kept = (x > 1e-300) & (x < 1 - 1e-5)
    a, b, x = A[kept], B[kept], x[kept]
    close(f64.betainc(a, b, x), special.betainc(a, b, x), 5e-12)
    close(tangent(f64.betainc, "x", a, b, x), stats.beta.pdf(x, a, b), 1e-9)
    x = rng.uniform(0, 1, len(a))
    close(f64.betainc(a, b, x), special.betainc(a, b, x), 1e-11, 1e-250)
    np.testing.assert_array_equal(f64.betainc(2.0, 3.0, np.float64([-1, 0, 1, 2])), [0, 0, 1, 1])


def test_slopes_of_the_incomplete_beta(f64: Any, wide: Any) -> None:
    rng = np.random.default_rng(1)
    a, b = 10 ** rng.uniform(-2, 3, (2, COUNT))
    x = special.betaincinv(a, b, U)
    kept = (x > 1e-12) & (x < 0.6)
    a, b, x = a[kept], b[kept], x[kept]
    by_a = wide.slope(lambda v: wide.betainc(v, b, x), a)
    by_b = wide.slope(lambda v: wide.betainc(a, v, x), b)
    close(tangent(f64.betainc, "a", a, b, x), by_a, 5e-10, 1e-14)
    close(tangent(f64.betainc, "b", a, b, x), by_b, 5e-10, 1e-13)
    large = x > 0.1  # below, 1 - x is rounded too much
    close(tangent(f64.betainc, "a", b[large], a[large], 1 - x[large]), -by_b[large], 2e-9, 1e-12)
    log_beta = wide.lgamma(a) + wide.lgamma(b) - wide.lgamma(a + b)
    y = x.astype(wide.real)
    density = np.exp(a * np.log(y) + b * np.log1p(-y) - log_beta)
    logit = np.log(x) - np.log1p(-x)
    slopes = f64.beta_logit_slopes(a, b, logit)
    close(slopes[0], -by_a / density, 1e-9)
    close(slopes[1], -by_b / density, 1e-9)
    mirrored = f64.beta_logit_slopes(b, a, -logit)
    close(mirrored[0], by_b / density, 1e-9)
    close(mirrored[1], by_a / density, 1e-9)


def test_student_t(f64: Any) -> None:
    rng = np.random.default_rng(1)
    df, x = 10 ** rng.uniform(-1, 4, COUNT), rng.normal(size=COUNT) * 5
    close(f64.student_t_cdf(x, df), stats.t.cdf(x, df), 5e-11)
    close(f64.student_t_logpdf(x, df), stats.t.logpdf(x, df), 1e-11, 1e-12)
    close(tangent(f64.student_t_cdf, "x", x, df), stats.t.pdf(x, df), 1e-11)
    h = 1e-4 * df
    by_df = (stats.t.cdf(x, df + h) - stats.t.cdf(x, df - h)) / (2 * h)
    close(tangent(f64.student_t_cdf, "a", x, df), by_df, 1e-4, 1e-9)
    assert f64.student_t_cdf(0.0, 3.0) == 0.5
    close(f64.student_t_cdf.grad(0.0, 3.0, wrt="x"), stats.t.pdf(0, 3), 1e-12)


def test_normal(f64: Any) -> None:
    rng = np.random.default_rng(1)
    x = np.linspace(-37, 8, COUNT)
    close(f64.normal_cdf(x), special.ndtr(x), 1e-12)
    x = np.concatenate([np.linspace(-100, 8, COUNT), [-1e4]])
    close(f64.log_normal_cdf(x), special.log_ndtr(x), 1e-12)
    slope = np.exp(stats.norm.logpdf(x) - special.log_ndtr(x))
    close(tangent(f64.log_normal_cdf, "x", x), slope, 1e-8)  # the reference cancels far below
    p = 10 ** rng.uniform(-300, 0, COUNT)
    close(f64.normal_icdf(p), special.ndtri(p), 2e-15)
    close(f64.normal_icdf(1 - p), special.ndtri(1 - p), 2e-15)
    close(tangent(f64.normal_icdf, "x", p), 1 / stats.norm.pdf(special.ndtri(p)), 1e-11)
    np.testing.assert_array_equal(f64.normal_icdf(np.float64([0, 1, 2])), [-np.inf, np.inf, np.nan])
    logp = -(10 ** rng.uniform(-5, 6, COUNT))
    close(f64.log_normal_icdf(logp), special.ndtri_exp(logp), 2e-12)
    close(f64.log_normal_cdf(f64.log_normal_icdf(logp)), logp, 1e-11)
    x = special.ndtri_exp(logp)
    close(
        tangent(f64.log_normal_icdf, "x", logp),
        np.exp(special.log_ndtr(x) - stats.norm.logpdf(x)),
        1e-8,
    )


def test_products_with_logs(f64: Any) -> None:
    x, y = np.float64([0, 0, 2]), np.float64([0, -1, 0.5])
    close(f64.xlogy(x, y), [0, 0, 2 * np.log(0.5)], 1e-15)
    close(f64.xlog1py(x, y), [0, 0, 2 * np.log(1.5)], 1e-15)
    for f in (f64.xlogy, f64.xlog1py):
        for got in f.vjp(x, y, wrt=("x", "y"))[1](np.ones(3)):
            assert np.isfinite(got).all()


def test_log_dirichlet_kernel(f64: Any, wide: Any) -> None:
    rng = np.random.default_rng(1)
    a = 10 ** rng.uniform(-2, 4, (30, 4))
    x = rng.dirichlet(np.ones(4), 30)
    total = a.astype(wide.real).sum(-1)
    want = wide.lgamma(total) + (a * np.log(x.astype(wide.real)) - wide.lgamma(a)).sum(-1)
    close(f64.log_dirichlet_kernel(a, x), want, 1e-11)
    by_a = f64.log_dirichlet_kernel.vjp(a, x, wrt="a")[1](np.ones(30))
    want = special.digamma(a.sum(-1))[:, None] - special.digamma(a) + np.log(x)
    close(by_a, want, 1e-9, 1e-10)
    close(f64.log_dirichlet_kernel.vjp(a, x, wrt="x")[1](np.ones(30)), a / x, 1e-11)


def test_log_normal_interval(f64: Any) -> None:
    a = np.float64([-1, -np.inf, 2, 8, -np.inf, -3, 30, -31, -1e-3, -np.inf])
    b = np.float64([2, -1, 2.5, np.inf, np.inf, 9, 31, -30, 1e-3, 40])
    inside = np.clip(0, a, b)
    want = stats.norm.logpdf(inside) - stats.truncnorm.logpdf(inside, a, b)
    close(f64.log_normal_interval(a, b), want, 1e-11, 1e-15)
    by_a, by_b = f64.log_normal_interval.vjp(a, b, wrt=("a", "b"))[1](np.ones(len(a)))
    close(by_a, -np.exp(stats.norm.logpdf(a) - want), 1e-9)
    close(by_b, np.exp(stats.norm.logpdf(b) - want), 1e-9)


def test_bessel_and_von_mises(f64: Any, wide: Any) -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate([10 ** rng.uniform(-2, 4, COUNT), [19.999, 20.0]])
    close(f64.log_i0(x), np.log(special.i0e(x)) + x, 1e-13, 1e-15)
    close(f64.log_i0(-x), f64.log_i0(x), 0)
    ratio = special.i1e(x) / special.i0e(x)
    close(f64.bessel_gap(x), 1 - ratio, 1e-12, 2e-15)
    close(tangent(f64.log_i0, "x", x), ratio, 1e-13)
    close(tangent(f64.log_i0, "x", -x), -ratio, 1e-13)
    close(tangent(f64.bessel_gap, "x", x), -(1 - ratio / x - ratio**2), 1e-12, 2e-15)
    assert f64.log_i0.grad(0.0) == 0
    kappa = 10 ** rng.uniform(-3, 4, COUNT)
    x = np.clip(rng.normal(size=COUNT) / np.sqrt(kappa + 0.1) * 1.5, -3.14, 3.14)
    close(f64.von_mises_cdf(x, kappa), wide.von_mises_cdf(x, kappa), 2e-12, 1e-15)
    density = stats.vonmises.pdf(x, kappa)
    close(tangent(f64.von_mises_cdf, "x", x, kappa), density, 1e-11)
    by_kappa = wide.slope(lambda k: wide.von_mises_cdf(x, k), kappa, 1e-3 * np.sqrt(1 + kappa))
    close(tangent(f64.von_mises_cdf, "a", x, kappa), by_kappa, 1e-9, 1e-14)
    close(f64.von_mises_slope(x, kappa), -by_kappa / density, 1e-8, 1e-11)


def test_single_precision(library: Any) -> None:
    """f32 programs, at arguments that are f32 numbers."""
    rng = np.random.default_rng(1)
    f32 = library(TEXT, real="f32")
    a, b = at_f32(np.maximum(A, 0.01), np.maximum(B, 0.01))
    (x,) = at_f32(np.clip(special.gammaincinv(a, U), 1e-30, None))
    close(f32.gammainc(*narrow(a, x)), special.gammainc(a, x), 1e-5, 1e-30)
    close(f32.gammaincc(*narrow(a, x)), special.gammaincc(a, x), 1e-5, 1e-6)
    (x,) = at_f32(np.clip(special.betaincinv(a, b, U), 1e-30, 1 - 1e-6))
    close(f32.betainc(*narrow(a, b, x)), special.betainc(a, b, x), 0, 2e-5)
    (x,) = at_f32(np.linspace(-12, 8, COUNT))
    close(f32.log_normal_cdf(*narrow(x)), special.log_ndtr(x), 1e-5)
    (p,) = at_f32(10 ** rng.uniform(-30, 0, COUNT))
    close(f32.normal_icdf(*narrow(p)), special.ndtri(p), 1e-6)
    (x,) = at_f32(10 ** rng.uniform(-3, 4, COUNT))
    close(f32.log_i0(*narrow(x)), np.log(special.i0e(x)) + x, 1e-6, 1e-7)
    (kappa,) = at_f32(10 ** rng.uniform(-2, 3, COUNT))
    (x,) = at_f32(np.clip(rng.normal(size=COUNT) / np.sqrt(kappa + 0.1), -3.14, 3.14))
    f64 = library(TEXT)
    close(f32.von_mises_cdf(*narrow(x, kappa)), f64.von_mises_cdf(x, kappa), 0, 2e-6)
    close(f32.von_mises_slope(*narrow(x, kappa)), f64.von_mises_slope(x, kappa), 1e-4, 1e-6)
    a = at_f32(10 ** rng.uniform(-3, 4, COUNT))[0]
    (logx,) = at_f32(np.log(np.maximum(special.gammaincinv(a, U), 1e-300)))
    close(f32.gamma_log_slope(*narrow(a, logx)), f64.gamma_log_slope(a, logx), 1e-3)


@pytest.mark.parametrize("backend", ["interp", "xla"])
def test_other_backends(library: Any, f64: Any, backend: str) -> None:
    other = library(TEXT, backend=backend)
    a, b, x = np.float64(
        [[1e-2, 0.5, 3, 40, 900], [2, 1e-2, 0.5, 70, 30], [0.1, 0.3, 0.7, 0.36, 0.97]]
    )
    close(other.gammainc(a, a * x * 2), f64.gammainc(a, a * x * 2), 1e-12)
    close(other.gamma_log_slope(a, np.log(x * a)), f64.gamma_log_slope(a, np.log(x * a)), 1e-11)
    close(other.betainc(a, b, x), f64.betainc(a, b, x), 1e-11)
    close(
        np.array(other.beta_logit_slopes(a, b, x)), np.array(f64.beta_logit_slopes(a, b, x)), 1e-10
    )
    close(other.log_normal_icdf(-a), f64.log_normal_icdf(-a), 1e-12)
    close(other.von_mises_cdf(x, a), f64.von_mises_cdf(x, a), 1e-12)


def test_second_derivatives(f64: Any, library: Any) -> None:
    """Derivatives of derivatives, forward and backward through the loops, by differences of the first."""
    text = """
fn f(a: real, x: real): return special.gammainc(a, x)
fn by_a(a: real, x: real): return grad(lambda v: special.gammainc(v, x), a)
fn forward(a: real, x: real): return jvp(by_a, (a, x), (1.0, 0.0))[1]
fn kappa(k: real, x: real): return special.von_mises_slope(x, k)
"""
    program = library(text)
    for a, x in ((0.7, 0.4), (0.7, 3.0), (5.0, 4.0), (5.0, 7.0)):
        h = 1e-5
        want = (program.by_a(a + h, x) - program.by_a(a - h, x)) / (2 * h)
        close(program.by_a.grad(a, x, wrt="a"), want, 1e-7)
        close(program.forward(a, x), want, 1e-7)
        across = stats.gamma.pdf(x, a) * (np.log(x) - special.digamma(a))
        close(program.by_a.grad(a, x, wrt="x"), across, 1e-9)
    for k, x in ((0.5, 1.0), (3.0, 2.5), (50.0, 0.1)):
        h = 1e-6 * k
        want = (program.kappa(k + h, x) - program.kappa(k - h, x)) / (2 * h)
        close(program.kappa.grad(k, x, wrt="k"), want, 1e-7)


def test_broadcasting_and_scalars(f64: Any) -> None:
    a, x = np.float64([[0.5], [2.0]]), np.float64([0.1, 1, 5])
    close(f64.gammainc(a, x), special.gammainc(a, x), 1e-13)
    close(f64.betainc(a, 2.0, x / 6), special.betainc(a, 2, x / 6), 1e-13)
    close(f64.von_mises_cdf(1.0, 2.0), stats.vonmises.cdf(1, 2), 1e-12)
    close(f64.gammainc.grad(0.5, 1.0, wrt="x"), stats.gamma.pdf(1, 0.5), 1e-13)
