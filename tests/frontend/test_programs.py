"""Models, guides and objectives: what they mean, and what is said of bad ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from wengert.frontend import type_errors
from wengert.ir.errors import WengertError

import wengert as wg

CONE = """
model cone():
    x ~ normal(0.0, 10.0)
    y ~ normal(0.0, 10.0)
    z ~ normal(x^2 + y^2, 1.0)

guide naive(phi: real[4]):
    x ~ normal(phi[0], exp(phi[1]))
    y ~ normal(phi[2], exp(phi[3]))

guide bounded(phi: real[4]):
    x ~ uniform(0.0, exp(phi[1]))
    y ~ normal(phi[2], exp(phi[3]))

model positive():
    x ~ uniform(0.0, 1.0)
    y ~ normal(0.0, 1.0)

model twice():
    x ~ normal(0.0, 1.0)
    for i in 0..3:
        x ~ normal(0.0, 1.0)

fn local(m: real):
    f = lambda v: v * m
    return logpdf(takes(f), {x: m})

model takes(f):
    x ~ normal(f(1.0), 1.0)
"""

# (class, body of an objective of (phi: real[4], z: real), parts of the message)
BAD: list[tuple[str, str, list[str]]] = [
    (
        "AddressMistake",
        "t ~ naive(phi)\n    t ~ naive(phi)\n    return 0.0",
        ["two choices have the address 't'", "give one of them another name"],
    ),
    (
        "AddressMistake",
        "for s in (1.0, 2.0):\n        x ~ normal(z, s)\n    return z",
        ["two choices have the address 'x'", "this line runs again"],
    ),
    (
        "AddressMistake",
        "t ~ naive(phi)\n    return logpdf(cone(), t)",
        ["choices of the model 'cone' are missing: z"],
    ),
    (
        "AddressMistake",
        "t ~ naive(phi)\n    return logpdf(cone(), {t, zz: z})",
        ["makes no choice called 'zz'", "did you mean 'z'?"],
    ),
    (
        "AddressMistake",
        "t ~ naive(phi)\n    return logpdf(cone(), {t, z, x: z})",
        ["'x' is given twice"],
    ),
    ("AddressMistake", "(a, b) ~ normal(z, 1.0)\n    return a", ["a choice is made at a name"]),
    ("AddressMistake", "t ~ twice()\n    return score(t)", ["two choices have the address 'x'"]),
    (
        "StrategyMistake",
        "b ~ bernoulli(z) by reparam\n    return where(b, z, 1.0)",
        [
            "'reparam' cannot estimate a choice from 'bernoulli'",
            "expected: one of reinforce",
            "enum",
            "has no reparam",
        ],
    ),
    (
        "StrategyMistake",
        "b ~ normal(z, 1.0) by enum\n    return b",
        ["'enum' cannot estimate a choice from 'normal'", "reparam"],
    ),
    (
        "StrategyMistake",
        "b ~ normal(z, 1.0) by magic\n    return b",
        ["no strategy is called 'magic'", "reparam, "],
    ),
    (
        "StrategyMistake",
        "t ~ naive(phi) by reparam\n    return score(t)",
        ["a strategy is for one choice"],
    ),
    (
        "StrategyMistake",
        "b ~ bernoulli(z + zeros(13)) by enum\n    return z",
        ["too many values to enumerate", "2^13"],
    ),
    (
        "SupportMistake",
        "t ~ naive(phi)\n    return logpdf(positive(), t)",
        ["'x' is drawn with support real", "the model 'positive' allows only interval"],
    ),
    ("TypeMistake", "b ~ z\n    return b", ["this is not something to choose from", "f32"]),
    ("TypeMistake", "return score(z)", ["a trace is needed here"]),
    ("TypeMistake", "return logpdf(z, z)", ["a distribution, or a model or guide"]),
    (
        "CallMistake",
        "s = z\n    while s > 0.0:\n        b ~ normal(0.0, 1.0)\n        s = s + b\n    return s",
        ["no choice can be made here", "'for' loop"],
    ),
    (
        "SizeMistake",
        "x ~ normal(phi, zeros(3))\n    return z",
        ["do not broadcast", "f32[4]"],
    ),
    (
        "SizeMistake",
        "return logpdf(naive(phi), {x: phi, y: z})",
        ["the choice 'x' has another shape", "expected: f32", "found: f32[4]"],
    ),
    ("DTypeMistake", "return logpdf(naive(phi), {x: true, y: z})", ["a bool is not a number"]),
    ("CallMistake", "return local(z)", ["takes a function that uses names around it"]),
    ("StrategyMistake", "x ~ normal(z, 1.0) by reinforce(base=z)\n    return x", ["base"]),
]


@pytest.mark.parametrize(("kind", "body", "parts"), BAD, ids=lambda b: str(b)[:40])
def test_bad_program(kind: str, body: str, parts: list[str]) -> None:
    text = f"{CONE}\nobjective f(phi: real[4], z: real):\n    {body}\n"
    with pytest.raises(WengertError) as caught:
        wg.compile(text).f(np.zeros(4), 5.0, key=wg.key(0))
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert "<text>:" in message and "^" in message
    if kind != "StrategyMistake" or "base" not in body:
        assert type(caught.value).__name__ == kind


def test_choices_outside_programs_are_refused() -> None:
    with pytest.raises(WengertError, match="only models, guides and objectives make choices"):
        wg.compile("fn f(z: real):\n    x ~ normal(z, 1.0)\n    return x\n")


def test_models_have_no_gradient() -> None:
    with pytest.raises(WengertError, match="has no derivative: it is no expectation"):
        wg.compile(CONE).naive.grad(np.zeros(4), key=wg.key(0))


def test_classes_are_those_with_bad_programs() -> None:
    own = {"AddressMistake", "StrategyMistake", "SupportMistake"}
    assert own <= {b[0] for b in BAD}
    assert all(hasattr(type_errors, name) for name in own)


def test_density_is_that_of_the_distributions() -> None:
    program = wg.compile(CONE, real="f64")
    got = program.cone.logpdf({"x": 1.0, "y": -2.0, "z": 4.5})
    want = stats.norm.logpdf([1.0, -2.0], 0, 10).sum() + stats.norm.logpdf(4.5, 5.0, 1.0)
    assert got == pytest.approx(want, rel=1e-12)


def test_simulation_scores_what_it_draws() -> None:
    program = wg.compile(CONE, real="f64")
    runs = program.cone.simulate(key=wg.key(3), samples=5)
    for i in range(5):
        one = {k: v[i] for k, v in runs.choices.items()}
        assert runs.score[i] == pytest.approx(program.cone.logpdf(one), rel=1e-9)


NESTED = """
model inner(m: real):
    a ~ normal(m, 1.0)
    v ~ normal(zeros(3) + m, 2.0)
    return a * 2.0

