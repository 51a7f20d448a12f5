"""The interpreter, LLVM and XLA give the same values and gradients for the same programs."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import wengert as wg

X = np.random.default_rng(0).uniform(0.3, 1.5, 5)
Y = np.random.default_rng(1).uniform(0.3, 1.5, (5, 4))

SCALAR_OF_VECTOR = {
    "elementwise": "fn f(x: real[n]): return sum(sin(x) * x + x^3 / (1.0 + exp(x)))",
    "special": "fn f(x: real[n]): return sum(lgamma(x) + erf(x) + tanh(x) + log1p(x) + digamma(x))",
    "branches": """
fn f(x: real[n]):
    s = 1.0
    for i in 0..n:
        if x[i] > 0.7:
            s = s * sin(x[i])
        else:
            s = s + x[i] * s
    return s
""",
    "nested_loops": """
fn f(x: real[n]):
    total = 0.0
    for v in x:
        inner = v
        for i in 0..3:
            inner = sin(inner) + v * x[i]
        total += inner
    return total
""",
    "comprehension": "fn f(x: real[n]): return sum([[v * w + real(i) for w in x] for i in 0..3 for v in x])",
    "bounded_while": """
fn f(x: real[n]):
    s = x[0]
    while s < 5.0 max 20:
        s = s * 1.3 + x[1]
    return s * x[2]
""",
    "checkpoint_carry": """
fn f(x: real[n]):
    s = x
    for i in 0..12 checkpoint carry:
        s = sin(s) * x + s
    return sum(s)
""",
    "checkpoint_sqrt": """
fn f(x: real[n]):
    s = x
    for i in 0..13 checkpoint sqrt:
        s = sin(s) * x + s
    return sum(s)
""",
    "reductions": "fn f(x: real[n]): return max(x) + prod(x) + sum(sort(x) * x) + sum(cumsum(x) * x) + logsumexp(x) + std(x)",
    "second_derivative": "fn g(x: real[n]): return sum(x^3 * x[0])\nfn f(x: real[n]): return sum(grad(g, x)^2)",
    "updates": """
fn f(x: real[n]):
    y = zeros(n)
    for i in 0..n:
        y[i] = x[n - 1 - i] * 2.0
    y[1:3] = x[0:2]
    return sum(y * x)
""",
    "custom_rules": """
fn forward(x: real): return (x * x, x)
fn backward(r: real, ct: real): return (2.0 * r * ct,)
@vjp(forward, backward)
fn square_of(x: real): return x * x
fn rule(x: real, t: real): return (x * x * x, 3.0 * x * x * t)
@jvp(rule)
fn cube_of(x: real): return x * x * x
fn f(x: real[n]):
    s = 0.0
    for v in x:
        s += square_of(v) * cube_of(s + v)
    return s
""",
    "structure": "fn f(x: real[n]): return sum(concat((x, flip(x))) * pad(x, ((2, n - 2),)) + tile(x, 2) + roll(repeat(x, 2), 3))",
    "gathers": "fn f(x: real[n]): return sum(x[argsort(x)] * take(x, arange(n) // 2) + where(x > 0.8, x, 0.0)^2)",
}


@pytest.mark.parametrize("name", SCALAR_OF_VECTOR)
def test_value_and_gradient_agree_and_match_finite_differences(name, on_every_backend):
    text = SCALAR_OF_VECTOR[name]
    value, grad = on_every_backend(text, "f", X, method="value_and_grad")
    import wengert as wg

    f = wg.compile(text, backend="interp", real="f64").f
    numeric = np.zeros_like(X)
    step = 1e-6
    for i in range(len(X)):
        up, down = X.copy(), X.copy()
        up[i] += step
        down[i] -= step
        numeric[i] = (float(f(up)) - float(f(down))) / (2 * step)
    np.testing.assert_allclose(grad, numeric, rtol=1e-6, atol=1e-6)
    assert np.isfinite(value)


LINEAR_ALGEBRA = """
fn f(x: real[n], y: real[n, m]):
    z = y.T @ y + eye(m) * 5.0
    l = cholesky(z)
    b = solve_triangular(l, y.T @ x)
    return sum(b^2) + sum(log(diag(l))) + trace(z @ z) + norm(outer(x, x))
