"""The text form reads back; the verifier finds what is broken; builders refuse misfits."""

from __future__ import annotations

import numpy as np
import pytest
from wengert.ir import (
    BOOL,
    F32,
    I32,
    Block,
    Function,
    IRError,
    Module,
    Op,
    TensorType,
    Value,
    WengertError,
    function_block,
)
from wengert.ir.analysis import call_graph, op_counts, to_dot, use_def_graph, uses
from wengert.ir.interp import run
from wengert.ir.parser import parse_module
from wengert.ir.printer import print_function, print_module
from wengert.ir.verify import verify

TEXT = """entry fn @f(%x: f32[3], %c: bool) -> (f32, f32[3]) {
  %zero = const 0.0 : f32
  %table = const dense<0.1, nan, -inf> : f32[3]
  %s, %ys = for %zero, %x {trips = 3, carries = 1} body (%i: i32, %a: f32, %e: f32) {
    %u = call %e {fn = "g"} : f32
    %b = add %a, %u : f32
    %r = if %c then {
      %n = neg %b : f32
      yield %n
    } else {
      yield %b
    } : f32
    yield %r, %u
  } : f32, f32[3]
  %t = while %s {max_trips = 5} cond (%w: f32) {
    %one = const 1.5 : f32
    %go = lt %w, %one : bool
    yield %go
  } body (%w_1: f32) {
    %more = add %w_1, %w_1 : f32
    yield %more
  } : f32
  return %t, %ys
}

fn @g(%x: f32) -> f32 {
  %y = sin %x : f32
  return %y
}
"""


def test_printing_what_was_parsed_gives_the_same_text():
    module = parse_module(TEXT)
    verify(module)
    assert print_module(module) == TEXT


def test_parsed_text_runs():
    x = np.float32([0.1, 0.2, 0.3])
    total, ys = run(parse_module(TEXT), [x, np.bool_(False)])
    np.testing.assert_allclose(ys, np.sin(x), rtol=1e-6)
    want = np.sin(x).sum()
    while want < 1.5:
        want = want * 2
    np.testing.assert_allclose(total, want, rtol=1e-6)


@pytest.mark.parametrize("value", [0.1, -0.0, np.nan, np.inf, 1e-45, 3.4028235e38, 16777217])
def test_constants_round_trip_exactly(value):
    block, b = function_block([])
    block.results = [b.const(value, F32), b.const(np.array([value, 1]), TensorType(F32, (2,)))]
    module = Module(entry="f")
    module.add(Function("f", block))
    again = parse_module(print_module(module))
    for first, second in zip(run(module, []), run(again, []), strict=True):
        assert first.tobytes() == second.tobytes()


def test_long_tables_can_be_elided_for_reading():
    block, b = function_block([])
    block.results = [b.const(np.arange(100.0), TensorType(F32, (100,)))]
    assert "dense<...>" in print_function(Function("f", block), elide=True)


@pytest.mark.parametrize(
    "text",
    [
        "fn",
        "entry fn @f() -> f32 {\n  return %x\n}",
        "entry fn @f() -> f32 {\n  %a = nothing : f32\n  return %a\n}",
    ],
)
def test_bad_text_is_told_with_its_place(text):
    with pytest.raises(WengertError) as error:
        parse_module(text)
    assert "<ir>:" in str(error.value)


def broken(change):
    module = parse_module(TEXT)
    change(module)
    with pytest.raises(IRError) as error:
        verify(module)
    return str(error.value)


def test_verifier_names_op_types_and_lines_around():
    def wrong_type(m):
        m.main.body.ops[2].regions[0].ops[1].results[0].type = TensorType(I32)

    message = broken(wrong_type)
    assert "@f" in message and "add" in message and "i32" in message and "yield" in message


def test_verifier_finds_each_fault():
    def drop_first(m):
        del m.main.body.ops[0]

    def twice(m):
        m.main.body.ops.append(m.main.body.ops[0])

    def no_entry(m):
        m.entry = "h"

    def no_callee(m):
        m.main.body.ops[2].regions[0].ops[0].attrs["fn"] = "h"

    def escaped(m):
        m.main.body.results[0] = m.main.body.ops[2].regions[0].ops[1].results[0]

    def circle(m):
        g = m.functions["g"]
        x = g.params[0]
        attrs = {"fn": "g", "jvp": "", "fwd": "", "bwd": "", "types": (x.type,)}
        g.body.ops.append(Op("call", (x,), attrs, (), (Value(x.type),)))

    def extra_operand(m):
        op = m.functions["g"].body.ops[0]
        op.operands = op.operands * 2

    for change, text in (
        (drop_first, "not defined"),
        (twice, "twice"),
        (no_entry, "no function"),
        (no_callee, "does not have"),
        (escaped, "not defined"),
        (circle, "circle"),
        (extra_operand, "operands"),
    ):
        assert text in broken(change), change.__name__


