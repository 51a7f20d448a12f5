"""The library's objectives on a conjugate model: u ~ N(theta, 1), x ~ N(u, 0.7) observed.

The evidence and the posterior are normal, so every bound and gradient has a closed form.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

import wengert as wg

TEXT = """
import objectives

model m(theta: real):
    u ~ normal(theta, 1.0)
    x ~ normal(u, 0.7)

guide q(phi: real[2]):
    u ~ normal(phi[0], exp(phi[1]))

objective elbo(theta: real, phi: real[2], x: real):
    return objectives.elbo(m(theta), q(phi), {x})
objective iwelbo(theta: real, phi: real[2], x: real):
    return objectives.iwelbo(m(theta), q(phi), {x}, 200)
objective renyi(theta: real, phi: real[2], x: real):
    return objectives.renyi(m(theta), q(phi), {x}, 0.0, 200)
objective wake_theta(theta: real, phi: real[2], x: real):
    return objectives.wake_theta(m(theta), q(phi), {x}, 200)
objective wake_phi(theta: real, phi: real[2], x: real):
    return objectives.wake_phi(m(theta), q(phi), {x}, 200)
objective forward_kl(theta: real, phi: real[2], x: real):
    return objectives.forward_kl(m(theta), q(phi), {x}, 200)
objective symmetric_kl(theta: real, phi: real[2], x: real):
    return objectives.symmetric_kl(m(theta), q(phi), {x}, 200)
objective vr_iwae(theta: real, phi: real[2], x: real, alpha: real):
    return objectives.vr_iwae(m(theta), q(phi), {x}, alpha, 4)

objective local(phi: real[2], xs: real[n], i: i32):
    return objectives.elbo(m(0.2), q(phi), {x: xs[i]})
objective minibatch(phi: real[2], xs: real[n], size: static int):
    return objectives.average(lambda i, key: local(phi, xs, i, key=key), n, size)
"""
THETA, X = 0.2, 1.1
PHI = np.array([0.5, -0.2])
VARIANCE = 1 + 0.7**2
EVIDENCE = stats.norm.logpdf(X, THETA, np.sqrt(VARIANCE))
MEAN, SPREAD = (THETA * 0.49 + X) / VARIANCE, 0.49 / VARIANCE
SD = np.exp(PHI[1])


def gaussian_kl(m: float, v: float, n: float, w: float) -> float:
    """KL(N(m, v) || N(n, w))."""
    return 0.5 * (np.log(w / v) + (v + (m - n) ** 2) / w - 1)


ELBO = EVIDENCE - gaussian_kl(PHI[0], SD**2, MEAN, SPREAD)
FORWARD = -gaussian_kl(MEAN, SPREAD, PHI[0], SD**2)
ELBO_SLOPE = np.array([(MEAN - PHI[0]) / SPREAD, 1 - SD**2 / SPREAD])
FORWARD_SLOPE = np.array([(MEAN - PHI[0]) / SD**2, (SPREAD + (MEAN - PHI[0]) ** 2) / SD**2 - 1])
EVIDENCE_SLOPE = (X - THETA) / VARIANCE


def estimates(name: str, wrt: str, *more: Any, backend: str = "llvm") -> Any:
    """Values and gradients of an objective from 16 keys of 2 000 samples each."""
    function = getattr(wg.compile(TEXT, real="f64", backend=backend), name)
    runs = [
        function.value_and_grad(THETA, PHI, X, *more, key=wg.key(i), samples=2000, wrt=wrt)
        for i in range(16)
    ]
    return np.array([float(v) for v, _ in runs]), np.array([np.asarray(g) for _, g in runs])


def close(found: np.ndarray, want: Any, bias: float = 0.0) -> None:
    """The mean of runs is `want` within 4.5 standard errors (each below 2%) and a known bias."""
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert (error < 0.02 * np.max(np.abs(want))).all()
    assert (np.abs(found.mean(axis=0) - want) < 4.5 * error + bias).all()


@pytest.mark.parametrize("backend", ["llvm", "xla"])
def test_elbo(backend: str) -> None:
    values, slopes = estimates("elbo", "phi", backend=backend)
    close(values, ELBO)
    close(slopes, ELBO_SLOPE)


@pytest.mark.parametrize("name", ["iwelbo", "renyi", "wake_theta"])
def test_tight_bounds(name: str) -> None:
    """With 200 draws the bound is the evidence up to about 0.002."""
    values, slopes = estimates(name, "theta")
    close(values, EVIDENCE, bias=0.005)
    close(slopes, EVIDENCE_SLOPE, bias=0.005)


def test_wake_theta_holds_the_guide_fixed() -> None:
    _, slopes = estimates("wake_theta", "phi")
    assert not slopes.any()


@pytest.mark.parametrize("name", ["wake_phi", "forward_kl"])
def test_gradients_of_the_forward_divergence(name: str) -> None:
    """Self-normalised weights of 200 draws: a bias of about 1%."""
    values, slopes = estimates(name, "phi")
    close(slopes, FORWARD_SLOPE, bias=0.01)
    if name == "forward_kl":
        close(values, FORWARD, bias=0.005)
    _, by_theta = estimates(name, "theta")
    assert not by_theta.any()


def test_symmetric_divergence() -> None:
    values, slopes = estimates("symmetric_kl", "phi")
    close(values, 0.5 * (ELBO + FORWARD), bias=0.005)
    close(slopes, 0.5 * (ELBO_SLOPE + FORWARD_SLOPE), bias=0.01)


def test_vr_iwae_lies_between_the_elbo_and_the_evidence() -> None:
    low, middle, high = (estimates("vr_iwae", "phi", a)[0].mean() for a in (0.9, 0.5, 0.0))
    assert ELBO < low < middle < high < EVIDENCE


def test_minibatches_are_unbiased() -> None:
    """The mean over 3 of 7 rows, each once at most; all 7 rows give the mean itself."""
    program = wg.compile(TEXT, real="f64")
    xs = np.linspace(-1.0, 2.0, 7)
    runs = [
        program.minibatch.value_and_grad(PHI, xs, 3, key=wg.key(i), samples=2000) for i in range(16)
    ]
    variance = 1 + 0.49
    means = (0.2 * 0.49 + xs) / variance
    spread = 0.49 / variance
    bounds = stats.norm.logpdf(xs, 0.2, np.sqrt(variance))
    bounds = bounds - [gaussian_kl(PHI[0], SD**2, m, spread) for m in means]
    close(np.array([float(v) for v, _ in runs]), bounds.mean())
    slope = np.array([np.mean(means - PHI[0]) / spread, 1 - SD**2 / spread])
    close(np.array([g for _, g in runs]), slope)


# A model with three latent values: expectations of two particles are sums over nine pairs

DISCRETE = """
import objectives

