"""Traces: what the densities pass writes is what the interpreter, which runs programs and notes
their choices, says; and both are what SciPy says. The same for `prob.assess`.
"""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats
from wengert.frontend.program import compile_text
from wengert.frontend.specialize import Static, specialize
from wengert.ir.builder import function_block
from wengert.ir.core import Function, Module, walk
from wengert.ir.interp import run
from wengert.ir.prob import choices_of
from wengert.ir.types import F64, KEY, TensorType
from wengert.ir.verify import verify
from wengert.passes.densities import densities

import wengert as wg

PROGRAMS = runpy.run_path(str(Path(__file__).parents[1] / "frontend" / "test_programs.py"))
REAL = TensorType(F64)


def lowered(text: str, name: str = "m", **types: Any) -> tuple[Module, str]:
    """The module of a model's simulation, and the name of the model in it."""
    args = {**types, "key": TensorType(KEY)}
    module = specialize(compile_text(text), f"{name}.simulate", args, F64).module
    verify(module)
    (trace,) = [op for op in walk(module.main.body) if op.name == "prob.trace"]
    return module, trace.attrs["fn"]


def with_trace(module: Module, name: str, fixed: Sequence[str], scored: Sequence[str]) -> Module:
    """A module whose entry traces program `name`: (arguments, given choices) -> results."""
    program = module.functions[name]
    choices = {c.address: c.type for c in choices_of(module, program)}
    arguments = [p.type for p in program.params]
    block, b = function_block([*arguments, *(choices[a] for a in fixed)])
    types = (*choices.values(), *(r.type for r in program.results), REAL)
    block.results = list(
        b.op(
            "prob.trace",
            block.params,
            fn=name,
            given=tuple(fixed),
            scored=tuple(scored),
            types=types,
        )
    )
    out = Module(dict(module.functions), "traced")
    out.add(Function("traced", block))
    verify(out)
    return out


def same(module: Module, args: Sequence[Any]) -> list[Any]:
    """The results of a module, which are the same after the densities pass."""
    plain = densities(module)
    verify(plain)
    names = {op.name for f in plain.functions.values() for op in walk(f.body)}
    assert not names & {"prob.trace", "prob.assess"}
    want, got = run(module, args), run(plain, args)
    for w, g in zip(want, got, strict=True):
        assert (np.shape(w), np.asarray(w).dtype) == (np.shape(g), np.asarray(g).dtype)
        np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-12)
    return want


def key(seed: int) -> Any:
    return np.uint64(seed << 32)


def check(text: str, arguments: Sequence[Any], seed: int, chosen: Any) -> None:
    """Simulate a model; then fix and score some choices as `chosen(addresses)` says, and all."""
    types = {f"p{i}": REAL for i in range(len(arguments))}
    module, name = lowered(text, **types)
    program = module.functions[name]
    addresses = [c.address for c in choices_of(module, program)]
    drawn = same(with_trace(module, name, [], addresses), [*arguments, key(seed)])
    values = dict(zip(addresses, drawn))
    again = same(
        with_trace(module, name, addresses, addresses),
        [*arguments, key(99), *values.values()],
    )
    np.testing.assert_allclose(again[-1], drawn[-1], rtol=1e-12)  # assessed as simulated
    for _ in range(2):
        fixed, scored = chosen(addresses), chosen(addresses)
        out = same(
            with_trace(module, name, fixed, scored),
            [*arguments, key(seed + 1), *(values[a] for a in fixed)],
        )
        for a, value in zip(addresses, out):
            if a in fixed:
                np.testing.assert_array_equal(value, values[a])


# Programs of the frontend's tests


@pytest.mark.parametrize("seed", range(4))
def test_branches_loops_and_nested_programs(seed: int) -> None:
    text = (
        PROGRAMS["NESTED"]
        .replace("model outer(p: real)", "model m(p0: real)")
        .replace("bernoulli(p)", "bernoulli(p0)")
    )
    rng = np.random.default_rng(seed)
    check(text, [np.array(0.4)], seed, lambda a: [x for x in a if rng.random() < 0.5])


