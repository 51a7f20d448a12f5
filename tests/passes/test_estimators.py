"""Estimators: surrogates of whole programs have the exact mean and gradient, whatever strategies
their choices have.

Programs are drawn at random as Python objects, which write themselves in the language and take
their own expectations: by sums over discrete choices and Gauss-Hermite quadrature over normal
ones. Averages over draws must be within 4.5 standard errors; SAMPLES of them find a bias of 0.05
with probability above 0.99, the losses being of size 1.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from wengert.ir.errors import WengertError
from wengert.passes import estimators
from wengert.passes.linear_use import NonlinearExpectation
from wengert.passes.pathwise import EstimatorMistake
from wengert.runtime.keys import split_key

import wengert as wg

SAMPLES = 40_000
BIAS = 0.05
THETA = np.array([0.4, -0.3])
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(12)
WEIGHTS = WEIGHTS / WEIGHTS.sum()

# Strategies whose losses have a factor only, a factor and a term that is not zero, and a term only.
STRATEGIES = """
strategy plain(d, key, rest):
    "No baseline."
    x = stop_gradient(d.sample(key))
    log_p = d.logpdf(x)
    return rest(x) * exp(log_p - stop_gradient(log_p))

strategy control(d, key, rest):
    "A control variate of known mean."
    x = stop_gradient(d.sample(key))
    log_p = d.logpdf(x)
    return (rest(x) - 0.5 * real(x)) * exp(log_p - stop_gradient(log_p)) + 0.5 * d.mean()

strategy lifted(d, key, rest):
    "A path, and a term of mean zero."
    x = d.reparam(key)
    return rest(x) + 0.4 * (x - d.mean())

