"""Every builtin, against NumPy and SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import special
from wengert.frontend.builtin_table import BUILTINS
from wengert.frontend.specialize import Static
from wengert.ir.types import F64

RNG = np.random.default_rng(0)
X = RNG.uniform(0.1, 0.9, 4)
Y = RNG.normal(size=4)
M = RNG.normal(size=(3, 4))
T = RNG.normal(size=(2, 3, 4))
S = M @ M.T + 3 * np.eye(3)
I = np.array([2, 0, 3, 3], np.int32)
B = Y > 0


def softplus(x: Any) -> Any:
    return np.log1p(np.exp(x))


CASES: list[tuple[str, Any]] = [
    *((f"{n}(x)", getattr(np, n)(X)) for n in ["exp", "expm1", "log", "log1p", "sqrt", "sin",
      "cos", "tan", "sinh", "cosh", "tanh", "floor", "ceil", "trunc"]),
    ("rsqrt(x)", X**-0.5),
    ("asin(x)", np.arcsin(X)), ("acos(x)", np.arccos(X)), ("atan(y)", np.arctan(Y)),
    ("asinh(y)", np.arcsinh(Y)), ("acosh(1 + x)", np.arccosh(1 + X)), ("atanh(x)", np.arctanh(X)),
    ("sigmoid(y)", special.expit(Y)), ("erf(y)", special.erf(Y)), ("erfc(y)", special.erfc(Y)),
    ("erfinv(x)", special.erfinv(X)), ("lgamma(x)", special.gammaln(X)),
    ("digamma(x)", special.digamma(X)), ("trigamma(x)", special.polygamma(1, X)),
    ("round(3 * y)", np.rint(3 * Y)), ("round(2.5) + i", 2 + I),
    ("abs(y)", np.abs(Y)), ("sign(y)", np.sign(Y)), ("square(y)", Y**2), ("pow(x, y)", X**Y),
    ("isfinite(y / (y - y))", np.zeros(4, bool)), ("isnan(y * inf - inf)", Y > 0),
    ("isinf(y * inf)", np.ones(4, bool)), ("stop_gradient(y)", Y),
    ("maximum(x, y)", np.maximum(X, Y)), ("minimum(y, 0)", np.minimum(Y, 0)),
    ("max(x, y)", np.maximum(X, Y)), ("min(2, 3) + i", I + 2), ("max(m)", M.max()),
    ("max(m, axis=1)", M.max(1)), ("min(m, axis=(0, 1))", M.min()), ("max(m, 0)", M.max(0)),
    ("min(m, axis=-1, keepdims=true)", M.min(1, keepdims=True)), ("max(y[0], 0)", max(Y[0], 0)),
    ("clip(y, -0.5, 0.5)", np.clip(Y, -0.5, 0.5)), ("atan2(y, x)", np.arctan2(Y, X)),
    ("where(y > 0, x, 0)", np.where(B, X, 0)), ("where(b, m, x)", np.where(B, M, X)),
    ("where(true, x[0], y)", np.full(4, X[0])),
    ("logaddexp(y, x)", np.logaddexp(Y, X)), ("logaddexp(-inf * x, y)", Y),
    ("softplus(y)", softplus(Y)), ("xor(b, true)", ~B), ("xor(i, 1)", I ^ 1),
    ("sum(m)", M.sum()), ("sum(t, axis=(0, -1))", T.sum((0, 2))), ("sum(b)", B.sum()),
    ("sum(m, axis=0, keepdims=true)", M.sum(0, keepdims=True)), ("prod(m, axis=1)", M.prod(1)),
    ("mean(m, axis=0)", M.mean(0)), ("mean(b)", B.mean()), ("mean(i)", I.mean()),
    ("var(m, axis=1)", M.var(1)), ("std(m, correction=1)", M.std(ddof=1)),
    ("var(m, axis=0, keepdims=true)", M.var(0, keepdims=True)),
    ("any(b)", B.any()), ("all(m > -9, axis=1)", np.ones(3, bool)),
    ("argmax(m)", M.argmax()), ("argmin(m, axis=0)", M.argmin(0)),
    ("logsumexp(m, axis=1)", special.logsumexp(M, 1)), ("logsumexp(-inf * x)", -np.inf),
    ("logsumexp(t, axis=(0, 2), keepdims=true)", special.logsumexp(T, (0, 2), keepdims=True)),
    ("cumsum(m, axis=1)", M.cumsum(1)), ("cumsum(x, reverse=true)", X[::-1].cumsum()[::-1]),
    ("sort(m)", np.sort(M)), ("sort(m, axis=0)", np.sort(M, 0)), ("argsort(y)", np.argsort(Y)),
    ("norm(m)", np.linalg.norm(M)), ("norm(m, axis=1)", np.linalg.norm(M, axis=1)),
    ("zeros(2, 3)", np.zeros((2, 3))), ("ones((2,))", np.ones(2)), ("full((2, 2), 3)", np.full((2, 2), 3, "i4")),
    ("full(2, x[0])", np.full(2, X[0])), ("zeros_like(i)", np.zeros(4, "i4")), ("ones_like(m)", np.ones((3, 4))),
    ("eye(3)", np.eye(3)), ("arange(3)", np.arange(3, dtype="i4")), ("arange(2, 5)", np.arange(2, 5, dtype="i4")),
    ("linspace(0, 2, 5)", np.linspace(0, 2, 5)), ("linspace(y[0], 1, 3)", np.linspace(Y[0], 1, 3)),
    ("one_hot(i, 4)", np.eye(4)[I]), ("len(t) + size(m) + rank(t) + i", I + 17),
    ("shape(t)", (2, 3, 4)), ("t.shape[1] + i", I + 3),
    ("reshape(m, (2, -1))", M.reshape(2, 6)), ("reshape(m, 12)", M.ravel()), ("flatten(m)", M.ravel()),
    ("reshape(m, 4, 3)", M.reshape(4, 3)), ("broadcast_to(x, (3, 4))", np.broadcast_to(X, (3, 4))),
    ("squeeze(m[:1], 0)", M[0]), ("transpose(t)", T.T), ("transpose(t, (1, 0, 2))", T.transpose(1, 0, 2)),
    ("swapaxes(t, 0, -1)", T.swapaxes(0, -1)), ("moveaxis(t, 0, 2)", np.moveaxis(T, 0, 2)),
    ("concat((x, y))", np.concatenate([X, Y])), ("concat((m, m), axis=1)", np.concatenate([M, M], 1)),
    ("concat(m)", M.ravel()), ("stack((x, y), axis=1)", np.stack([X, Y], 1)), ("flip(m, axis=0)", M[::-1]), ("flip(m)", M[::-1, ::-1]),
    ("roll(m, 1, axis=1)", np.roll(M, 1, 1)), ("roll(x, -2)", np.roll(X, -2)),
    ("repeat(x, 2)", X.repeat(2)), ("tile(m, 2, axis=1)", np.tile(M, (1, 2))),
    ("pad(x, (1, 2), value=7)", np.pad(X, (1, 2), constant_values=7)), ("pad(m, ((0, 1), (2, 0)))", np.pad(M, ((0, 1), (2, 0)))),
    ("take(m, i, axis=1)", M[:, I]), ("take_along(m, i[:3])", M[np.arange(3), I[:3]]),
    ("scatter_add(zeros(4), i, x)", np.bincount(I, X, 4)), ("tril(m)", np.tril(M)), ("triu(t, 1)", np.triu(T, 1)),
    ("dot(m, x)", M @ X), ("outer(x, y)", np.outer(X, Y)), ("trace(m @ m.T)", np.trace(M @ M.T)),
    ("einsum(\"ij,kj->ik\", m, m)", M @ M.T), ("einsum(\"aij,ij,j->a\", t, m, x)", np.einsum("aij,ij,j->a", T, M, X)),
    ("einsum(\"ij->j\", m)", M.sum(0)), ("einsum(\"i,j->ji\", x, y)", np.outer(Y, X)),
    ("cholesky(s)", np.linalg.cholesky(S)), ("solve_triangular(cholesky(s), m) ", np.linalg.solve(np.linalg.cholesky(S), M)),
    ("solve_triangular(cholesky(s), m[:, 0], trans=true)", np.linalg.solve(np.linalg.cholesky(S).T, M[:, 0])),
    ("solve_triangular(triu(s), m, lower=false)", np.linalg.solve(np.triu(S), M)),
    ("diag(x)", np.diag(X)), ("diag(m)", np.diag(M)), ("diag(m.T)", np.diag(M)), ("diag(t)", np.diagonal(T, 0, 1, 2)),
    ("vmap(lambda r: r * 2)(m)", M * 2), ("vmap(lambda r, v: r * v, m, y[:3])", M * Y[:3, None]),
    ("map(lambda r, v: sum(r) * v, m, y[:3])", M.sum(1) * Y[:3]),
    ("scan(lambda c, v: (c + v, c * v), 0, x)", (X.sum(), (np.cumsum(X) - X) * X)),
    ("scan(lambda c, v: (c + v, c), 0, x, reverse=true)[1]", X[::-1].cumsum()[::-1] - X),
    ("fold(lambda c, v: c * v, 1, x)", X.prod()),
    ("switch(i[0], (sin, cos, tan), x)", np.tan(X)), ("switch(1, (sin, cos), x)", np.cos(X)),
    ("select_tree(y[0] > 9, (x, 1), (y, 2))", (Y, np.int32(2))),
    ("f64(i) + x", I + X), ("i32(3 * y)", (3 * Y).astype("i4")), ("bool(i)", I != 0), ("i64(2^40) + i64(i)", 2**40 + I.astype("i8")),
    ("pi + e + x", np.pi + np.e + X),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "expected"), CASES, ids=[c[0] for c in CASES])
def test_builtin(run: Any, expression: str, expected: Any) -> None:
    text = f"fn f(x, y, m, t, s, i, b):\n    return {expression}\n"
    out = run(text, real=F64, x=X, y=Y, m=M, t=T, s=S, i=I, b=B)
    pairs = zip(out, expected, strict=True) if isinstance(expected, tuple) else [(out, expected)]
    for got, want in pairs:
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)
        assert np.shape(got) == np.shape(want)
        if np.asarray(want).dtype != np.int64:
            assert got.dtype == np.asarray(want).dtype


RANDOM = {"key", "split", "fold_in", "random_bits", "uniform", "normal", "gumbel", "exponential",
          "bernoulli", "categorical", "permutation", "randint"}  # fmt: skip
# tested with the programs that they are about: test_programs.py, and tests of shapes and trees
OF_PROGRAMS = ("builtins_programs", "builtins_shapes", "builtins_trees")
PROGRAMS = {n for n, f in BUILTINS.items() if f.run.__module__.endswith(OF_PROGRAMS)}
ELSEWHERE = PROGRAMS | {
    "grad",
    "value_and_grad",
    "vjp",
    "jvp",
    "jacobian",
    "hessian",
    "zip",
    "enumerate",
}


def test_every_builtin_is_tested() -> None:
    texts = " ".join(c[0] for c in CASES)
    untested = {n for n in BUILTINS if f"{n}(" not in texts} - RANDOM - ELSEWHERE
    assert not untested


def test_every_builtin_has_a_sentence_and_a_signature() -> None:
    assert all(len(f.doc) > 5 and f.doc.endswith(".") for f in BUILTINS.values())
    assert BUILTINS["sum"].text == "sum(x, axis=None, keepdims=false)"


def test_random_builtins_draw_what_ir_random_defines(run: Any, seed: Any) -> None:
    text = """