RULES = """entry fn @f(%x: f32, %k: i32) -> f32 {
  %y = call %x, %k {fn = "g", jvp = "push"} : f32
  %z = call %y, %k {fn = "g", fwd = "keep", bwd = "pull"} : f32
  %t = linear_call %x, %z {bwd = "pull", residuals = 1} : f32
  return %t
}

fn @g(%x: f32, %k: i32) -> f32 {
  return %x
}

fn @push(%x: f32, %k: i32, %dx: f32) -> (f32, f32) {
  return %x, %dx
}

fn @keep(%x: f32, %k: i32) -> (f32, f32) {
  return %x, %x
}

fn @pull(%r: f32, %ct: f32) -> f32 {
  %p = mul %r, %ct : f32
  return %p
}

fn @pull_k(%r: f32, %ct: f32) -> (f32, i32) {
  %one = const 1 : i32
  return %ct, %one
}
"""


def test_rules_of_derivatives_that_fit_are_taken():
    verify(parse_module(RULES))


@pytest.mark.parametrize(
    "before, after, message",
    [
        ('jvp = "push"', 'jvp = "pull"', "to its jvp rule @pull, which takes [f32, f32]"),
        ("return %x, %dx", "return %x, %k", "of its jvp rule @push, which gives [f32, i32]"),
        ('fwd = "keep", ', "", "one of fwd and bwd"),
        (', bwd = "pull"}', "}", "one of fwd and bwd"),
        ('fwd = "keep"', 'fwd = "pull"', "to its fwd rule @pull, which takes [f32, f32]"),
        ("return %x, %x", "return %k, %x", "of its fwd rule @keep, which gives [i32, f32]"),
        ('bwd = "pull"}', 'bwd = "g"}', "to its bwd rule @g, which takes [f32, i32]"),
        ("return %x, %x", "return %x, %x, %k", "passes [f32, i32, f32] to its bwd rule @pull"),
        ('fwd = "keep", bwd = "pull"', 'fwd = "keep", bwd = "pull_k"', "which gives [f32, i32]"),
        ('{bwd = "pull", residuals', '{bwd = "push", residuals', "to its transpose @push"),
        ("residuals = 1", "residuals = 0", "passes [f32] to its transpose @pull"),
        ("residuals = 1", "residuals = 3", "has 3 residuals among 2 operands"),
        ('{bwd = "pull", residuals', "{residuals", "names no function"),
    ],
)
def test_rules_of_derivatives_that_do_not_fit_are_refused(before, after, message):
    with pytest.raises(IRError) as error:
        verify(parse_module(RULES.replace(before, after)))
    assert message in str(error.value)


NEST = """entry fn @f(%x: &f32[8], %out: &f32[8]) -> () {outputs = 1} {
  loop.nest {dims = [8], simd = -1} body (%i: i64) {
    %e = loop.load %x, %i : f32
    loop.accumulate %e, %out, %i
  }
  loop.nest {dims = [8], simd = 0} body (%i_1: i64) {
    %s = loop.reduce {dims = [4], kinds = ["add"]} body (%r: i64) {
      %e_1 = loop.load %x, %r : f32
      yield %e_1
    } : f32
    loop.store %s, %out, %i_1
  }
  return
}
"""


def test_nests_whose_iterations_are_independent_are_taken():
    verify(parse_module(NEST))


@pytest.mark.parametrize(
    "before, after, message",
    [
        ("simd = -1", "simd = 0", "holds a loop.accumulate"),
        ("simd = -1", "parallel = 1, simd = -1", "holds a loop.accumulate"),
        ("    %e = ", "    %m = loop.alloc : &f32\n    %e = ", "holds a loop.alloc"),
        ("      yield", "      loop.store %e_1, %out, %r\n      yield", "holds a loop.store"),
    ],
)
def test_nests_that_share_what_they_write_are_refused(before, after, message):
    with pytest.raises(IRError, match=message):
        verify(parse_module(NEST.replace(before, after)))


def test_builders_refuse_misfits():
    block, b = function_block([TensorType(F32, (3,)), TensorType(F32, (4,)), TensorType(BOOL)])
    x, y, c = block.params
    for make in (
        lambda: b.add(x, y),
        lambda: b.exp(c),
        lambda: b.reshape(x, shape=(4,)),
        lambda: b.broadcast(x, shape=(4,), axes=(0,)),
        lambda: b.slice(x, start=(0,), limit=(9,), stride=(1,)),
        lambda: b.op("if", [c], [Block(), Block([], [], [x])]),
        lambda: b.op("add", [x]),
    ):
        with pytest.raises(IRError):
            make()
    with pytest.raises(TypeError):
        b.exp(x, wrong=1)


def test_analyses():
    module = parse_module(TEXT)
    assert list(call_graph(module).edges) == [("f", "g")]
    assert op_counts(module.main)["const"] == 3
    x = module.functions["g"].params[0]
    assert [op.name for op in uses(module.functions["g"])[x]] == ["sin"]
    assert use_def_graph(module.main).number_of_edges() > 5
    dot = to_dot(module)
    assert dot.count("{") == dot.count("}") and "cluster_f" in dot