"""

Scope = dict[str, float]
Value = Callable[[Scope], float]


# Random programs


@dataclass
class Term:
    """A real expression: its text and its value."""

    text: str
    value: Value


@dataclass
class Program:
    """A random program: its lines, and its paths. A path is (probability, score, scope)."""

    random: Random
    names: list[str] = field(default_factory=lambda: ["a", "c"])
    lines: list[str] = field(default_factory=list)
    steps: list[Callable[[float, Scope], Iterator[tuple[float, Scope]]]] = field(
        default_factory=list
    )
    counter: Iterator[int] = field(default_factory=itertools.count)
    parts: list[str] = field(default_factory=list)
    choices: int = 0
    objective: bool = True  # traces can be taken apart

    def term(self) -> Term:
        """0.8 sin(x) + 0.3 y or so, of names in scope."""
        x, y = self.random.choice(self.names[-3:]), self.random.choice(self.names)
        kind = self.random.randrange(3)
        if kind == 0:
            return Term(f"(0.7 * {x} - 0.4 * {y})", lambda s: 0.7 * s[x] - 0.4 * s[y])
        if kind == 1:
            return Term(f"sin({x} + {y} + 0.5)", lambda s: float(np.sin(s[x] + s[y] + 0.5)))
        return Term(
            f"(0.5 * {x} * cos({y}) + 0.2)", lambda s: float(0.5 * s[x] * np.cos(s[y]) + 0.2)
        )

    def fill(self, count: int, depth: int, most: int) -> None:
        """Up to `count` statements."""
        for _ in range(count):
            kinds = [self.bernoulli, self.normal, self.three, self.assign]
            if depth < 2:
                kinds += [self.branch, self.loop]
                kinds += [self.part] if self.objective else []
            if depth == 0:
                kinds += [self.expectation]
            kind = self.random.choice(kinds)
            if kind != self.assign and self.choices >= most:
                kind = self.assign
            kind(depth)

    def fresh(self) -> str:
        return f"v{next(self.counter)}"

    def by(self, *strategies: str) -> str:
        return self.random.choice(strategies)

    # Choices

    def bernoulli(self, depth: int) -> None:
        name, p = self.fresh(), self.term()
        self.choices += 1
        by = self.by(
            "reinforce",
            "reinforce_loo",
            "enum",
            "enum_sequential",
            "mvd",
            "reinforce(baseline=0.3)",
            "plain",
            "control",
        )
        if self.choices > 4 and by == "mvd":
            by = "enum"  # copies of copies
        self.lines += [f"{name}b ~ bernoulli_logit({p.text}) by {by}", f"{name} = real({name}b)"]

        def step(weight: float, s: Scope) -> Iterator[tuple[float, Scope]]:
            one = 1 / (1 + np.exp(-p.value(s)))
            for value, q in ((1.0, one), (0.0, 1 - one)):
                yield weight * q, s | {name: value}

        self.steps.append(step)
        self.names.append(name)

    def three(self, depth: int) -> None:
        name, p = self.fresh(), self.term()
        self.choices += 1
        by = self.by("reinforce", "enum", "reinforce_loo(samples=3)", "mvd")
        self.lines += [
            f"{name}i ~ categorical_logit([0.0, {p.text}, 0.3]) by {by}",
            f"{name} = take(real([0.5, -0.7, 1.0]), {name}i)",
        ]

        def step(weight: float, s: Scope) -> Iterator[tuple[float, Scope]]:
            e = np.exp([0.0, p.value(s), 0.3])
            for value, q in zip((0.5, -0.7, 1.0), e / e.sum()):
                yield weight * q, s | {name: value}

        self.steps.append(step)
        self.names.append(name)

    def normal(self, depth: int) -> None:
        name, mean, spread = self.fresh(), self.term(), self.term()
        self.choices += 2
        by = self.by("reparam", "reinforce", "mvd", "reinforce_loo", "plain", "control", "lifted")
        self.lines.append(f"{name} ~ normal({mean.text}, exp(0.3 * {spread.text} - 0.7)) by {by}")

        def step(weight: float, s: Scope) -> Iterator[tuple[float, Scope]]:
            m, d = mean.value(s), np.exp(0.3 * spread.value(s) - 0.7)
            for z, w in zip(NODES, WEIGHTS):
                yield weight * w, s | {name: m + d * z}

        self.steps.append(step)
        self.names.append(name)

    # The rest of the language

    def assign(self, depth: int) -> None:
        name, value = self.fresh(), self.term()
        self.lines.append(f"{name} = {value.text}")
        self.steps.append(lambda weight, s: iter([(weight, s | {name: value.value(s)})]))
        self.names.append(name)

    def inside(self, count: int, depth: int, names: list[str], guide: bool = False) -> Program:
        """A block of this program, or of a guide that it runs."""
        inner = Program(self.random, names, counter=self.counter, choices=self.choices)
        inner.objective = self.objective and not guide
        inner.fill(count, depth + 1, most=5)
        self.choices = inner.choices
        self.parts += inner.parts
        return inner

    def branch(self, depth: int) -> None:
        """An `if` on a discrete choice."""
        self.bernoulli(depth)
        flag, name = self.names[-1], self.fresh()
        blocks, ends = [], []
        for _ in range(2):
            blocks.append(self.inside(1, depth, list(self.names)))
            ends.append(blocks[-1].term())
        for head, block, end in zip((f"if {flag}b:", "else:"), blocks, ends):
            self.lines += [
                head,
                *(f"    {line}" for line in block.lines),
                f"    {name} = {end.text}",
            ]

        def step(weight: float, s: Scope) -> Iterator[tuple[float, Scope]]:
            block, end = (blocks[0], ends[0]) if s[flag] else (blocks[1], ends[1])
            for w, inner in block.paths(weight, s):
                yield w, s | {name: end.value(inner)}

        self.steps.append(step)
        self.names.append(name)

    def loop(self, depth: int) -> None:
        """Two trips that carry a number."""
        name, start = self.fresh(), self.term()
        before = self.choices
        body = self.inside(1, depth, [*self.names, name])
        self.choices += self.choices - before
        end = body.term()
        self.lines += [
            f"{name} = {start.text}",
            "for i in 0..2:",
            *(f"    {line}" for line in body.lines),
            f"    {name} = {end.text}",
        ]

        def step(weight: float, s: Scope) -> Iterator[tuple[float, Scope]]:
            for w, first in body.paths(weight, s | {name: start.value(s)}):
                for w2, second in body.paths(w, s | {name: end.value(first)}):
                    yield w2, s | {name: end.value(second)}

        self.steps.append(step)
        self.names.append(name)

    def part(self, depth: int) -> None:
        """A guide run at an address; its score counts."""
        name, argument = self.fresh(), self.term()
        inner = self.inside(1, depth, ["a", "c"], guide=True)
        inner.bernoulli(depth)
        flag = inner.names[-1]
        self.choices = inner.choices
        body = "".join(f"    {line}\n" for line in inner.lines)
        self.parts.append(f"guide g{name}(a: real, c: real):\n{body}    return {flag}\n")
        self.lines += [
            f"t{name} ~ g{name}({argument.text}, c)",
            f"{name} = returned(t{name}) + 0.1 * logpdf(g{name}({argument.text}, c), t{name}) - 0.1 * score(t{name})",
        ]

        def step(weight: float, s: Scope) -> Iterator[tuple[float, Scope]]:
            for w, end in inner.paths(weight, {"a": argument.value(s), "c": s["c"]}):
                yield w, s | {name: end[flag]}

        self.steps.append(step)
        self.names.append(name)

    def expectation(self, depth: int) -> None:
        """Another objective's expectation; it is used linearly, so not by other statements."""
        name, argument = self.fresh(), self.term()
        inner = self.inside(1, depth, ["a", "c"])
        value = inner.term()
        body = "".join(f"    {line}\n" for line in inner.lines)
        self.parts.append(f"objective o{name}(a: real, c: real):\n{body}    return {value.text}\n")
        self.lines.append(f"total = total + 0.5 * expect(o{name}({argument.text}, c))")

        def step(weight: float, s: Scope) -> Iterator[tuple[float, Scope]]:
            start = {"a": argument.value(s), "c": s["c"]}
            mean = sum(w * value.value(end) for w, end in inner.paths(1.0, start))
            yield weight, s | {"total": s["total"] + 0.5 * mean}

        self.steps.append(step)

    # Both sides

    def paths(self, weight: float, scope: Scope, at: int = 0) -> Iterator[tuple[float, Scope]]:
        if at == len(self.steps):
            yield weight, scope
            return
        for w, s in self.steps[at](weight, scope):
            yield from self.paths(w, s, at + 1)

    def mean(self, result: Term, theta: Any) -> float:
        start = {"a": theta[0], "c": theta[1], "total": 0.0}
        return sum(w * (result.value(s) + s["total"]) for w, s in self.paths(1.0, start))

    def text(self, result: Term) -> str:
        body = "".join(f"    {line}\n" for line in self.lines)
        head = "objective f(theta: real[2]):\n    a, c, total = theta[0], theta[1], 0.0\n"
        return "".join([STRATEGIES, *self.parts, head, body, f"    return {result.text} + total\n"])


