"""Functions of very many nests and products are emitted in parts."""

from __future__ import annotations

import numpy as np
import pytest
from wengert.backends.llvm import emit

import wengert as wg

STEPS = 4
PROGRAM = f"""
fn steps(x: real[n], k: static int):
    if k == 0:
        return x
    y = cumsum(x) + (x[:, None] + x[None, :]) @ sin(x)
    return steps(y / (1.0 + sum(abs(y))), k - 1)

fn f(x: real[n]): return sum(steps(x, {STEPS}))
"""


def expected(x: np.ndarray) -> float:
    """The program in NumPy."""
    for _ in range(STEPS):
        y = np.cumsum(x) + (x[:, None] + x[None, :]) @ np.sin(x)
        x = y / (1.0 + np.abs(y).sum())
    return float(x.sum())


def test_a_function_of_many_nests_is_emitted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each nest becomes a function; values and gradients are as ever."""
    monkeypatch.setattr(emit, "MANY_NESTS", 5)
    f = wg.compile(PROGRAM, real="f64").f
    x = np.linspace(0.2, 1.0, 5)
    value, slope = f.value_and_grad(x)
    assert f.llvm(x).count("@part") >= 2 * 5
    np.testing.assert_allclose(value, expected(x), rtol=1e-12)
    steps = 1e-6 * np.eye(5)
    wanted = [(expected(x + s) - expected(x - s)) / 2e-6 for s in steps]
    np.testing.assert_allclose(slope, wanted, rtol=1e-5, atol=1e-9)
