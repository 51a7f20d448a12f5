"""Derivatives that would be wrong in silence are mistakes; right ones raise no alarm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from wengert.passes.pathwise import EstimatorMistake

import wengert as wg

X = "x ~ normal(a, 1.0) by reparam"
ALARMS: dict[str, tuple[str, list[str]]] = {  # the body of an objective of a, message parts
    "if": (f"{X}\n    return x if x > 0.0 else 0.5", ["decides this 'if'"]),
    "if statement": (
        f"{X}\n    y = 1.0\n    if a * x > 2.0:\n        y = 3.0\n    return y + x",
        ["decides this 'if'"],
    ),
    "switch": (
        f"{X}\n    return switch(i32(x > 0.0), (sin, cos), x)",
        ["decides this 'switch'"],
    ),
    "while": (
        f"{X}\n    y = x\n    while y < 3.0 max 9:\n        y = 2.0 * y + 1.0\n    return y",
        ["decides how often this 'while' runs"],
    ),
    "floor": (f"{X}\n    return floor(x)", ["'floor'"]),
    "ceil": (f"{X}\n    return ceil(2.0 * x)", ["'ceil'"]),
    "round": (f"{X}\n    return x * round(x)", ["'round'"]),
    "trunc": (f"{X}\n    return trunc(x)", ["'trunc'"]),
    "sign": (f"{X}\n    return sign(x)", ["'sign'"]),
    "floordiv": (f"{X}\n    return x // 2.0", ["'floordiv'"]),
    "mod": (f"{X}\n    return x % 2.0", ["'mod'"]),
    "comparison": (f"{X}\n    return real(x > a)", ["is turned into a number"]),
    "logic": (f"{X}\n    return real(not (x > 0.0 or x < -1.0))", ["is turned into a number"]),
    "whole number": (f"{X}\n    return real(i32(x))", ["is turned into the type i32"]),
    "argmax": (f"{X}\n    return real(argmax(stack((x, 0.0))))", ["is turned into a number"]),
    "table": (
        f"{X}\n    return [1.0, 2.0, 5.0][argmax(stack((x, 0.0, 1.0)))]",
        ["decides which element is meant"],
    ),
    "written": (
        f"{X}\n    y = zeros(3)\n    y[argmax(stack((x, 0.0, 1.0)))] = 1.0\n    return sum(y * y)",
        ["decides which element is meant"],
    ),
    "through where": (f"{X}\n    y = where(x > 0.0, 1.0, 2.0)\n    return sign(y)", ["'sign'"]),
    "through a loop": (
        f"{X}\n    y = 0.0\n    for i in 0..3:\n        y = y + x\n    return floor(y)",
        ["'floor'"],
    ),
    "through its last trip": (
        f"{X}\n    y = 0.0\n    z = 0.0\n    for i in 0..3:\n        z = floor(y)\n        y = x\n    return z",
        ["'floor'"],
    ),
    "through a function": (f"{X}\n    return step(x)", ["decides this 'if'"]),
    "through another choice": (
        f"{X}\n    y ~ normal(x, 1.0) by reparam\n    return floor(y)",
        ["the choice 'y'", "normal by reparam"],
    ),
    "in a model": (f"{X}\n    return logpdf(jumps(), {{x}})", ["decides this 'if'"]),
    "of a guide": ("t ~ guided(a)\n    return floor(t.v)", ["the choice 'v'"]),
    "in an expectation": ("return expect(inner(2.0 * a))", ["'floor'"]),
    "implicit": (
        "x ~ gamma(exp(a), 1.0) by implicit\n    return floor(x)",
        ["gamma by implicit"],
    ),
    "gumbel": (
        "x ~ bernoulli_logit(a) by gumbel\n    return 2.0 if x > 0.5 else 1.0",
        ["no derivative by gumbel"],
    ),
    "straight-through": (
        "x ~ bernoulli_logit(a) by straight_through\n    return 2.0 if x > 0.5 else 1.0",
        ["no derivative by straight_through"],
    ),
    "an own strategy": (
        "x ~ normal(a, 1.0) by own\n    return floor(x)",
        ["no derivative by own"],
    ),
    "unnamed": ("return floor(draw(normal(a, 1.0)))", ["a draw from 'normal'"]),
    "compared with a parameter": (
        "x ~ normal(0.0, 1.0) by reinforce\n    return 2.0 if x > a else 1.0",
        ["compared with something that depends on the parameters", "reinforce"],
    ),
    "a parameter's moves": (
        "x ~ uniform(0.0, exp(a)) by reinforce\n    return x^2",
        ["'high' moves the support of the choice 'x'", "reparam"],
    ),
    "no derivative": (
        "x ~ gamma(exp(a), 2.0) by mvd\n    return sin(x)",
        ["has no derivative by 'shape' of 'gamma'", "stop_gradient(shape)"],
    ),
}
FINE: dict[str, str] = {
    "smooth": f"{X}\n    return exp(x) * abs(x) + maximum(x, 0.0) + clip(x, -1.0, 1.0)",
    "where": f"{X}\n    return where(x > 0.0, x^2, 0.0)",
    "stopped": f"{X}\n    return x if stop_gradient(x) > 0.0 else 0.5 * x",
    "stopped while": f"{X}\n    y = x\n    while stop_gradient(y) < 3.0 max 9:\n        y = 2.0 * y + 1.0\n    return y",
    "finite": f"{X}\n    return x if isfinite(x) and not (isnan(x) or isinf(x)) else 0.0",
    "sorted": f"{X}\n    return sum(sort(stack((x, 1.0, a))) * [1.0, 2.0, 3.0])",
    "largest": f"{X}\n    v = stack((x, 1.0, a))\n    return v[argmax(v)]",
    "reinforce": "x ~ normal(a, 1.0) by reinforce\n    return 2.0 if x > 0.0 else floor(x)",
    "mvd": "x ~ normal(a, 1.0) by mvd\n    return 2.0 if x > 0.0 else real(i32(x))",
    "enum": "b ~ bernoulli_logit(a) by enum\n    return 2.0 if b else real(b) - a",
    "whole": "k ~ poisson(exp(a)) by reinforce\n    return 2.0 if real(k) > a + 1.0 else a",
    "unmoved": "x ~ normal(0.0, 1.0) by reparam\n    return a * (2.0 if x > 0.0 else floor(x))",
    "parameters": f"{X}\n    return x if a > 0.0 else x + floor(a)",
    "constant": "x ~ normal(stop_gradient(a), 1.0) by reparam\n    return a * floor(x)",
    "bounds": "x ~ truncated_normal(a, 1.0, -1.0, 2.0) by reinforce\n    return floor(x)",
    "shape": "x ~ gamma(2.0, exp(a)) by mvd\n    return floor(x)",
    "loops": f"y = 0.0\n    for i in 0..3:\n        {X}\n        y = y + x * (1.0 if i > 1 else 2.0)\n    return y",
    "biased": "x ~ bernoulli_logit(a) by straight_through\n    return 2.0 * x^2",
}
AROUND = """
fn step(v: real): return 1.0 if v > 0.0 else 2.0 * v