def random_program(seed: int) -> tuple[str, Callable[[Any], float]]:
    """The text of a program and its exact mean by theta."""
    program = Program(Random(seed))
    program.fill(4, 0, most=5)
    x, y = program.names[-1], program.names[-2]
    rest = program.term()
    result = Term(
        f"sin({x} + {rest.text}) * (1.0 + {y})",
        lambda s: float(np.sin(s[x] + rest.value(s))) * (1.0 + s[y]),
    )
    return program.text(result), lambda theta: program.mean(result, theta)


def gradient(mean: Callable[[Any], float], at: Any, step: float = 1e-3) -> Any:
    out = []
    for e in np.eye(len(at)) * step:
        out.append(
            (8 * (mean(at + e) - mean(at - e)) - mean(at + 2 * e) + mean(at - 2 * e)) / (12 * step)
        )
    return np.array(out)


EACH = "fn each(theta: real[2], keys: key[n]): return map(lambda k: value_and_grad(f, theta, k), keys)\n"


def compare(text: str, mean: Callable[[Any], float], most: int = 25) -> None:
    """Estimates of values and gradients against the exact ones, until BIAS would be found."""
    program = wg.compile(text + EACH, real="f64")
    want = np.concatenate([[mean(THETA)], gradient(mean, THETA)])
    rows: list[Any] = []
    for i in range(most):
        values, slopes = program.each(THETA, split_key(wg.key(i), SAMPLES))
        rows.append(np.concatenate([values[:, None], slopes], axis=1))
        found = np.concatenate(rows)
        error = found.std(0) / np.sqrt(len(found))
        if error.max() < BIAS / (4.5 + 2.33):
            break
    else:
        pytest.fail(f"too noisy: {error}\n{text}")
    off = np.abs(found.mean(0) - want)
    assert (off <= 4.5 * error + 1e-6).all(), f"{found.mean(0)}, not {want}, +- {error}\n{text}"