model outer(p: real):
    b ~ bernoulli(p)
    if b:
        x ~ normal(0.0, 1.0)
        y = x
    else:
        w ~ normal(5.0, 2.0)
        y = w + 1.0
    for i in 0..3:
        z ~ normal(y, 1.0)
        y = y + z
    sub ~ inner(y)
    return sub
"""


def _outer_density(p: float, c: dict[str, Any]) -> float:
    total = np.log(p if c["b"] else 1 - p)
    if c["b"]:
        total += stats.norm.logpdf(c["x"])
        y = c["x"]
    else:
        total += stats.norm.logpdf(c["w"], 5, 2)
        y = c["w"] + 1
    for z in c["z"]:
        total += stats.norm.logpdf(z, y, 1)
        y = y + z
    inner = c["sub"]
    total += stats.norm.logpdf(inner["a"], y, 1) + stats.norm.logpdf(inner["v"], y, 2).sum()
    return float(total)


@pytest.mark.parametrize("backend", ["llvm", "xla", "interp"])
def test_branches_loops_and_nested_programs(backend: str) -> None:
    program = wg.compile(NESTED, real="f64", backend=backend)
    taken = set()
    for seed in range(6):
        run = program.outer.simulate(0.4, key=wg.key(seed))
        c = {k: np.asarray(v) if k != "sub" else v for k, v in run.choices.items()}
        c["sub"] = {k: np.asarray(v) for k, v in c["sub"].items()}
        taken.add(bool(c["b"]))
        assert float(run.value) == pytest.approx(2 * float(c["sub"]["a"]), rel=1e-9)
        assert float(run.score) == pytest.approx(_outer_density(0.4, c), rel=1e-9)
        assert float(program.outer.logpdf(c, 0.4)) == pytest.approx(float(run.score), rel=1e-9)
    assert taken == {True, False}


def test_choices_of_a_branch_that_sets_nothing() -> None:
    text = "model m(c: bool):\n    if c:\n        x ~ normal(0.0, 2.0)\n    y ~ normal(0.0, 1.0)\n"
    program = wg.compile(text, real="f64")
    both = stats.norm.logpdf(0.5, 0, 2) + stats.norm.logpdf(0.3)
    assert program.m.logpdf({"x": 0.5, "y": 0.3}, True) == pytest.approx(both, rel=1e-12)
    alone = stats.norm.logpdf(0.3)
    assert program.m.logpdf({"x": 0.0, "y": 0.3}, False) == pytest.approx(alone, rel=1e-12)
    assert program.m.simulate(True, key=wg.key(0)).choices["x"] != 0.0


def test_another_choice_leaves_the_draws_of_the_others_alone() -> None:
    less = wg.compile("model m():\n    x ~ normal(0.0, 1.0)\n    y ~ normal(x, 1.0)\n")
    more = wg.compile(
        "model m():\n    a ~ normal(0.0, 1.0)\n    x ~ normal(0.0, 1.0)\n    y ~ normal(x, 1.0)\n"
    )
    first, second = (p.m.simulate(key=wg.key(1)).choices for p in (less, more))
    assert (first["x"], first["y"]) == (second["x"], second["y"])


def test_user_declared_distribution_and_strategy() -> None:
    text = """
