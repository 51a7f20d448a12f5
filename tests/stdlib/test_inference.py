"""`marginal` and `normalize` against a model whose densities are known.

u ~ N(0, 1), x ~ N(u, s): x alone is N(0, sqrt(1 + s^2)), and u given x is
N(x / (1 + s^2), s / sqrt(1 + s^2)).
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from wengert.ir.errors import WengertError

import wengert as wg

TEXT = """
model pair(s: real):
    u ~ normal(0.0, 1.0)
    x ~ normal(u, s)

guide reverse(s: real, x: real):
    u ~ normal(0.8 * x / (1.0 + s^2), 1.5 * s / sqrt(1.0 + s^2))

guide exact(s: real, x: real):
    u ~ normal(x / (1.0 + s^2), s / sqrt(1.0 + s^2))

objective density(s: real, x: real, k: static int):
    return exp(logpdf(marginal(pair(s), keep=[x], by=importance(k)), {x}))

objective density_by_guide(s: real, x: real, k: static int):
    by = importance(k, lambda kept: reverse(s, kept.x))
    return exp(logpdf(marginal(pair(s), keep=[x], by=by), {x}))

objective log_density_by_exact(s: real, x: real):
    by = importance(1, lambda kept: exact(s, kept.x))
    return logpdf(marginal(pair(s), keep=[x], by=by), {x})

objective reciprocal(s: real, k: static int):
    t ~ marginal(pair(s), keep=[x], by=importance(k))
    return exp(-score(t) - t.x^2)

objective reciprocal_by_guide(s: real, k: static int):
    t ~ marginal(pair(s), keep=[x], by=importance(k, lambda kept: reverse(s, kept.x)))
    return exp(-score(t) - t.x^2)

objective posterior_mean(s: real, x: real, k: static int):
    t ~ normalize(pair(s), {x: x}, by=importance(k, reverse(s, x)))
    return t.u

objective evidence(s: real, x: real, k: static int):
    t ~ normalize(pair(s), {x: x}, by=importance(k, reverse(s, x)))
    return logpdf(pair(s), {t, x}) - score(t)

objective posterior_density(s: real, x: real, u: real, k: static int):
    return exp(logpdf(normalize(pair(s), {x: x}, by=importance(k, reverse(s, x))), {u: u}))
"""
S, X = 0.7, 1.3
SPREAD = np.sqrt(1 + S**2)
DRAWS = 40_000


def estimate(backend: str, name: str, *args: float, draws: int = DRAWS) -> tuple[float, float]:
    """Mean of an objective and its standard error, from 20 keys."""
    function = getattr(wg.compile(TEXT, real="f64", backend=backend), name)
    means = [float(function(*args, key=wg.key(seed), samples=draws // 20)) for seed in range(20)]
    return float(np.mean(means)), float(np.std(means, ddof=1) / np.sqrt(20))


def check(found: tuple[float, float], want: float, power: float) -> None:
    """Equal within 4.5 standard errors, one of which is less than `power` of the value."""
    mean, error = found
    assert error < power * abs(want)
    assert abs(mean - want) < 4.5 * error


@pytest.mark.parametrize("backend", ["llvm", "xla"])
@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("name", ["density", "density_by_guide"])
def test_marginal_densities_are_unbiased(backend: str, name: str, k: int) -> None:
    check(estimate(backend, name, S, X, k), stats.norm.pdf(X, 0, SPREAD), 0.02)


def test_the_exact_proposal_leaves_no_noise() -> None:
    program = wg.compile(TEXT, real="f64")
    got = program.log_density_by_exact(S, X, key=wg.key(3))
    assert got == pytest.approx(stats.norm.logpdf(X, 0, SPREAD), rel=1e-12)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("name", ["reciprocal", "reciprocal_by_guide"])
def test_reciprocal_densities_of_draws_are_unbiased(name: str, k: int) -> None:
    """E[g(x) / q(x)], x ~ q, is the integral of g, here of exp(-x^2).

    With s = 2 the estimate has a variance; with s below 1 it has none for one particle.
    """
    check(estimate("llvm", name, 2.0, k), np.sqrt(np.pi), 0.02)


def test_gradients_of_a_marginal_density() -> None:
    function = wg.compile(TEXT, real="f64").density
    slopes = [function.grad(S, X, 5, key=wg.key(i), samples=2000, wrt="s") for i in range(20)]
    step = 1e-5
    want = np.diff([stats.norm.pdf(X, 0, np.sqrt(1 + s**2)) for s in (S - step, S + step)])
    error = np.std(slopes, ddof=1) / np.sqrt(20)
    assert error < 0.05 * abs(want[0] / (2 * step))
    assert abs(np.mean(slopes) - want[0] / (2 * step)) < 4.5 * error


@pytest.mark.parametrize("backend", ["llvm", "xla"])
def test_normalized_programs_draw_from_the_posterior(backend: str) -> None:
    """The bias of resampling falls as 1 / particles: below 1% of the mean at 200."""
    mean, error = estimate(backend, "posterior_mean", S, X, 200, draws=8000)
    want = X / (1 + S**2)
    assert error < 0.02 * want
    assert abs(mean - want) < 4.5 * error + 0.01 * want


def test_evidence_of_a_normalized_program() -> None:
    """Log of the mean weight: a lower bound in expectation, tight for many particles."""
    want = stats.norm.logpdf(X, 0, SPREAD)
    (few, error), (many, _) = (estimate("llvm", "evidence", S, X, k) for k in (1, 50))
    assert few < want - 4.5 * error
    assert many == pytest.approx(want, abs=0.01)


def test_densities_of_a_normalized_program() -> None:
    want = stats.norm.pdf(0.9, X / (1 + S**2), S / SPREAD)
    mean, error = estimate("llvm", "posterior_density", S, X, 0.9, 200, draws=8000)
    assert error < 0.02 * want
    assert abs(mean - want) < 4.5 * error + 0.02 * want


def test_gradients_flow_through_the_resampled_particle() -> None:
    """d/dx of the posterior mean is 1 / (1 + s^2); the choice of a particle counts for it."""
    function = wg.compile(TEXT, real="f64").posterior_mean
    slopes = [function.grad(S, X, 30, key=wg.key(i), samples=4000, wrt="x") for i in range(20)]
    error = np.std(slopes, ddof=1) / np.sqrt(20)
    want = 1 / (1 + S**2)
    assert error < 0.05 * want
    assert abs(np.mean(slopes) - want) < 4.5 * error + 0.03 * want


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("t ~ marginal(pair(1.0), keep=[w])\n    return score(t)", "no choice called 'w'"),
        ("t ~ marginal()\n    return score(t)", "takes a program first"),
        ("t ~ marginal(pair(1.0), keep=[x], by=3)\n    return score(t)", "does not know this way"),
        (
            "t ~ normalize(pair(1.0), {q: 1.0}, by=importance(2, exact(1.0, 1.0)))\n    return score(t)",
            "'q'",
        ),
    ],
)
def test_bad_derived_programs(body: str, message: str) -> None:
    with pytest.raises(WengertError, match=message):
        wg.compile(f"{TEXT}\nobjective f(p: real):\n    {body}\n").f(1.0, key=wg.key(0))