@pytest.mark.parametrize("seed", range(2, 14))
def test_random_programs(seed: int) -> None:
    compare(*random_program(seed))


@pytest.mark.slow
@given(st.integers(1000, 2**30))
@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_more_random_programs(seed: int) -> None:
    text, mean = random_program(seed)
    try:
        wg.compile(text).f(THETA, key=wg.key(0))
    except EstimatorMistake as mistake:  # the one that large programs may meet
        assert "copy it too often" in str(mistake)
        assume(False)
    compare(text, mean)


def test_random_programs_have_everything() -> None:
    texts = [random_program(seed)[0] for seed in range(60)]
    for word in (
        "if ",
        "for ",
        "guide",
        "expect(",
        "reparam",
        "reinforce\n",
        "enum\n",
        "enum_sequential",
        "mvd",
        "reinforce_loo",
        "baseline",
        "plain\n",
        "control",
        "lifted",
    ):
        assert sum(word in text for text in texts) > 3, word


# Where choices are expanded


def mean_of(
    text: str, theta: Any = 0.4, count: int = 100_000, what: str = "grad"
) -> tuple[Any, Any]:
    """The mean and standard error over keys of `what` of the objective f."""
    each = f"fn each(theta: real, keys: key[n]): return map(lambda k: {what}(f, theta, k), keys)\n"
    keys = split_key(wg.key(0), count)
    found = np.asarray(wg.compile(text + each, real="f64").each(theta, keys))
    return found.mean(0), found.std(0) / np.sqrt(count)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


LONG = """
objective f(theta: real):
    total = 0.0
    for i in 0..40:
        b ~ bernoulli_logit(theta * (1.0 + 0.01 * real(i))) by {flip}
        if b:
            x ~ normal(theta, 1.0) by {move}
            total = total + x
        else:
            total = total - 0.5
    return (total - 10.0)^2 / 40.0
"""


@pytest.mark.parametrize(
    "by", ["reinforce", "reinforce(baseline=2.0)", "plain", "control", "control, lifted"]
)
def test_score_functions_stay_in_loops_and_branches(by: str) -> None:
    """Factors of 40 trips are multiplied up outside: nothing is unrolled."""
    flip, move = by.split(", ") if "lifted" in by else (by, by)
    text = STRATEGIES + LONG.format(flip=flip, move=move)
    dump = wg.compile(text).f.ir(0.4, key=wg.key(0), after="estimators")
    entry = dump[dump.index("entry fn") :].split("\n}\n")[0]
    joined = by != "plain"  # factors alone are multiplied without a loop
    assert len(re.findall(r"\bfor\b", entry)) == 1 + joined
    assert "trips = 40" in entry and entry.count(" if ") == 1
    got, error = mean_of(text, count=200_000)

    def exact(t: float) -> float:
        p = sigmoid(t * (1 + 0.01 * np.arange(40)))
        means = p * t - 0.5 * (1 - p)
        seconds = p * (t * t + 1) + 0.25 * (1 - p)
        return float(((means.sum() - 10) ** 2 + (seconds - means**2).sum()) / 40)

    want = (exact(0.401) - exact(0.399)) / 0.002
    assert abs(got - want) < 4.5 * error < 0.2 * abs(want)


