"""Pareto-smoothed importance sampling (Vehtari, Simpson, Gelman, Yao and Gabry, JMLR 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp

from ..errors import CallError
from ..values import Array

LEAST_TAIL = 5  # fewer weights say nothing about the tail
FLAT = 1e-4  # how much of the largest weight must stand out of the others for a tail


@dataclass(frozen=True)
class Smoothed:
    """Importance weights made stable.

    log_weights: normalised to sum to one, the largest replaced by quantiles of a generalised
    Pareto distribution that fits them. khat: its shape; the weights have 1 / khat finite moments.
    Below 0.7 (or 1 - 1 / log10(n), if that is less) estimates by them can be trusted.
    ess: how many independent draws they are worth.
    """

    log_weights: Array
    khat: float
    ess: float

    @property
    def reliable(self) -> bool:
        """Whether khat says that estimates by these weights can be trusted."""
        return self.khat < min(0.7, 1.0 - 1.0 / np.log10(len(self.log_weights)))


def psis(log_weights: Any) -> Smoothed:
    """Smooth importance log weights `[n]`; their scale does not matter.

    Raises CallError where they are not a vector of finite numbers (-inf is a weight of zero).
    """
    weights = np.array(log_weights, np.float64)
    if weights.ndim != 1 or len(weights) < 2 or np.isnan(weights).any():
        raise CallError("psis takes a vector of log weights", found=f"shape {weights.shape}")
    if not np.isfinite(weights.max()):
        raise CallError("psis takes log weights that are finite", found=f"{weights.max()}")
    weights -= weights.max()
    tail = int(np.ceil(min(0.2 * len(weights), 3.0 * np.sqrt(len(weights)))))
    khat = np.inf
    if tail >= LEAST_TAIL:
        khat = _smooth_tail(weights, tail)
    weights -= logsumexp(weights)
    return Smoothed(weights, float(khat), float(np.exp(-logsumexp(2.0 * weights))))


def _smooth_tail(weights: Array, tail: int) -> float:
    """Replace the `tail` largest weights (log, at most 0) in place; the shape of their fit."""
    order = np.argsort(weights, kind="stable")
    largest, cut = order[-tail:], weights[order[-tail - 1]]
    cut = max(cut, np.log(np.finfo(np.float64).tiny))
    over = np.exp(weights[largest]) - np.exp(cut)
    if over[-1] < FLAT:
        return -np.inf
    khat, scale = pareto_fit(np.maximum(over, np.finfo(np.float64).tiny))
    if np.isfinite(khat):
        chances = (np.arange(tail) + 0.5) / tail
        weights[largest] = np.log(np.exp(cut) + _quantiles(chances, khat, scale))
        np.minimum(weights, 0.0, out=weights)
    return khat


def pareto_fit(x: Array) -> tuple[float, float]:
    """(shape, scale) of the generalised Pareto distribution of sorted positive numbers.

    Zhang and Stephens (2009), the shape drawn to 0.5 as by ten further numbers (Vehtari et al.).
    """
    n = len(x)
    count = 30 + int(np.sqrt(n))
    quarter = x[int(n / 4 + 0.5) - 1]
    grid = 1.0 - np.sqrt(count / (np.arange(1, count + 1) - 0.5))
    rates = 1.0 / x[-1] + grid / (3.0 * quarter)
    shapes = np.mean(np.log1p(-rates[:, None] * x), axis=1)
    scores = n * (np.log(-rates / shapes) - shapes - 1.0)
    weights = np.exp(scores - logsumexp(scores))
    rate = float(np.sum(weights * rates))
    shape = float(np.mean(np.log1p(-rate * x)))
    return (n * shape + 10 * 0.5) / (n + 10), -shape / rate


def _quantiles(chances: Array, shape: float, scale: float) -> Array:
    if abs(shape) < 1e-12:
        return np.asarray(-scale * np.log1p(-chances))
    with np.errstate(over="ignore"):  # infinite quantiles are cut to the largest weight
        return np.asarray(scale * np.expm1(-shape * np.log1p(-chances)) / shape)