distribution shifted_exponential(start: real, rate: real):
    "start + Exp(rate)."
    support real
    fn sample(key): return start + exponential(key, start.shape) / rate
    fn logpdf(x): return where(x >= start, log(rate) - rate * (x - start), -inf)
    fn reparam(key): return start + exponential(key, start.shape) / rate

strategy antithetic(d, key, rest):
    "The mean over a draw and another one, from two keys."
    return 0.5 * (rest(d.reparam(key)) + rest(d.reparam(fold_in(key, 1))))

objective f(r: real):
    x ~ shifted_exponential(1.0, r) by antithetic
    return x^2
"""
    program = wg.compile(text, real="f64")
    value, slope = program.f.value_and_grad(2.0, key=wg.key(0), samples=100_000)
    # E[(1 + e / r)^2] = 1 + 2 / r + 2 / r^2; standard errors below 0.01
    assert value == pytest.approx(1 + 1 + 0.5, abs=0.05)
    assert slope == pytest.approx(-0.5 - 0.5, abs=0.05)


EXPECT = """
objective inner(p: real):
    x ~ normal(p, 1.0)
    return x

objective outer(p: real):
    y ~ normal(p, 1.0)
    return y * expect(inner(p)) + 2.0 * expect(inner(p)) * expect(inner(y))
"""


def test_products_of_expectations() -> None:
    value, slope = wg.compile(EXPECT, real="f64").outer.value_and_grad(
        0.7, key=wg.key(0), samples=200_000
    )
    # p^2 + 2 p^2 and its derivative; standard errors 0.01 and 0.02
    assert value == pytest.approx(3 * 0.49, abs=0.05)
    assert slope == pytest.approx(6 * 0.7, abs=0.1)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("return exp(expect(inner(p)))", "'exp' is not linear"),
        ("e = expect(inner(p))\n    return e * e", "'mul' is not linear"),
        ("return 1.0 / expect(inner(p))", "'div' is not linear"),
        ("e = expect(inner(p))\n    return p if e > 0.0 else 1.0", "'gt' is not linear"),
        (
            "s = 1.0\n    e = expect(inner(p))\n    for i in 0..3:\n        s = s * e\n    return s",
            "'mul' is not linear",
        ),
        ("return log_of(expect(inner(p)))", "'log' is not linear"),
    ],
)
def test_functions_of_expectations_are_refused(body: str, word: str) -> None:
    text = f"{EXPECT}\nfn log_of(x: real): return log(x)\n\nobjective f(p: real):\n    {body}\n"
    with pytest.raises(WengertError, match=word) as caught:
        wg.compile(text).f(0.5, key=wg.key(0))
    assert "the expectation taken at <text>:" in str(caught.value)


def test_mixture() -> None:
    text = """
model m(w: real[k], mu: real[k]):
    x ~ mixture(w, normal(mu, 0.5))
    y ~ mixture(w + zeros((2, 1)), normal(mu + zeros((2, 1)), 0.5))
"""
    w, mu = np.array([0.0, 1.0, -1.0]), np.array([0.0, 1.0, 3.0])
    program = wg.compile(text, real="f64")
    runs = program.m.simulate(w, mu, key=wg.key(0), samples=20_000)
    shares = np.exp(w) / np.exp(w).sum()
    density = lambda x: np.log(shares @ stats.norm.pdf(x, mu, 0.5))
    one = {"x": runs.choices["x"][0], "y": runs.choices["y"][0]}
    want = density(one["x"]) + sum(density(v) for v in one["y"])
    assert program.m.logpdf(one, w, mu) == pytest.approx(want, rel=1e-9)
    mean, error = shares @ mu, np.std(runs.choices["x"]) / np.sqrt(20_000)
    assert abs(runs.choices["x"].mean() - mean) < 4.5 * error
    assert (abs(runs.choices["y"].mean(axis=0) - mean) < 4.5 * error).all()