def test_strategies_that_copy_the_rest_unroll_loops() -> None:
    """16 trips at most; the draws of each trip are its own."""
    text = """
objective f(theta: real):
    x = 0.0
    for i in 0..{trips}:
        b ~ bernoulli_logit(theta + 0.3 * x) by {by}
        x = 0.8 * x + real(b)
    return sin(x)
"""

    def exact(t: float, left: int = 6, x: float = 0.0) -> float:
        if not left:
            return float(np.sin(x))
        p = sigmoid(t + 0.3 * x)
        return p * exact(t, left - 1, 0.8 * x + 1) + (1 - p) * exact(t, left - 1, 0.8 * x)

    slope = lambda trips: (exact(0.401, trips) - exact(0.399, trips)) / 0.002
    for by in ("enum", "enum_sequential"):
        program = wg.compile(text.format(trips=6, by=by), real="f64")
        assert program.f(0.4, key=wg.key(0)) == pytest.approx(exact(0.4), rel=1e-12)
        assert program.f.grad(0.4, key=wg.key(0)) == pytest.approx(slope(6), rel=1e-5)
        with pytest.raises(EstimatorMistake) as caught:
            wg.compile(text.format(trips=17, by=by)).f(0.4, key=wg.key(0))
        for part in (
            f"'{by}' cannot estimate the choice 'b' in a loop of 17 trips",
            "at most 16 trips",
            "reinforce",
        ):
            assert part in str(caught.value)
    got, error = mean_of(text.format(trips=4, by="mvd"))
    assert abs(got - slope(4)) < 4.5 * error < 0.1 * abs(slope(4))


def test_stacked_trips() -> None:
    """Choices of a comprehension, whose results are stacked in order."""
    text = """
objective g(theta: real):
    ys = [weight(theta, i) for i in 0..4]
    return ys @ [1.0, 10.0, 100.0, 1000.0]
objective weight(theta: real, i: i32):
    b ~ bernoulli_logit(theta * real(i + 1)) by enum
    return real(b)
"""
    program = wg.compile(text, real="f64")
    want = sigmoid(0.4 * np.arange(1, 5)) @ [1, 10, 100, 1000]
    assert program.g(0.4, key=wg.key(0)) == pytest.approx(want, rel=1e-12)


def test_enumeration_in_a_branch() -> None:
    text = """
objective f(theta: real):
    b ~ bernoulli_logit(theta) by reinforce
    x = 1.0
    if b:
        i ~ categorical_logit([0.0, theta, 1.0]) by enum
        x = real(i)^2
    else:
        c ~ bernoulli_logit(-theta) by enum_sequential
        x = x + real(c) * theta
    y ~ normal(x, 1.0)
    return sin(y)
"""

    def exact(t: float) -> float:
        e = np.exp([0.0, t, 1.0])
        wave = lambda x: float(np.sin(x) * np.exp(-0.5))
        then = sum(p * wave(i * i) for i, p in enumerate(e / e.sum()))
        q = sigmoid(-t)
        return sigmoid(t) * then + (1 - sigmoid(t)) * (q * wave(1 + t) + (1 - q) * wave(1))

    got, error = mean_of(text, count=400_000)
    want = (exact(0.401) - exact(0.399)) / 0.002
    assert abs(got - want) < 4.5 * error < 0.1 * abs(want)


def test_copies_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five copies of the rest a choice: 5^6 are too many, in proportion."""
    monkeypatch.setattr(estimators, "MOST_OPS", 20_000)
    text = """
objective f(theta: real):
    x = 0.0
    for i in 0..6:
        y ~ normal(theta, 1.0) by mvd
        x = x + y
    return sin(x)
