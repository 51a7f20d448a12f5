"""bijectors.wg: inverses, supports, and log determinants against Jacobians by differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(0)
U = np.concatenate([RNG.normal(size=40) * 3, [0.0, 30.0, -30.0]])
SCALARS = {"positive": "", "softplus": "", "unit": "", "circle": "", "interval": ", low, high"}
VECTORS = ("ordered", "simplex")
MATRICES = ("lower_cholesky", "positive_definite", "correlation_cholesky")
TEXT = "".join(
    f"fn {n}_forward(u{a}): return bijectors.{n}_forward(u{a})\n"
    f"fn {n}_inverse(x{a}): return bijectors.{n}_inverse(x{a})\n"
    f"fn {n}_logdet(u{a}): return bijectors.{n}_logdet(u{a})\n"
    for n, a in SCALARS.items() | dict.fromkeys(VECTORS, "").items()
) + "".join(
    f"fn {n}_forward(u, n: static int): return bijectors.{n}_forward(u, n)\n"
    f"fn {n}_inverse(x): return bijectors.{n}_inverse(x)\n"
    f"fn {n}_logdet(u, n: static int): return bijectors.{n}_logdet(u, n)\n"
    for n in MATRICES
) + "".join(f"fn {n}_size(n: static int): return bijectors.{n}_size(n)\n" for n in (*VECTORS, *MATRICES))  # fmt: skip


@pytest.fixture
def program(library: Any) -> Any:
    return library(TEXT)


def jacobian(f: Any, u: Any) -> Any:
    """Central differences of order 4."""
    h = 1e-3
    columns = []
    for i in range(len(u)):
        e = np.zeros_like(u)
        e[i] = h
        columns.append((8 * (f(u + e) - f(u - e)) - f(u + 2 * e) + f(u - 2 * e)) / (12 * h))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("name", [n for n in SCALARS if n != "interval"])
def test_numbers(program: Any, name: str) -> None:
    forward, inverse, logdet = (
        getattr(program, f"{name}_{p}") for p in ("forward", "inverse", "logdet")
    )
    mild = np.abs(U) < 20 if name in ("unit", "circle") else U < 1e9
    u = U[mild]
    np.testing.assert_allclose(inverse(forward(u)), u, rtol=1e-6, atol=1e-9)
    slope = forward.jvp((u,), np.ones_like(u))[1]
    np.testing.assert_allclose(logdet(u), np.log(slope), rtol=1e-6, atol=1e-12)
    h = 1e-4
    np.testing.assert_allclose(
        slope, (forward(u + h) - forward(u - h)) / (2 * h), rtol=1e-6, atol=1e-12
    )
    x = np.asarray(forward(np.clip(U, -15, 15)))
    low, high = {"unit": (0, 1), "circle": (-np.pi, np.pi)}.get(name, (0, np.inf))
    assert ((x > low) & (x < high)).all()
    assert np.isfinite(logdet(U)).all()


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 3.0), (2.0, np.inf), (-np.inf, -4.0), (-np.inf, np.inf)]
)
def test_intervals(program: Any, low: float, high: float) -> None:
    u = np.clip(U, -12, 12)
    bounds = np.full_like(u, low), np.full_like(u, high)
    x = program.interval_forward(u, *bounds)
    assert ((x > low) & (x < high)).all()
    np.testing.assert_allclose(program.interval_inverse(x, *bounds), u, rtol=1e-6, atol=1e-9)
    slope = program.interval_forward.jvp((u, *bounds), np.ones_like(u), wrt="u")[1]
    np.testing.assert_allclose(
        program.interval_logdet(u, *bounds), np.log(np.abs(slope)), rtol=1e-6, atol=1e-12
    )
    for part in ("forward", "logdet"):
        f = getattr(program, f"interval_{part}")
        for gradient in f.vjp(u, *bounds, wrt=("u", "low", "high"))[1](np.ones_like(u)):
            assert np.isfinite(gradient).all()
    for gradient in program.interval_inverse.vjp(x, *bounds, wrt=("x", "low", "high"))[1](
        np.ones_like(u)
    ):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("name", VECTORS)
def test_vectors(program: Any, name: str, size: int) -> None:
    forward, inverse, logdet = (
        getattr(program, f"{name}_{p}") for p in ("forward", "inverse", "logdet")
    )
    u = RNG.normal(size=size) * 2
    x = np.asarray(forward(u))
    if name == "simplex":
        assert abs(x.sum() - 1) < 1e-14
        assert x.min() > 0
        np.testing.assert_allclose(
            forward(np.zeros(size)), np.full(size + 1, 1 / (size + 1)), rtol=1e-14
        )
        assert np.isfinite(np.asarray(logdet(u * 100))).all()
    else:
        assert (np.diff(x) > 0).all()
    assert getattr(program, f"{name}_size")(len(x)) == size
    np.testing.assert_allclose(inverse(x), u, rtol=1e-10, atol=1e-10)
    want = np.linalg.slogdet(jacobian(lambda v: np.asarray(forward(v))[:size], u))[1]
    np.testing.assert_allclose(logdet(u), want, rtol=1e-8, atol=1e-8)
    many = RNG.normal(size=(2, 3, size))
    one = np.asarray(forward(many[1, 2]))
    np.testing.assert_allclose(forward(many)[1, 2], one, rtol=1e-12)
    np.testing.assert_allclose(inverse(forward(many)), many, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(logdet(many)[1, 2], logdet(many[1, 2]), rtol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("name", MATRICES)
def test_matrices(program: Any, name: str, n: int) -> None:
    forward, inverse, logdet = (
        getattr(program, f"{name}_{p}") for p in ("forward", "inverse", "logdet")
    )
    strict = name == "correlation_cholesky"
    count = n * (n - 1) // 2 if strict else n * (n + 1) // 2
    assert getattr(program, f"{name}_size")(n) == count
    u = RNG.normal(size=count)
    x = np.asarray(forward(u, n))
    if name == "positive_definite":
        np.testing.assert_allclose(x, x.T)
        assert np.linalg.eigvalsh(x).min() > 0
    else:
        assert np.abs(np.triu(x, 1)).max() == 0
        assert np.diag(x).min() > 0
    if strict:
        np.testing.assert_allclose((x**2).sum(1), 1, rtol=1e-13)
    np.testing.assert_allclose(inverse(x), u, rtol=1e-9, atol=1e-10)
    if count:
        kept = np.tril_indices(n, -1 if strict else 0)
        j = jacobian(lambda v: np.asarray(forward(v, n))[kept], u)
        np.testing.assert_allclose(logdet(u, n), np.linalg.slogdet(j)[1], rtol=1e-8, atol=1e-8)
        assert np.isfinite(logdet.vjp(u, n)[1](1.0)).all()
        assert np.isfinite(inverse.vjp(x)[1](np.ones(count))).all()
    else:
        assert logdet(u, n) == 0


@pytest.mark.parametrize("backend", ["interp", "xla"])
def test_other_backends(library: Any, program: Any, backend: str) -> None:
    other = library(TEXT, backend)
    u = RNG.normal(size=6)
    for name in ("positive", "softplus", "unit", "circle", *VECTORS):
        for part in ("forward", "logdet"):
            f = f"{name}_{part}"
            np.testing.assert_allclose(
                np.asarray(getattr(other, f)(u)), np.asarray(getattr(program, f)(u)), rtol=1e-12
            )
    for name, n in zip(MATRICES, (3, 3, 4)):
        x, y = (
            np.asarray(getattr(other, f"{name}_forward")(u, n)),
            np.asarray(getattr(program, f"{name}_forward")(u, n)),
        )
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(np.asarray(getattr(other, f"{name}_inverse")(x)), u, rtol=1e-9)
