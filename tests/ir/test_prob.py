"""The prob dialect: text form, verifier, addresses of choices, and what the interpreter says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from wengert.frontend.program import compile_text
from wengert.frontend.specialize import specialize
from wengert.ir import F64, KEY, Module, TensorType, walk
from wengert.ir.errors import CompilerBug, IRError
from wengert.ir.interp import run
from wengert.ir.parser import parse_module
from wengert.ir.printer import print_module
from wengert.ir.prob import choices_of, has_choices
from wengert.ir.verify import verify

TEXT = """entry fn @f(%m: f64, %k: key) -> (f64, f64, f64, f64) {
  %x, %y, %twice, %score = prob.trace %m, %k {fn = "p", scored = ["y"]} : f64, f64, f64, f64
  %x_1, %y_1, %twice_1, %given = prob.trace %m, %k, %x {fn = "p", given = ["x"], scored = ["x", "y"]} : f64, f64, f64, f64
  %mean = prob.expect %m, %k {fn = "loss"} : f64
  return %y, %score, %given, %mean
}

fn @p(%m: f64, %k: key) -> f64 {
  %x = prob.sample %m, %k {dist = "unit", by = "path", at = "x", support = "real", sampler = "draw", density = "logp", rule = "path"} : f64
  %y = prob.sample %x, %k {dist = "unit", by = "path", at = "y", support = "real", sampler = "draw", density = "logp", rule = "path"} : f64
  %twice = add %x, %y : f64
  return %twice
}

fn @loss(%m: f64, %k: key) -> f64 {
  %z = prob.sample %m, %k {dist = "unit", by = "path", at = "z", support = "real", biased = "so it is", moving = ["m"], sampler = "draw", density = "logp", rule = "path"} : f64
  return %z
}

fn @draw(%m: f64, %k: key) -> f64 {
  %one = const 1.0 : f64
  %v = add %m, %one : f64
  return %v
}

fn @logp(%x: f64, %m: f64) -> f64 {
  %d = sub %x, %m : f64
  return %d
}

fn @path(%m: f64, %k: key) -> f64 {
  %x = call %m, %k {fn = "draw"} : f64
  %loss = prob.rest %x : f64
  return %loss
}
"""


def test_printing_what_was_parsed_gives_the_same_text() -> None:
    module = parse_module(TEXT)
    verify(module)
    assert print_module(module) == TEXT


PROGRAM = """
model inner(m: real):
    a ~ normal(m, 1.0)
    return a
model m(p: real):
    b ~ bernoulli(p)
    if b:
        x ~ normal(0.0, 1.0)
    else:
        x ~ normal(zeros(()) + p, 2.0)
        w ~ uniform(0.0, 1.0) by reinforce
    for i in 0..3:
        one ~ inner(x)
    return x
guide q(c: real):
    t ~ normal(c, 1.0) by mvd
objective f(c: real):
    t ~ q(c)
    d = draw(m(0.5))
    e = expect(g(c))
    return logpdf(q(c), t) - score(d) + e + score(generate(m(0.3), {b: true}))
objective g(c: real):
    x ~ gamma(exp(c), 1.0)
    return x
