"""Estimators: surrogates of whole programs have the exact mean and gradient, whatever strategies
their choices have.

Programs are drawn at random as Python objects, which write themselves in the language and take
their own expectations: by sums over discrete choices and Gauss-Hermite quadrature over normal
ones. Averages over draws must be within 4.5 standard errors; SAMPLES of them find a bias of 0.05
with probability above 0.99, the losses being of size 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wengert.runtime.keys import split_key

import wengert as wg

SAMPLES = 40_000
BIAS = 0.05
THETA = np.array([0.4, -0.3])
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(12)
WEIGHTS = WEIGHTS / WEIGHTS.sum()

Scope = dict[str, float]
Value = Callable[[Scope], float]


# Random programs


@dataclass
class Numbers:
    """Numbers that decide what a program is; 0 when they are used up."""

    left: list[int]

    def next(self, below: int) -> int:
        return self.left.pop() % below if self.left else 0


@dataclass
class Term:
    """A real expression: its text and its value."""

    text: str
    value: Value


@dataclass
class Program:
    """A random program: its lines, and its paths. A path is (probability, score, scope)."""

    numbers: Numbers
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
        x, y = (self.names[self.numbers.next(len(self.names))] for _ in range(2))
        kind = self.numbers.next(3)
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
            kind = kinds[self.numbers.next(len(kinds))]
            if kind != self.assign and self.choices >= most:
                kind = self.assign
            kind(depth)

    def fresh(self) -> str:
        return f"v{next(self.counter)}"

    def by(self, *strategies: str) -> str:
        return strategies[self.numbers.next(len(strategies))]

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
        by = self.by("reparam", "reinforce", "mvd", "reinforce_loo")
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
        inner = Program(self.numbers, names, counter=self.counter, choices=self.choices)
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
        return "".join([*self.parts, head, body, f"    return {result.text} + total\n"])


def random_program(numbers: list[int]) -> tuple[str, Callable[[Any], float]]:
    """The text of a program and its exact mean by theta."""
    program = Program(Numbers(list(numbers)))
    program.fill(4, 0, most=5)
    last, rest = program.names[-1], program.term()
    result = Term(f"sin({last}) + {rest.text}", lambda s: float(np.sin(s[last])) + rest.value(s))
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


NUMBERS = st.lists(st.integers(0, 2**30), min_size=30, max_size=30)
SETTINGS = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@given(NUMBERS)
@SETTINGS
def test_random_programs(numbers: list[int]) -> None:
    compare(*random_program(numbers))


@pytest.mark.slow
@given(NUMBERS)
@settings(SETTINGS, max_examples=250)
def test_more_random_programs(numbers: list[int]) -> None:
    compare(*random_program(numbers))


def test_random_programs_have_everything() -> None:
    rng = np.random.default_rng(0)
    texts = [random_program([int(i) for i in rng.integers(0, 2**30, 30)])[0] for _ in range(60)]
    for word in (
        "if ",
        "for ",
        "guide",
        "expect(",
        "reparam",
        "reinforce ",
        "enum\n",
        "enum_sequential",
        "mvd",
        "reinforce_loo",
        "baseline",
    ):
        assert sum(word in text + " " for text in texts) > 3, word