model m(theta: real[3]):
    z ~ categorical_logit([0.0, theta[0], theta[1]])
    x ~ normal([-1.0, 0.5, 2.0][z], exp(theta[2]))

guide q(phi: real[3]):
    z ~ categorical_logit(phi) by {by}
"""
NAMES = ("elbo", "iwelbo", "renyi", "wake_theta", "wake_phi", "forward_kl", "symmetric_kl")
ARGUMENTS = {"elbo": "", "renyi": ", 0.3, 2"}
ANGLES, LOGITS = np.array([0.4, -0.3, 0.1]), np.array([0.2, -0.1, 0.5])


def discrete(by: str) -> str:
    lines = [DISCRETE.format(by=by)]
    for name in NAMES:
        more = ARGUMENTS.get(name, ", 2")
        lines.append(
            f"objective {name}(theta: real[3], phi: real[3], x: real):\n"
            f"    return objectives.{name}(m(theta), q(phi), {{x}}{more})\n"
        )
    return "\n".join(lines)


def logs(theta: Any, phi: Any) -> tuple[Any, Any]:
    """log p(z, x) and log q(z) for every z."""
    prior = np.concatenate([[0.0], theta[:2]])
    joint = prior - np.logaddexp.reduce(prior)
    joint = joint + stats.norm.logpdf(X, [-1.0, 0.5, 2.0], np.exp(theta[2]))
    return joint, phi - np.logaddexp.reduce(phi)


def exact(name: str, theta: Any, phi: Any, theta0: Any, phi0: Any) -> float:
    """The expectation at (theta, phi), draws and weights that are held fixed being of (theta0, phi0)."""
    joint, guide = logs(theta, phi)
    joint0, guide0 = logs(theta0, phi0)
    if name == "elbo":
        return float(np.exp(guide) @ (joint - guide))
    if name == "symmetric_kl":
        both = (exact(n, theta, phi, theta0, phi0) for n in ("elbo", "forward_kl"))
        return 0.5 * sum(both)
    total = 0.0
    for pair in np.ndindex(3, 3):
        at = list(pair)
        w, w0 = (joint - guide)[at], (joint0 - guide0)[at]
        share = np.exp(w0 - np.logaddexp.reduce(w0))
        bound0 = np.logaddexp.reduce(w0) - np.log(2)
        drawn, drawn0 = np.exp(guide[at].sum()), np.exp(guide0[at].sum())
        total += {
            "iwelbo": lambda w=w, p=drawn: p * (np.logaddexp.reduce(w) - np.log(2)),
            "renyi": lambda w=w, p=drawn: p * (np.logaddexp.reduce(0.7 * w) - np.log(2)) / 0.7,
            "wake_theta": lambda at=at, p=drawn0: (
                p * (np.logaddexp.reduce((joint - guide0)[at]) - np.log(2))
            ),
            "wake_phi": lambda at=at, p=drawn0, s=share: p * (s @ guide[at]),
            "forward_kl": lambda at=at, p=drawn0, s=share, b=bound0: (
                p * (s @ (guide - joint0)[at] + b)
            ),
        }[name]()
    return float(total)


@pytest.mark.parametrize("by", ["reinforce", "enum", "mvd"])
@pytest.mark.parametrize("name", NAMES)
def test_discrete_latents(name: str, by: str) -> None:
    """Values and gradients of two particles have their exact means; `enum` leaves no noise in
    what is not held fixed.
    """
    function = getattr(wg.compile(discrete(by), real="f64"), name)
    parts: dict[str, Any] = {"theta": ANGLES, "phi": LOGITS}
    runs = [
        function.value_and_grad(
            ANGLES, LOGITS, X, key=wg.key(i), samples=5000, wrt=("theta", "phi")
        )
        for i in range(16)
    ]
    fixed = {"theta0": ANGLES, "phi0": LOGITS}
    near(np.array([float(v) for v, _ in runs]), exact(name, **parts, **fixed))
    for i, at in enumerate(parts):
        steps = np.eye(3) * 1e-5
        want = [
            exact(name, **(parts | {at: parts[at] + s}), **fixed)
            - exact(name, **(parts | {at: parts[at] - s}), **fixed)
            for s in steps
        ]
        near(np.array([g[i] for _, g in runs]), np.array(want) / 2e-5)
    if by == "enum" and name in ("elbo", "iwelbo", "renyi"):
        assert np.std([float(v) for v, _ in runs]) < 1e-12


def near(found: np.ndarray, want: Any) -> None:
    """The mean of runs is `want` within 6 standard errors (of 15 degrees of freedom), each below 0.01."""
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert (error < 0.01).all()
    assert (np.abs(found.mean(axis=0) - want) < 6 * error + 1e-8).all()


# Amortised guides

AMORTIZED = """
import objectives

