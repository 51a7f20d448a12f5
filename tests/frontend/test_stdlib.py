"""The library written in the language, against NumPy and SciPy."""

from __future__ import annotations

import importlib.resources
from typing import Any

import numpy as np
import pytest
from scipy import special, stats
from wengert.frontend.program import compile_text
from wengert.frontend.specialize import Static
from wengert.frontend.type_errors import AssertionFailed
from wengert.ir.types import F64

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4))
Y = RNG.normal(size=(5, 4))
V = RNG.normal(size=7)
A = RNG.normal(size=(4, 4))
S = A @ A.T + np.eye(4)
L = np.linalg.cholesky(S)
P = special.softmax(X, -1)
Q = special.softmax(Y, -1)
LABELS = np.array([0, 3, 1, 1, 2], np.int32)


def normalised(x: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def power(a: Any, k: int) -> Any:
    return np.linalg.matrix_power(a, k)


HUBER = np.where(np.abs(X - Y) < 1, (X - Y) ** 2 / 2, np.abs(X - Y) - 0.5)
CASES: list[tuple[str, Any]] = [
    ("nn.relu(x)", np.maximum(X, 0)), ("nn.leaky_relu(x)", np.where(X > 0, X, 0.01 * X)),
    ("nn.elu(x)", np.where(X > 0, X, np.expm1(X))), ("nn.gelu(x)", X * stats.norm.cdf(X)),
    ("nn.silu(x)", X * special.expit(X)), ("nn.softmax(x)", P), ("nn.softmax(x, axis=0)", special.softmax(X, 0)),
    ("nn.log_softmax(x)", special.log_softmax(X, -1)), ("nn.linear(x, a, v[:4])", X @ A + V[:4]),
    ("nn.layer_norm(x, 2.0, v[:4])", 2 * normalised(X) + V[:4]),
    ("nn.rms_norm(x, 1)", X / np.sqrt((X**2).mean(-1, keepdims=True) + 1e-6)),
    ("nn.embedding(x, labels)", X[LABELS]), ("nn.cross_entropy(x, labels)", -np.log(P)[np.arange(5), LABELS]),
    ("nn.binary_cross_entropy(x, real(x > y))", -np.log(np.where(X > Y, special.expit(X), special.expit(-X)))),
    ("nn.squared_error(x, y)", ((X - Y) ** 2).sum(-1)), ("nn.huber(x, y)", HUBER),
    ("linalg.solve_spd(s, v[:4])", np.linalg.solve(S, V[:4])), ("linalg.logdet_spd(s)", np.linalg.slogdet(S)[1]),
    ("linalg.inverse_spd(s)", np.linalg.inv(S)), ("linalg.solve(a, x.T)", np.linalg.solve(A, X.T)),
    ("linalg.solve(a, v[:4])", np.linalg.solve(A, V[:4])), ("linalg.inverse(a)", np.linalg.inv(A)),
    ("linalg.det(a)", np.linalg.det(A)), ("linalg.slogdet(-a[1:, 1:])[0]", np.linalg.slogdet(-A[1:, 1:])[0]),
    ("linalg.qr(x)[0] @ linalg.qr(x)[1]", X), ("linalg.qr(x)[0].T @ linalg.qr(x)[0]", np.eye(4)),
    ("tril(linalg.qr(x)[1], -1)", np.zeros((4, 4))), ("linalg.matrix_power(a, 5)", power(A, 5)), ("linalg.matrix_power(a, 0)", np.eye(4)),
    ("linalg.kron(a, x)", np.kron(A, X)), ("linalg.cross(x[:, :3], y[:, :3])", np.cross(X[:, :3], Y[:, :3])),
    ("stats.covariance(x)", np.cov(X.T)), ("stats.correlation(x)", np.corrcoef(X.T)),
    ("stats.standardize(x)", (X - X.mean(0)) / X.std(0)), ("stats.quantile(v, 0.3)", np.quantile(V, 0.3)),
    ("stats.quantile(v, 1)", V.max()), ("stats.median(v)", np.median(V)), ("stats.normal_logpdf(x, y, 2.0)", stats.norm.logpdf(X, Y, 2)),
    ("stats.normal_cdf(x - 6)", stats.norm.cdf(X - 6)), ("stats.normal_quantile(p)", stats.norm.ppf(P)),
    ("stats.multivariate_normal_logpdf(x, v[:4], cholesky(s))", stats.multivariate_normal.logpdf(X, V[:4], S)),
    ("stats.entropy(p)", stats.entropy(P, axis=-1)), ("stats.entropy(eye(3) + 0 * v[0])", np.zeros(3)),
    ("stats.relative_entropy(p, q)", stats.entropy(P, Q, axis=-1)),
    ("stats.effective_sample_size(x)", np.exp(X).sum(-1) ** 2 / np.exp(2 * X).sum(-1)),
    ("numeric.polynomial(v, x)", np.polynomial.polynomial.polyval(X, V)),
    ("numeric.interpolate(x, sort(v), v)", np.interp(X, np.sort(V), V)), ("numeric.trapezoid(v, sort(v))", np.trapezoid(V, np.sort(V))),
    ("numeric.bisect(lambda t: t^3 - 2, 0, 2)", 2 ** (1 / 3)), ("numeric.runge_kutta(lambda t, u: -u * t, v, 0, 1, 50)", V * np.exp(-0.5)),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "expected"), CASES, ids=[c[0] for c in CASES])
