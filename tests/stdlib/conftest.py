"""Functions of library modules on every backend, and references of more than double precision."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import wengert as wg

Wide = np.longdouble


@pytest.fixture(scope="session")
def library() -> Callable[..., Any]:
    """library(text, backend="llvm", real="f64"): a program that imports the library's modules."""
    modules = ("special", "samplers", "bijectors", "distributions")

    @functools.cache
    def load(text: str, backend: str = "llvm", real: str = "f64") -> Any:
        imports = "".join(f"import {m}\n" for m in modules if f"{m}." in text)
        return wg.compile(imports + text, backend=backend, real=real)

    return load


def lgamma(a: Any) -> Any:
    """Log gamma of positive numbers, by Stirling's series beyond 30."""
    a = np.asarray(a, Wide)
    shift = np.zeros_like(a)
    for k in range(30):
        shift += np.log(a + k)
    z = a + 30
    series = 0 * z
    for k, c in (
        (1, Wide(1) / 12),
        (3, Wide(-1) / 360),
        (5, Wide(1) / 1260),
        (7, Wide(-1) / 1680),
        (9, Wide(1) / 1188),
    ):
        series += c / z**k
    return (z - Wide(0.5)) * np.log(z) - z + np.log(8 * np.arctan(Wide(1))) / 2 + series - shift


def gammainc(a: Any, x: Any) -> Any:
    """P(a, x), by its power series."""
    a, x = np.asarray(a, Wide), np.asarray(x, Wide)
    term = np.ones_like(a * x)
    total = term.copy()
    n = 0
    while np.any(term > 1e-21 * total):
        n += 1
        term = term * x / (a + n)
        total += term
    return np.exp(a * np.log(x) - x - lgamma(a + 1)) * total


def betainc(a: Any, b: Any, x: Any) -> Any:
    """I_x(a, b) for x at most about a half, by its power series."""
    a, b, x = (np.asarray(v, Wide) for v in (a, b, x))
    term = np.ones_like(a * b * x)
    total = term.copy()
    n = 0
    while np.any(term > 1e-21 * total):
        term = term * x * (a + b + n) / (a + 1 + n)
        total += term
        n += 1
    front = a * np.log(x) + b * np.log1p(-x) - lgamma(a) - lgamma(b) + lgamma(a + b)
    return np.exp(front) / a * total


def integral(f: Callable[[Any], Any], low: Any, high: Any) -> Any:
    """Integral over (low, high) by the double exponential rule."""
    half_pi = 2 * np.arctan(Wide(1))
    t = (np.arange(-400, 401) / Wide(100)).reshape(-1, *[1] * np.ndim(high))
    node, slope = (
        np.tanh(half_pi * np.sinh(t)),
        half_pi * np.cosh(t) / np.cosh(half_pi * np.sinh(t)) ** 2,
    )
    middle, radius = (Wide(1) * high + low) / 2, (Wide(1) * high - low) / 2
    return radius * np.sum(f(middle + radius * node) * slope, axis=0) / 100


def von_mises_cdf(x: Any, kappa: Any) -> Any:
    """Distribution function of the von Mises distribution, by integration."""
    x, kappa = np.asarray(x, Wide), np.asarray(kappa, Wide)
    density = lambda t: np.exp(-2 * kappa * np.sin(t / 2) ** 2)
    far = np.where(kappa < 50, 4 * np.arctan(Wide(1)), 14 / np.sqrt(np.maximum(kappa, 1)))
    return (1 + integral(density, 0 * x, x) / integral(density, 0 * x, far + 0 * x)) / 2


def slope(f: Callable[[Any], Any], a: Any, step: Any = None) -> Any:
    """f'(a) by central differences of order 4; steps in proportion to the smaller of a and sqrt(a)."""
    a = np.asarray(a, Wide)
    h = Wide(3e-4) * np.minimum(a, np.sqrt(a)) if step is None else np.asarray(step, Wide)
    return (8 * (f(a + h) - f(a - h)) - (f(a + 2 * h) - f(a - 2 * h))) / (12 * h)


@pytest.fixture(scope="session")
def wide() -> SimpleNamespace:
    """The references."""
    return SimpleNamespace(
        lgamma=lgamma,
        gammainc=gammainc,
        betainc=betainc,
        von_mises_cdf=von_mises_cdf,
        slope=slope,
        real=Wide,
    )