model m(theta: real):
    u ~ normal(theta, 1.0)
    x ~ normal(u, 0.7)

guide q(phi: real[3], x: real):
    u ~ normal(phi[0] + phi[1] * x, exp(phi[2]))

objective whole(phi: real[3], theta: real, xs: real[n], size: static int):
    return objectives.amortized_elbo(lambda x: m(theta), lambda x: q(phi, x), lambda x: {x}, xs, size)
"""


@pytest.mark.parametrize("backend", ["llvm", "xla"])
@pytest.mark.parametrize("size", [2, 5])
def test_amortized_elbo(backend: str, size: int) -> None:
    """The mean over the rows of the ELBO of a guide that reads its row."""
    function = wg.compile(AMORTIZED, real="f64", backend=backend).whole
    phi, xs = np.array([0.1, 0.5, -0.3]), np.linspace(-1.0, 2.0, 5)

    def exact(phi: Any) -> float:
        bounds = [
            stats.norm.logpdf(x, THETA, np.sqrt(VARIANCE))
            - gaussian_kl(
                phi[0] + phi[1] * x, np.exp(2 * phi[2]), (THETA * 0.49 + x) / VARIANCE, SPREAD
            )
            for x in xs
        ]
        return float(np.mean(bounds))

    runs = [
        function.value_and_grad(phi, THETA, xs, size, key=wg.key(i), samples=4000)
        for i in range(16)
    ]
    close(np.array([float(v) for v, _ in runs]), exact(phi))
    slope = [(exact(phi + s) - exact(phi - s)) / 2e-5 for s in np.eye(3) * 1e-5]
    close(np.array([np.asarray(g) for _, g in runs]), np.array(slope))