"""
    with pytest.raises(EstimatorMistake, match="copy it too often") as caught:
        wg.compile(text).f(0.4, key=wg.key(0))
    assert "at most 20000 operations" in str(caught.value)


# Higher derivatives


@pytest.mark.parametrize(
    "by", ["reinforce", "reinforce(baseline=0.4)", "reinforce_loo(samples=3)", "enum"]
)
def test_second_derivatives_are_unbiased(by: str) -> None:
    text = f"""
objective f(theta: real):
    b ~ bernoulli_logit(theta) by {by}
    c ~ bernoulli_logit(0.5 * theta + real(b)) by {by}
    return sin(real(b) + theta) * (1.0 + real(c))
fn slope(f, theta, k): return grad(lambda t: grad(f, t, k), theta)
"""

    def exact(t: float) -> float:
        total = 0.0
        for b in (0, 1):
            for c in (0, 1):
                p, q = sigmoid(t), sigmoid(0.5 * t + b)
                total += (p if b else 1 - p) * (q if c else 1 - q) * np.sin(b + t) * (1 + c)
        return float(total)

    h = 1e-3
    want = (exact(0.4 + h) - 2 * exact(0.4) + exact(0.4 - h)) / h**2
    got, error = mean_of(text, count=400_000, what="slope")
    assert abs(got - want) < 4.5 * error + 1e-5
    assert error < 0.02 * abs(want)


def test_second_derivatives_of_paths_and_scores() -> None:
    text = """
objective f(theta: real):
    x ~ normal(theta, exp(0.5 * theta)) by reparam
    y ~ normal(x, 1.0) by reinforce
    return cos(y) * x
fn slope(f, theta, k): return grad(lambda t: grad(f, t, k), theta)
"""
    # E[cos(y) | x] = cos(x) exp(-1/2), E[x cos(x)] = (m cos m - v sin m) exp(-v/2)
    exact = lambda t: np.exp(-0.5 - 0.5 * np.exp(t)) * (t * np.cos(t) - np.exp(t) * np.sin(t))
    h = 1e-3
    want = (exact(0.4 + h) - 2 * exact(0.4) + exact(0.4 - h)) / h**2
    got, error = mean_of(text, count=1_000_000, what="slope")
    assert abs(got - want) < 4.5 * error < 0.1 * abs(want)


def test_hessian_of_an_objective() -> None:
    """From Python: one key's estimate, exact for enumeration."""
    text = """
objective f(theta: real[2]):
    b ~ bernoulli_logit(theta[0] * theta[1]) by enum
    return real(b) * theta[0]
"""
    f = wg.compile(text, real="f64").f
    exact = lambda t: sigmoid(t[0] * t[1]) * t[0]
    want = np.array([gradient(lambda t, i=i: gradient(exact, t)[i], THETA) for i in range(2)])
    np.testing.assert_allclose(f.hessian(THETA, key=wg.key(0)), want, rtol=1e-6, atol=1e-7)


# Expectations in expectations


NESTED = """
objective inner(m: real):
    b ~ bernoulli_logit(m) by {by}
    return real(b) * m
objective f(theta: real):
    {body}
"""


@pytest.mark.parametrize("by", ["reinforce", "mvd", "enum"])
def test_products_of_expectations(by: str) -> None:
    """Two estimates on keys of their own: their product is unbiased, as is its derivative."""
    body = "return expect(inner(theta)) * expect(inner(2.0 * theta)) + expect(inner(theta))"
    exact = lambda t: sigmoid(t) * t * sigmoid(2 * t) * 2 * t + sigmoid(t) * t
    got, error = mean_of(NESTED.format(by=by, body=body), count=400_000)
    want = (exact(0.401) - exact(0.399)) / 0.002
    assert abs(got - want) < 4.5 * error + 1e-6
    assert error < 0.02 * abs(want)