def test_the_interpreter_alone() -> None:
    """Against SciPy: choices in both branches, a loop and a nested program."""
    text = PROGRAMS["NESTED"]
    module, name = lowered(text, "outer", p=REAL)
    addresses = [c.address for c in choices_of(module, module.functions[name])]
    assert addresses == ["b", "x", "w", "z", "sub/a", "sub/v"]
    taken = set()
    for seed in range(8):
        values = run(with_trace(module, name, [], addresses), [np.array(0.4), key(seed)])
        c = dict(zip(addresses, values))
        nested = {k: c[k] for k in "bxwz"} | {"sub": {"a": c["sub/a"], "v": c["sub/v"]}}
        assert values[-1] == pytest.approx(PROGRAMS["_outer_density"](0.4, nested), rel=1e-12)
        assert values[-2] == 2 * c["sub/a"]
        assert c["w" if c["b"] else "x"] == 0  # of the branch not taken
        assert c["z"].shape == (3,) and len(set(c["z"])) == 3
        taken.add(bool(c["b"]))
        for part in (["b"], ["z", "sub/v"], []):
            score = run(with_trace(module, name, [], part), [np.array(0.4), key(seed)])[-1]
            whole = sum(_terms(c)[a] for a in part)
            assert score == pytest.approx(whole, rel=1e-12, abs=1e-12)
    assert taken == {True, False}


def _terms(c: dict[str, Any]) -> dict[str, float]:
    y = c["x"] if c["b"] else c["w"] + 1
    z_terms = 0.0
    for z in c["z"]:
        z_terms += float(stats.norm.logpdf(z, y, 1))
        y = y + z
    return {
        "b": float(np.log(0.4 if c["b"] else 0.6)),
        "z": z_terms,
        "sub/v": float(stats.norm.logpdf(c["sub/v"], y, 2).sum()),
    }


def test_a_loop_of_no_trips_chooses_nothing() -> None:
    text = (
        "model m(p0: real, n: static int):\n    x ~ normal(p0, 1.0)\n"
        "    for i in 0..n:\n        y ~ normal(x, 1.0)\n    return x\n"
    )
    args = {"p0": REAL, "n": Static(0), "key": TensorType(KEY)}
    module = specialize(compile_text(text), "m.simulate", args, F64).module
    x, y, score, _ = same(module, [np.array(0.5), key(1)])
    assert y.shape == (0,) and score == pytest.approx(stats.norm.logpdf(x, 0.5, 1))


# Random programs

Step = tuple[int, int, int]


class Writer:
    """Turns numbers into the text of a model with choices everywhere; any numbers will do."""

    def __init__(self, steps: list[Step], name: str = "m") -> None:
        self.steps = steps
        self.name = name
        self.parts: list[str] = []
        self.lines: list[str] = []
        self.count = 0

    def text(self) -> str:
        reals = self.block(["p0"], "    ", depth=0)
        body = "\n".join(self.lines)
        model = f"model {self.name}(p0: real):\n{body}\n    return {' + '.join(reals[-3:])}\n"
        return "\n".join([*self.parts, model])

    def fresh(self) -> str:
        self.count += 1
        return f"c{self.count}"

    def block(self, reals: list[str], indent: str, depth: int) -> list[str]:
        """Up to four statements; the real numbers in scope after them."""
        reals = list(reals)
        for _ in range(4 - depth):
            if not self.steps:
                break
            kind, p, q = self.steps.pop()
            mean = f"0.5 * {reals[p % len(reals)]}"
            reals += self.statement(kind % (7 if depth < 2 else 4), mean, reals, indent, depth, q)
        return reals

    def statement(
        self, kind: int, mean: str, reals: list[str], indent: str, depth: int, q: int
    ) -> list[str]:
        at = self.fresh()
        add = lambda line: self.lines.append(indent + line)
        match kind:
            case 0:
                add(f"{at} ~ normal({mean}, {1 + q % 3}.5)")
                return [at]
            case 1:
                add(f"{at} ~ bernoulli(sigmoid({mean}))")
                return [f"real({at})"]
            case 2:
                add(f"{at} ~ normal(zeros(2) + {mean}, exp(0.1 * {mean}))")
                return [f"sum({at})"]
            case 3:
                add(f"{at} ~ categorical_logit([0.0, {mean}, 1.0])")
                return [f"real({at})"]
            case 4:
                self.branches(at, mean, reals, indent, depth)
                return [f"y{at}"]
            case 5:
                add(f"y{at} = {mean}")
                add(f"for i in 0..{1 + q % 3}:")
                inner = self.block([*reals, f"y{at}"], indent + "    ", depth + 1)
                add(f"    y{at} = 0.5 * y{at} + 0.1 * {inner[-1]}")
                return [f"y{at}"]
        part = Writer(self.steps[: q % 4], f"{self.name}_{at}")
        del self.steps[: q % 4]
        self.parts.append(part.text())
        add(f"{at} ~ {part.name}({mean})")
        return [at]

    def branches(self, at: str, mean: str, reals: list[str], indent: str, depth: int) -> None:
        """One choice that both branches make, and others."""
        for head in (f"if {mean} > 0.2:", "else:"):
            self.lines.append(f"{indent}{head}")
            self.lines.append(f"{indent}    both{at} ~ normal({mean}, {len(head)}.0)")
            inner = self.block([*reals, f"both{at}"], indent + "    ", depth + 1)
            self.lines.append(f"{indent}    y{at} = {inner[-1]}")