"""


def lowered() -> Module:
    types = {"c": TensorType(F64), "key": TensorType(KEY)}
    return specialize(compile_text(PROGRAM.replace("zeros(()) + ", "")), "f", types, F64).module


def test_lowered_programs_round_trip() -> None:
    module = lowered()
    verify(module)
    text = print_module(module)
    again = parse_module(text)
    verify(again)
    assert print_module(again) == text
    used = {op.name for f in module.functions.values() for op in walk(f.body)}
    assert used >= {"prob.sample", "prob.rest", "prob.trace", "prob.expect"}


def test_addresses() -> None:
    module = lowered()
    found = choices_of(module, module.functions["m"])
    assert [(c.address, str(c.type), c.support) for c in found] == [
        ("b", "bool", "boolean"),
        ("x", "f64", "real"),
        ("w", "f64", "interval"),
        ("one/a", "f64[3]", "real"),
    ]
    assert has_choices(module.functions["m"].body)
    assert not has_choices(module.functions["normal_logpdf"].body)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('fn = "p", scored = ["y"]', 'fn = "none", scored = ["y"]', "names @none"),
        ('scored = ["y"]', 'scored = ["v"]', "@p makes no choice ['v']"),
        ('given = ["x"]', 'given = ["v"]', "@p makes no choice ['v']"),
        ("prob.trace %m, %k, %x", "prob.trace %m, %k, %k", "gives [key] for choices of types"),
        ("prob.trace %m, %k {", "prob.trace %k, %m {", "passes [key, f64] to @p"),
        ("prob.trace %m, %k {", "prob.trace %m {", "passes [f64] to @p"),
        ("prob.expect %m, %k", "prob.expect %k, %m", "passes [key, f64] to @loss"),
        ('fn = "loss"', 'fn = "logp"', "passes [f64, key] to @logp"),
        ('sampler = "draw", density = "logp", rule = "path"} : f64\n  %y', 'sampler = "logp", density = "logp", rule = "path"} : f64\n  %y', "to its sampler @logp"),
        ('density = "logp", rule = "path"} : f64\n  %y', 'density = "draw", rule = "path"} : f64\n  %y', "to its density @draw"),
        ('rule = "path"} : f64\n  %y', 'rule = "logp"} : f64\n  %y', "to its strategy @logp"),
        ('rule = "path"} : f64\n  %y', 'rule = ""} : f64\n  %y', "names no rule"),
    ],
)  # fmt: skip
def test_verifier_refuses(before: str, after: str, message: str) -> None:
    assert before in TEXT
    module = parse_module(TEXT.replace(before, after, 1))
    with pytest.raises(IRError) as caught:
        verify(module)
    assert message in str(caught.value)


def test_verifier_refuses_results_that_are_not_the_choices() -> None:
    def broken(types: str) -> str:
        text = TEXT.replace(
            '%x, %y, %twice, %score = prob.trace %m, %k {fn = "p", scored = ["y"]} : f64, f64, f64, f64',
            f'%x, %y, %twice, %score = prob.trace %m, %k {{fn = "p", scored = ["y"]}} : {types}',
        )
        assert text != TEXT
        with pytest.raises(IRError) as caught:
            verify(parse_module(text))
        return str(caught.value)

    assert "not choices [f64, f64]" in broken("f64, f32, f64, f64")
    assert "of @p, which gives [f64]" in broken("f64, f64, f32, f64")
    assert "a score" in broken("f64, f64, f64, i32")


def test_programs_do_not_run_themselves() -> None:
    text = TEXT.replace(
        "%twice = add %x, %y : f64",
        '%a, %b, %c, %twice = prob.trace %m, %k {fn = "p"} : f64, f64, f64, f64',
    )
    with pytest.raises(IRError, match="circle"):
        verify(parse_module(text))


def test_two_choices_of_one_address() -> None:
    module = parse_module(TEXT.replace('at = "y"', 'at = "x"'))
    with pytest.raises(IRError, match="two choices have the address 'x'"):
        choices_of(module, module.functions["p"])


# What it means: draws are one above their parameter, densities are the distance from it


def test_interpreter() -> None:
    args: list[Any] = [np.float64(5.0), np.uint64(0)]
    y, score, given, mean = run(parse_module(TEXT), args)
    assert (y, score, given, mean) == (7.0, 1.0, 2.0, 6.0)
    fixed = TEXT.replace("%k, %x {", "%k, %m {")
    assert run(parse_module(fixed), args)[2] == 0.0 + 1.0


def test_rest_runs_nowhere() -> None:
    module = parse_module(TEXT)
    with pytest.raises(CompilerBug, match=r"cannot run prob\.rest"):
        run(module, [np.float64(5.0), np.uint64(0)], "path")


def test_expectations_are_of_runs() -> None:
    """The mean over keys of what the interpreter gives for g is that of the distribution."""
    module = lowered()
    draws = np.array([run(module, [np.float64(0.7), np.uint64(k)], "g")[0] for k in range(2000)])
    assert stats.kstest(draws, stats.gamma(np.exp(0.7)).cdf).pvalue > 1e-6
