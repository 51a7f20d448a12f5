"""The examples do what they claim: small versions of `make demo`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from jax.scipy.special import logsumexp

import wengert as wg

EXAMPLES = Path(__file__).parent.parent / "examples"
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_old_faithful_reaches_the_known_maximum():
    """The two-component maximum of the log-likelihood, -1130.264, is that of R's mclust."""
    data = module(EXAMPLES / "demo.py").old_faithful()
    centre, scale = data.mean(axis=0), data.std(axis=0)
    program = wg.load(EXAMPLES / "gmm.wg", real="f64")
    start = {
        "alphas": np.zeros(2),
        "means": np.array([[-1.0, -1.0], [1.0, 1.0]]),
        "icf": np.zeros((2, 3)),
    }
    x = (data - centre) / scale
    fit = wg.fit(
        program.loss, {"mixture": start}, x=x, steps=1500, optimizer=wg.adam(2e-2), progress=False
    )
    log_likelihood = program.log_likelihood(fit.params["mixture"], x) - len(x) * np.log(scale).sum()
    np.testing.assert_allclose(log_likelihood, -1130.264, atol=2e-3)


def test_mixture_density_matches_scipy():
    from scipy.stats import multivariate_normal

    rng = np.random.default_rng(0)
    n, d, k = 6, 3, 2
    m = {
        "alphas": rng.normal(size=k),
        "means": rng.normal(size=(k, d)),
        "icf": rng.normal(size=(k, 6)),
    }
    x = rng.normal(size=(n, d))
    program = wg.load(EXAMPLES / "gmm.wg", real="f64")
    parts = []
    for c in range(k):
        q = np.array(program.factor(m["icf"][c], d))
        cov = np.linalg.inv(q.T @ q)
        weight = m["alphas"][c] - logsumexp(m["alphas"])
        parts.append(weight + multivariate_normal(m["means"][c], cov).logpdf(x))
    want = np.logaddexp(*parts).sum()
    np.testing.assert_allclose(program.log_likelihood(m, x), want, rtol=1e-6)


def test_digits_learn():
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'wengert[data]'")
    assert module(EXAMPLES / "demo.py").train_digits(steps=800) >= 0.97


def test_a_chair_is_found_from_its_voxels():
    example = module(EXAMPLES / "shapes" / "fit_chair.py")
    program = wg.load(EXAMPLES / "shapes" / "chair.wg")
    target = program.voxels(example.TRUE)
    start, _, found = example.fit(program, target)
    assert program.overlap(start, target) < 0.1 and program.overlap(found, target) > 0.95
    for name, value in example.TRUE.items():
        np.testing.assert_allclose(found[name], value, atol=0.3)