STEPS = st.lists(st.tuples(*[st.integers(0, 60)] * 3), min_size=1, max_size=12)
SETTINGS = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@given(STEPS, st.integers(0, 2**20), st.randoms(use_true_random=False))
@SETTINGS
def test_random_programs(steps: list[Step], seed: int, random: Any) -> None:
    text = Writer(list(steps)).text()
    check(text, [np.array(0.7)], seed, lambda a: [x for x in a if random.random() < 0.5])


@pytest.mark.slow
@given(STEPS, st.integers(0, 2**20), st.randoms(use_true_random=False))
@settings(SETTINGS, max_examples=1500)
def test_more_random_programs(steps: list[Step], seed: int, random: Any) -> None:
    text = Writer(list(steps)).text()
    check(text, [np.array(0.7)], seed, lambda a: [x for x in a if random.random() < 0.5])


def test_random_programs_have_everything() -> None:
    """The writer makes every kind of choice, branch, loop and part."""
    rng = np.random.default_rng(0)
    texts = [
        Writer([tuple(map(int, row)) for row in rng.integers(0, 60, (12, 3))]).text()
        for _ in range(40)
    ]
    for word in ("bernoulli", "categorical", "else", "for", "zeros(2)", "model m_", "        for"):
        assert sum(word in text for text in texts) > 5, word


# Choices summed out


ASSESSED = """
model part(m: real):
    z ~ bernoulli(0.25)
    y ~ normal(m + 3.0 * real(z), 1.0)
    return m

model m():
    a ~ categorical([0.2, 0.3, 0.5])
    x ~ uniform(-1.0, 2.0)
    s ~ gamma(2.0, 1.0)
    if x > 0.0:
        k ~ bernoulli(0.3)
        w ~ normal(x + real(k), 1.0)
    else:
        w ~ normal(-x, 2.0)
    for i in 0..3:
        one ~ part(x)
    e ~ normal(real(a), 1.0)
    return x

fn f(w, e, y, x, s): return score(assess(m(), {w, e, one: {y}}, {x, s}))
fn all_free(w, e, y, x, s): return assess(m(), {w, e, one: {y}}, {x, s})
"""


@pytest.mark.parametrize("x", [-1.5, 0.2, 3.0])
def test_sums_and_maps(x: float) -> None:
    """Factored sums against the interpreter's one sum over all 3 * 2 * 2^3 joint values."""
    types = {"w": REAL, "e": REAL, "y": TensorType(F64, (3,)), "x": REAL, "s": REAL}
    module = specialize(compile_text(ASSESSED), "f", types, F64).module
    verify(module)
    args = [np.array(0.3), np.array(1.2), np.array([0.1, 2.0, -0.5]), np.array(x), np.array(0.4)]
    (score,) = same(module, args)
    assert np.isfinite(score)


BRANCHED = """
model p(w: real):
    k ~ {kind}
    {branch}
        scale ~ normal(3.0, 0.1)
        x ~ normal(w / scale, 1.0)
    y ~ normal(0.0, 1.0)

objective f(w: real, ks: {dtype}[n], scales: real[n], xs: real[n]):
    return mean([logpdf(p(w), {{k: ks[i], scale: scales[i], x: xs[i], y: 0.0}}) for i in 0..n])
"""


@pytest.mark.parametrize("kind", ["bernoulli(0.5)", "categorical([0.2, 0.3, 0.5])"])
@pytest.mark.parametrize("backend", ["llvm", "xla"])
def test_zeros_of_branches_not_taken_do_no_harm(kind: str, backend: str) -> None:
    """A batch computes both branches; what was given for the other one leaves no NaN behind."""
    boolean = "bernoulli" in kind
    branch, dtype = ("if k:", "bool") if boolean else ("if k == 1:", "i32")
    text = BRANCHED.format(kind=kind, branch=branch, dtype=dtype)
    f = wg.compile(text, backend=backend, real="f64").f
    ks = np.array([0, 1, 0, 1], bool if boolean else np.int32)
    scales, xs = np.where(ks == 1, [1.0, 2.0, 3.0, 4.0], 0.0), np.where(ks == 1, 0.7, 0.0)
    value, slope = f.value_and_grad(2.0, ks, scales, xs, key=wg.key(0))
    taken = ks == 1
    residual = xs[taken] - 2.0 / scales[taken]
    assert np.isfinite(value)
    np.testing.assert_allclose(slope, (residual / scales[taken]).sum() / 4, rtol=1e-12)