fn f(k: key):
    ks = split(k, 4)
    a, b = split(k)
    u = uniform(ks[0], (1000,), low=-1, high=3)
    z = normal(ks[1], 1000)
    c = [categorical(fold_in(ks[2], j), [0.0, 1.0, -inf]) for j in 0..300]
    p = permutation(ks[3], 50)
    n = [normal(q) for q in ks]
    return u, z, c, p, n, bernoulli(a, 0.25, (1000,)), randint(b, (500,), -2, 3), key(7), random_bits(b, 3)
"""
    u, z, c, p, n, flips, whole, seven, bits = run(text, k=seed(3))
    assert -1 <= u.min() < -0.95 and 2.95 < u.max() < 3
    assert abs(z.mean()) < 0.15 and abs(z.std() - 1) < 0.1
    assert set(c.tolist()) == {0, 1} and 0.6 < c.mean() < 0.85
    assert sorted(p.tolist()) == list(range(50)) and p.tolist() != list(range(50))
    assert len(set(n.tolist())) == 4
    assert 0.2 < flips.mean() < 0.3 and flips.dtype == bool
    assert set(whole.tolist()) == {-2, -1, 0, 1, 2}
    assert int(seven) == 7 << 32 and bits.dtype == np.uint32
    again = run(text, k=seed(3))
    np.testing.assert_array_equal(u, again[0])


def test_random_builtins_follow_real(run: Any, seed: Any) -> None:
    text = "fn f(k: key): return normal(k, (2,)), gumbel(k), exponential(k, 3), uniform(k)\n"
    assert {o.dtype.name for o in run(text, k=seed(0))} == {"float32"}
    assert {o.dtype.name for o in run(text, real=F64, k=seed(0))} == {"float64"}


# Indexing

A = RNG.normal(size=(4, 5, 6))
J = np.array([3, 0], np.int32)
K = np.array([[1, 2], [4, 0]], np.int32)
INDICES = [
    ("a[0]", A[0]), ("a[-1]", A[-1]), ("a[1:3]", A[1:3]), ("a[:, ::2]", A[:, ::2]), ("a[..., 1]", A[..., 1]),
    ("a[0, ..., 1:]", A[0, :, 1:]), ("a[:, None, 0]", A[:, None, 0]), ("a[None]", A[None]), ("a[..., None]", A[..., None]),
    ("a[d]", A[2]), ("a[d, :, d]", A[2, :, 2]), ("a[:, d, 1:3]", A[:, 2, 1:3]), ("a[d + 99]", A[3]), ("a[d, 1]", A[2, 1]),
    ("a[j]", A[J]), ("a[:, k]", A[:, K]), ("a[0, k]", A[0, K]), ("a[j, j]", A[J, J]), ("a[j, :, 1:3]", A[J, :, 1:3]),
    ("a[:, j, j]", A[:, J, J]), ("a[1:, k, 0]", A[1:, K, 0]), ("a[j, None]", A[J][:, None]), ("a[d, k]", A[2, K]),
    ("a[j[:, None], k]", A[J[:, None], K]), ("a[d:d + 2]", A[2:4]), ("a[d - 1:d - 1 + 2, 0]", A[1:3, 0]),
    ("a[:0]", A[:0]), ("a[3:1]", A[3:1]), ("a[-2:]", A[-2:]), ("a[10:]", A[10:]), ("a[i64(d)]", A[2]),
    ("(a, d)[0][1]", A[1]), ("{p: a, q: a[0]}[1].q", A[0][1]), ("a[len(j), rank(a)]", A[2, 3]),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "expected"), INDICES, ids=[c[0] for c in INDICES])
def test_reading_by_index(run: Any, expression: str, expected: Any) -> None:
    text = f"fn f(a, j, k, d):\n    return {expression}\n"
    out = run(text, a=A, j=J, k=K, d=2)
    np.testing.assert_array_equal(out, expected)
    assert out.shape == expected.shape


@pytest.mark.parametrize(
    ("target", "index", "value"),
    [
        ("a[0]", np.s_[0], 1.0),
        ("a[-1, 2]", np.s_[-1, 2], A[0, 0]),
        ("a[1:3]", np.s_[1:3], A[0]),
        ("a[:, ::2, 1]", np.s_[:, ::2, 1], 7.0),
        ("a[d, :, 1:3]", np.s_[2, :, 1:3], 7.0),
        ("a[d:d + 2]", np.s_[2:4], A[0]),
        ("a[..., 0]", np.s_[..., 0], 3.0),
        ("a[:]", np.s_[:], A[0]),
        ("a[:0]", np.s_[:0], 1.0),
        ("a[0][1]", np.s_[0, 1], 1.0),
    ],
)
def test_writing_by_index(run: Any, target: str, index: Any, value: Any) -> None:
    text = f"fn f(a, d, v):\n    {target} = v\n    {target} += 2 * v\n    return a\n"
    want = A.copy()
    want[index] = 3 * np.asarray(value)
    np.testing.assert_allclose(run(text, real=F64, a=A, d=2, v=value), want)


def test_adding_at_index_arrays_adds_up(run: Any) -> None:
    text = """
fn f(a, j, k, v):
    b = a
    a[j] += v
    a[1:, k, 0] -= 1
    r = {x: b}
    r.x[:, j, j] += 1
    return a, r.x
"""
    twice = np.array([1, 1], np.int32)
    want = A.copy()
    np.add.at(want, twice, A[0])
    np.subtract.at(want, (slice(1, None), K, 0), 1)
    other = A.copy()
    np.add.at(other, (slice(None), twice, twice), 1)
    a, b = run(text, real=F64, a=A, j=twice, k=K, v=A[0])
    np.testing.assert_allclose(a, want)
    np.testing.assert_allclose(b, other)


def test_softplus_has_slope_one_half_at_zero(run: Any, differences: None) -> None:
    out = run("fn f(x): return grad(softplus, x), softplus(x)\n", real=F64, x=0.0)
    np.testing.assert_allclose(out, [0.5, np.log(2)], rtol=1e-6)


def test_sizes_may_be_static_parameters(run: Any) -> None:
    assert run("fn f(n: static int): return zeros((n, 2 * n))\n", n=Static(3)).shape == (3, 6)