@pytest.mark.parametrize(
    "body",
    [
        "return log(expect(inner(theta)))",
        "e = expect(inner(theta))\n    return e * e",
        "return 1.0 / expect(inner(theta))",
        "e = expect(inner(theta))\n    return 1.0 if e > 0.5 else 0.0",
        "e = expect(inner(theta))\n    for i in 0..2:\n        e = e * e\n    return e",
    ],
)
def test_other_functions_of_expectations_are_refused(body: str) -> None:
    with pytest.raises(NonlinearExpectation, match=r"\^") as caught:
        wg.compile(NESTED.format(by="enum", body=body)).f(0.4, key=wg.key(0))
    assert "is not linear" in str(caught.value)


# Other programs


def test_programs_that_are_no_losses_draw() -> None:
    """A model's choices are draws from its distributions, whatever their strategies."""
    text = """
guide q(a: real):
    x ~ normal(a, 2.0) by mvd
    b ~ bernoulli(0.3) by enum
    for i in 0..3:
        c ~ categorical([0.2, 0.5, 0.3]) by reinforce_loo
"""
    run = wg.compile(text, real="f64").q.simulate(1.0, key=wg.key(0), samples=20_000)
    assert stats.kstest(run.choices["x"], stats.norm(1, 2).cdf).pvalue > 1e-6
    assert stats.binomtest(int(run.choices["b"].sum()), 20_000, 0.3).pvalue > 1e-6
    counts = np.bincount(run.choices["c"].ravel(), minlength=3)
    assert stats.chisquare(counts, 60_000 * np.array([0.2, 0.5, 0.3])).pvalue > 1e-6


@pytest.mark.parametrize("backend", ["llvm", "xla", "interp"])
def test_relaxed_choices_draw_relaxed_values(backend: str) -> None:
    """A program has one type, so that its plain runs choose what its strategies pass on."""
    text = """
guide q(a: real):
    x ~ bernoulli_logit(a) by gumbel(0.5)
    y ~ categorical_logit([0.0, a, 1.0]) by straight_through
objective f(a: real):
    t ~ q(a)
    return t.x + t.y[1]
"""
    program = wg.compile(text, real="f64", backend=backend)
    run = program.q.simulate(0.3, key=wg.key(5))
    assert 0 < float(run.choices["x"]) < 1
    y = np.asarray(run.choices["y"])
    np.testing.assert_allclose(np.sort(y), [0, 0, 1], atol=1e-12)
    assert np.isfinite(program.f.grad(0.3, key=wg.key(5)))


def test_a_strategy_without_a_rest_to_stop_at() -> None:
    text = """
strategy soft(d, key, rest):
    "Two relaxed draws."
    return 0.5 * sum([rest(d.relaxed(k, 0.5)) for k in split(key)])
objective f(a: real):
    x ~ bernoulli_logit(a) by soft
    return x
"""
    with pytest.raises(WengertError, match="outside of loops and branches"):
        wg.compile(text).f(0.3, key=wg.key(0))


# Golden dumps

CONE = """
model cone():
    x ~ normal(0.0, 10.0)
    y ~ normal(0.0, 10.0)
    rs = x^2 + y^2
    z ~ normal(rs, 0.1 + rs / 100.0)

guide naive(phi: f32[4]):
    x ~ normal(phi[0], exp(phi[1])) by reparam
    y ~ normal(phi[2], exp(phi[3])) by reinforce

objective elbo(phi: f32[4], z: f32):
    t ~ naive(phi)
    return logpdf(cone(), {t, z: z}) - logpdf(naive(phi), t)
"""


@pytest.mark.parametrize("stage", ["lower", "densities", "estimators"])
def test_golden(stage: str, request: pytest.FixtureRequest) -> None:
    """The cone's ELBO before, between and after the two passes; `--update-golden` rewrites them."""
    path = Path(__file__).parent / "golden" / f"cone_{stage}.ir"
    phi = np.array([2.0, -2.0, 1.0, -2.0], np.float32)
    dump = wg.compile(CONE, "cone.wg").elbo.ir(phi, 5.0, key=wg.key(0), after=stage)
    if request.config.getoption("--update-golden"):
        path.write_text(dump)
    assert dump == path.read_text(), f"{path} is another: --update-golden, and look at the change"