"""


def test_linear_algebra(on_every_backend):
    on_every_backend(LINEAR_ALGEBRA, "f", X, Y, method="value_and_grad", wrt=("x", "y"))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 15, 16, 17, 33, 64, 65])
def test_every_vector_tail(size, on_every_backend):
    text = (
        "fn f(x: real[n]): return {a: x * 2.0 + 1.0, b: sum(x), c: max(x), d: argmax(x), e: exp(x)}"
    )
    on_every_backend(text, "f", np.random.default_rng(size).normal(size=size))


@pytest.mark.parametrize("m,k,n", [(1, 5, 1), (3, 4, 5), (17, 33, 9), (64, 64, 64), (100, 7, 50)])
def test_products(m, k, n, on_every_backend):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(m, k)), rng.normal(size=(k, n))
    out = on_every_backend(
        "fn f(a: real[m, k], b: real[k, n]): return {p: a @ b, q: b.T @ a.T, r: a @ b[:, 0]}",
        "f",
        a,
        b,
    )
    np.testing.assert_allclose(out["p"], a @ b, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(out["q"], (a @ b).T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "spec,shapes",
    [
        ("kij,nkj->nki", [(3, 4, 4), (50, 3, 4)]),
        ("ij,jk,kl->il", [(4, 20), (20, 20), (20, 6)]),
        ("abc,abd->cd", [(6, 7, 8), (6, 7, 9)]),
        ("ii2,".replace("i2,", "j,ij->i"), [(30, 30), (30, 30)]),
    ],
)
def test_einsum_matches_numpy(spec, shapes, on_every_backend):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) for s in shapes]
    names = "abc"[: len(arrays)]
    text = f'fn f({", ".join(names)}): return einsum("{spec}", {", ".join(names)})'
    out = on_every_backend(text, "f", *arrays)
    np.testing.assert_allclose(out, np.einsum(spec, *arrays), rtol=1e-9, atol=1e-12)


SHARED = "fn f(x: real[n, m]): return {a: sum(x), b: sum(x, axis=0), c: tanh(x) * x, d: logsumexp(x, axis=1)}"
THREADS = """
import hashlib, sys
import numpy as np
import wengert as wg
f = wg.compile(sys.argv[1], real="f64").f
x = np.random.default_rng(0).normal(size=(600, 500))
out = f(x)
print("wengert_parallel" in f.llvm(x), *(hashlib.sha256(v).hexdigest() for v in out.values()))
"""


def test_large_arrays_agree(on_every_backend):
    on_every_backend(SHARED, "f", np.random.default_rng(0).normal(size=(600, 500)), rtol=1e-9)


def test_large_arrays_are_shared_among_threads_without_changing_results():
    said = [
        subprocess.run(
            [sys.executable, "-c", THREADS, SHARED],
            env={**os.environ, "WENGERT_THREADS": count},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for count in ("1", "2", "5")
    ]
    assert said[0].startswith("True ") and said[0] == said[1] == said[2]


def test_integers_and_bools(on_every_backend):
    a = np.array([7, -7, 0, 5, -2147483648], np.int32)
    b = np.array([2, 2, 3, 0, -1], np.int32)
    text = "fn f(a: i32[n], b: i32[n]): return {q: a // b, r: a % b, m: maximum(a, b), e: a == b, s: sum(a), c: a * b}"
    out = on_every_backend(text, "f", a, b)
    np.testing.assert_array_equal(out["q"], [3, -4, 0, 0, -2147483648])
    np.testing.assert_array_equal(out["r"], [1, 1, 0, 0, 0])


def test_nan_and_infinity_pass_through(on_every_backend):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0])
    text = "fn f(x: real[n]): return {m: maximum(x, 0.5), s: sign(x), r: max(x), e: exp(x), i: i32(x), w: where(isnan(x), 0.0, x)}"
    out = on_every_backend(text, "f", x)
    assert np.isnan(out["m"][0]) and np.isnan(out["r"]) and out["e"][2] == 0
    np.testing.assert_array_equal(out["i"], [0, 2147483647, -2147483648, 0, 0, 1])


def test_empty_arrays(on_every_backend):
    text = "fn f(x: real[n, m]): return {s: sum(x), t: x * 2.0, p: x.T @ x, c: cumsum(x)}"
    out = on_every_backend(text, "f", np.zeros((0, 3)))
    assert out["s"] == 0 and out["t"].shape == (0, 3) and out["p"].shape == (3, 3)


def test_extremes_of_bools() -> None:
    """True is the larger one, also where a machine would read it as -1."""
    text = "fn f(x: real[n]): return any(x > 4.0), all(x > 0.0)\n"
    x = np.linspace(0.5, 9.0, 37)
    for backend in ("interp", "llvm", "xla"):
        some, every = wg.compile(text, backend=backend).f(x)
        assert bool(some) and bool(every)
