"""Sums that share one loop: the loop level has one reduction, and the interpreter agrees."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import wengert as wg

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 4000))

FIT = """
fn loss(theta: real[5], x: real[n], y: real[n]):
    a = tanh(theta[0] * x + theta[1])
    b = exp(-theta[2] * a * a) * sin(theta[3] * x)
    return mean((b + theta[4] - y)^2)
"""
NORMAL = """
fn loss(theta: real[3], x: real[n], y: real[n]):
    h = tanh(theta[0] * x + theta[1]) * exp(theta[2] * x * 0.1)
    z = (h - mean(h)) / sqrt(mean((h - mean(h))^2) + 0.1)
    return mean((z - y)^2)
"""
RATIO = """
fn loss(theta: real[3], x: real[n], y: real[n]):
    a = sigmoid(theta[0] * x + theta[1]) * exp(theta[2] * cos(x))
    b = sigmoid(y)
    both = sum(a * b)
    return 1.0 - both / (sum(a) + sum(b) - both)
"""


def loops(function: Any, *args: Any) -> list[str]:
    """The kinds of each reduction of a derivative."""
    text = function.ir(*args, derivative="value_and_grad", after="bufferize")
    return re.findall(r"loop\.reduce \{[^}]*kinds = \[([^\]]*)\]", text)


def memory(function: Any, *args: Any) -> int:
    """Bytes of working memory of a derivative."""
    text = function.ir(*args, derivative="value_and_grad", after="bufferize")
    return max(int(n) for n in re.findall(r"arena = (\d+)", text) or [0])


@pytest.mark.parametrize("text", [FIT, NORMAL, RATIO])
@pytest.mark.parametrize("n", [200, 4000, 140_000])
def test_gradients_are_those_of_the_interpreter(text: str, n: int) -> None:
    x, y = RNG.normal(size=(2, n))
    theta = np.array([0.7, -0.2, 0.5, 1.3, 0.1])[: 5 if text is FIT else 3]
    want = wg.compile(text, backend="interp", real="f64").loss.value_and_grad(theta, x, y)
    got = wg.compile(text, real="f64").loss.value_and_grad(theta, x, y)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-12)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-9, atol=1e-12)


def test_all_sums_of_a_gradient_are_one_loop() -> None:
    loss = wg.compile(FIT, real="f64").loss
    args = (np.ones(5), X, Y)
    (kinds,) = loops(loss, *args)
    assert kinds.count("add") == 6
    assert memory(loss, *args) < 1000


def test_sums_that_wait_for_others_have_loops_of_their_own() -> None:
    loss = wg.compile(RATIO, real="f64").loss
    kinds = loops(loss, np.ones(3), X, Y)
    assert len(kinds) == 2 and sorted(k.count("add") for k in kinds) == [3, 3]
    assert memory(loss, np.ones(3), X, Y) < 1000


def test_a_result_of_the_same_shape_beside_sums() -> None:
    text = """
fn f(theta: real[2], x: real[n]):
    a = tanh(theta[0] * x) * exp(theta[1] * x)
    b = sin(a) * a + cos(a)
    return a + b, sum(b * a), sum(b), prod(1.0 + 0.001 * a * b), max(a * b)
"""
    got = wg.compile(text, real="f64").f([0.3, 0.2], X)
    want = wg.compile(text, backend="interp", real="f64").f([0.3, 0.2], X)
    for one, other in zip(got, want):
        np.testing.assert_allclose(one, other, rtol=1e-11)


def test_in_a_loop_of_steps() -> None:
    text = FIT + """
fn descend(theta: real[5], x: real[n], y: real[n]):
    for i in 0..3:
        theta -= 0.1 * grad(loss, theta, x, y)
    return theta
"""  # fmt: skip
    got = wg.compile(text, real="f64").descend(np.ones(5), X, Y)
    want = wg.compile(text, backend="interp", real="f64").descend(np.ones(5), X, Y)
    np.testing.assert_allclose(got, want, rtol=1e-10)


def test_a_large_map_of_points_stays_in_one_loop() -> None:
    """2^21 points whose values together would not fit: only sums are kept."""
    text = """
fn one(t, p):
    a = sin(t[0] * p) + cos(t[1] * p)
    for i in 0..12:
        a = a * t[2] + tanh(a)
    return a

fn loss(t: real[3], x: real[n, m]):
    return mean([[one(t, p) for p in row] for row in x])
"""
    x = RNG.normal(size=(2048, 1024)).astype(np.float32)
    program = wg.compile(text)
    assert memory(program.loss, np.ones(3), x) < 10_000
    value, slope = program.loss.value_and_grad(np.full(3, 0.5), x)
    few = wg.compile(text, backend="interp").loss.value_and_grad(np.full(3, 0.5), x[:8, :64])
    part = program.loss.value_and_grad(np.full(3, 0.5), x[:8, :64])
    np.testing.assert_allclose(part[0], few[0], rtol=1e-4)
    np.testing.assert_allclose(part[1], few[1], rtol=1e-3)
    assert np.isfinite(value) and np.isfinite(slope).all()