def test_library(run: Any, expression: str, expected: Any) -> None:
    imports = "import nn\nimport linalg\nimport stats\nimport numeric\n"
    text = f"{imports}fn f(x, y, v, a, s, p, q, labels): return {expression}\n"
    args = {"x": X, "y": Y, "v": V, "a": A, "s": S, "p": P, "q": Q, "labels": LABELS}
    out = run(text, real=F64, **args)
    np.testing.assert_allclose(out, expected, rtol=1e-7, atol=1e-9)
    assert out.dtype == np.float64


@pytest.mark.usefixtures("differences")
def test_newton(run: Any) -> None:
    text = "import numeric\nfn f(x: real): return numeric.newton(lambda t: t^2 - 2, x)\n"
    np.testing.assert_allclose(run(text, real=F64, x=1.0), np.sqrt(2))


def test_mlp(run: Any, seed: Any) -> None:
    text = """
import nn
fn f(k: key, x: real[n, 4]):
    layers = nn.mlp_init(k, (4, 8, 8, 2))
    return nn.mlp(layers, x, tanh), layers
"""
    out, layers = run(text, real=F64, k=seed(1), x=X)
    h = X
    for i, layer in enumerate(layers):
        h = (np.tanh(h) if i else h) @ layer["w"] + layer["b"]
    np.testing.assert_allclose(out, h)
    assert [layer["w"].shape for layer in layers] == [(4, 8), (8, 8), (8, 2)]
    assert not np.array_equal(layers[0]["w"][:, :2], layers[2]["w"][:4])


def test_attention_and_gru(run: Any, seed: Any) -> None:
    text = """
import nn
fn f(k: key, x: real[n, 4]):
    p = nn.attention_init(k, 4, 2)
    cell = nn.gru_init(k, 4, 3)
    last, states = scan(lambda h, row: pair(nn.gru(cell, h, row)), zeros(3), x)
    return nn.multi_head(p, x), nn.multi_head(p, x, causal=true), p, cell, states
fn pair(h): return h, h
"""
    full, causal, p, cell, states = run(text, real=F64, k=seed(2), x=X)

    def heads(mask: Any) -> Any:
        q, k, v = (np.einsum("nd,dhe->hne", X, p[n]) for n in ("query", "key", "value"))
        scores = np.einsum("hne,hme->hnm", q, k) / np.sqrt(2)
        weights = special.softmax(np.where(mask, scores, -np.inf), -1)
        return np.einsum("hnm,hme,hed->nd", weights, v, p["out"])

    np.testing.assert_allclose(full, heads(np.ones((5, 5), bool)))
    np.testing.assert_allclose(causal, heads(np.tri(5, dtype=bool)))
    h = np.zeros(3)
    for row, state in zip(X, states, strict=True):
        a = row @ cell["input"]["w"] + cell["input"]["b"]
        b = h @ cell["state"]["w"] + cell["state"]["b"]
        reset, update = special.expit(a[:3] + b[:3]), special.expit(a[3:6] + b[3:6])
        h = (1 - update) * np.tanh(a[6:] + reset * b[6:]) + update * h
        np.testing.assert_allclose(state, h)


def test_dropout_and_initial_weights(run: Any, seed: Any) -> None:
    text = """
import nn
fn f(k: key, rate: static float):
    a, b = split(k)
    return nn.dropout(a, ones(10000), rate), nn.he(b, 100, 50), nn.glorot(b, 100, 50)
"""
    dropped, he, glorot = run(text, k=seed(0), rate=Static(0.2))
    assert set(np.unique(dropped).tolist()) == {0.0, 1.25}
    assert abs(dropped.mean() - 1) < 0.02
    np.testing.assert_allclose([he.var(), glorot.var()], [2 / 100, 2 / 150], rtol=0.1)
    with pytest.raises(AssertionFailed, match="rate of dropout"):
        run(text, k=seed(0), rate=Static(1.0))


def test_every_library_function_has_a_sentence() -> None:
    names = [f.name for f in importlib.resources.files("wengert.stdlib").iterdir()]
    modules = [n.removesuffix(".wg") for n in names if n.endswith(".wg")]
    assert "nn" in modules
    for name in modules:
        module = compile_text(f"import {name}\n").main.imports[name]
        for decl in module.file.declarations:
            helper = decl.name.endswith(("_rule", "_value"))
            assert helper or getattr(decl, "doc", "x"), f"{name}.{decl.name}"