strategy own(d, key, rest):
    "Twice the path, half of each."
    return 0.5 * (rest(d.reparam(key)) + rest(d.reparam(fold_in(key, 1))))

model jumps():
    x ~ normal(0.0, 1.0)
    if x > 0.0:
        y ~ normal(x, 1.0)
    else:
        y ~ normal(0.0, 2.0)

guide guided(m: real):
    v ~ normal(m, 1.0) by reparam

objective inner(m: real):
    x ~ normal(m, 1.0) by reparam
    return floor(x)
"""


def compiled(body: str) -> Any:
    return wg.compile(f"{AROUND}\nobjective f(a: real):\n    {body}\n", real="f64").f


@pytest.mark.parametrize("case", ALARMS)
def test_alarms(case: str) -> None:
    """Every one names the choice, its strategy and others, at the place of the jump."""
    body, parts = ALARMS[case]
    if case == "in a model":
        body = body.replace("{x}", "{x, y: 1.0}")
    f = compiled(body)
    with pytest.raises(EstimatorMistake) as caught:
        f.grad(0.3, key=wg.key(0))
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    assert "<text>:" in message and "^" in message
    assert "expected:" in message and "hint:" in message


@pytest.mark.parametrize("case", FINE)
def test_no_alarms(case: str) -> None:
    assert np.isfinite(compiled(FINE[case]).grad(0.3, key=wg.key(0)))


@pytest.mark.parametrize("case", ["if", "floor", "no derivative", "a parameter's moves"])
def test_values_are_fine(case: str) -> None:
    """Only a derivative would be wrong: nothing is said where none is asked for."""
    assert np.isfinite(compiled(ALARMS[case][0])(0.3, key=wg.key(0)))


def test_other_parameters_are_fine() -> None:
    """The alarm is about those that the derivative is by."""
    text = "objective f(a: real, c: real):\n    x ~ normal(a, 1.0) by reparam\n    return c * floor(x)\n"
    f = wg.compile(text, real="f64").f
    assert np.isfinite(f.grad(0.3, 2.0, key=wg.key(0), wrt="c"))
    with pytest.raises(EstimatorMistake):
        f.grad(0.3, 2.0, key=wg.key(0), wrt="a")


@pytest.mark.parametrize("method", ["hessian", "jvp", "fit", "in the language"])
def test_every_way_to_ask_is_checked(method: str) -> None:
    body = ALARMS["floor"][0]
    text = f"objective f(a: real):\n    {body}\nfn g(a: real, k: key): return grad(f, a, k)\n"
    program = wg.compile(text, real="f64")
    with pytest.raises(EstimatorMistake):
        match method:
            case "hessian":
                program.f.hessian(0.3, key=wg.key(0))
            case "jvp":
                program.f.jvp((0.3, wg.key(0)), 1.0)
            case "fit":
                wg.fit(program.f, {"a": 0.3}, steps=2, optimizer=wg.sgd(0.1))
            case _:
                program.g(0.3, wg.key(0))


def test_the_alarm_is_right() -> None:
    """What is refused would have had the wrong gradient: 0 by the path, phi(a) in truth."""
    body = "x ~ normal(a, 1.0) by {}\n    return 1.0 if {} > 0.0 else 0.0"
    refused = compiled(body.format("reparam", "stop_gradient(x)"))
    allowed = compiled(body.format("reinforce", "x"))
    density = np.exp(-0.5 * 0.3**2) / np.sqrt(2 * np.pi)
    assert refused.grad(0.3, key=wg.key(0), samples=1000) == 0
    got = allowed.grad(0.3, key=wg.key(0), samples=200_000)
    assert abs(got - density) < 4.5 / np.sqrt(200_000) < 0.1 * density  # deviation below 1
