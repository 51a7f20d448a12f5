"""Dead code: ops, carries, streams, outputs and branch results that nothing needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from wengert.ir.builder import Builder
from wengert.ir.core import Block, Function, Module, Op, Value, walk
from wengert.ir.interp import run
from wengert.ir.types import BOOL, F64, I32, TensorType
from wengert.ir.verify import verify
from wengert.passes.dce import dce_function

Make = Callable[..., Any]


def t(*shape: int) -> TensorType:
    return TensorType(F64, shape)


def region(make: Make, *types: TensorType) -> Block:
    block = Block([Value(type) for type in types])
    block.results = list(make(Builder(block), *block.params))
    return block


def trimmed(types: Sequence[TensorType], make: Make) -> list[Op]:
    """All ops that are left, after a check that results stay."""
    body = region(make, *types)
    before = Module({"f": Function("f", body)}, "f")
    after = Module({"f": dce_function(before.main)}, "f")
    verify(after)
    args = [np.ones(type.shape, type.dtype.numpy) for type in types]
    for x, y in zip(run(before, args), run(after, args), strict=True):
        np.testing.assert_array_equal(x, y)
    return list(walk(after.main.body))


def only(ops: Sequence[Op], name: str) -> Op:
    (op,) = [op for op in ops if op.name == name]
    return op


def test_unused_op_and_what_fed_it_go() -> None:
    def make(b: Any, x: Value) -> Any:
        b.sin(b.exp(x))
        return [b.neg(x)]

    assert [op.name for op in trimmed([t(2)], make)] == ["neg"]


def test_parameters_stay() -> None:
    function = dce_function(Function("f", region(lambda b, x, y: [x], t(), t())))
    assert len(function.params) == 2


def test_carry_stream_and_output_that_nobody_reads_go() -> None:
    def make(b: Any, x: Value, xs: Value) -> Any:
        def body(r: Any, i: Value, s: Value, dead: Value, e: Value, unread: Value) -> Any:
            return [r.add(s, e), r.mul(dead, unread), r.sin(s), r.cos(s)]

        block = region(body, TensorType(I32), t(), t(), t(), t())
        out = b.op("for", [x, x, xs, xs], [block], trips=3, carries=2)
        return [out[0], out[3]]

    ops = trimmed([t(), t(3)], make)
    loop = only(ops, "for")
    assert (loop.attrs["carries"], len(loop.operands), len(loop.results)) == (1, 2, 2)
    assert {op.name for op in ops} == {"for", "add", "cos"}


def test_carry_that_another_needs_stays() -> None:
    def make(b: Any, x: Value) -> Any:
        body = region(lambda r, i, s, k: [r.add(s, k), r.sin(k)], TensorType(I32), t(), t())
        return [b.op("for", [x, x], [body], trips=3, carries=2)[0]]

    assert only(trimmed([t()], make), "for").attrs["carries"] == 2


def test_carries_that_only_need_each_other_go() -> None:
    def make(b: Any, x: Value) -> Any:
        body = region(lambda r, i, s, p, q: [r.sin(s), q, p], TensorType(I32), t(), t(), t())
        return [b.op("for", [x, x, x], [body], trips=3, carries=3)[0]]

    assert only(trimmed([t()], make), "for").attrs["carries"] == 1


def test_while_keeps_what_its_condition_needs() -> None:
    def make(b: Any, x: Value) -> Any:
        kinds = (t(), t(), t())
        cond = region(lambda r, n, s, dead: [r.lt(n, r.const(3.0, n))], *kinds)
        body = region(lambda r, n, s, dead: [r.add(n, r.const(1.0, n)), r.sin(s), s], *kinds)
        return [b.op("while", [x, x, x], [cond, body], max_trips=0)[1]]

    assert len(only(trimmed([t()], make), "while").operands) == 2


def test_branch_result_that_nobody_reads_goes() -> None:
    def make(b: Any, p: Value, x: Value) -> Any:
        branches = [region(lambda r: [r.sin(x), r.cos(x)]), region(lambda r: [x, r.exp(x)])]
        return [b.op("if", [p], branches)[0]]

    ops = trimmed([TensorType(BOOL), t()], make)
    assert len(only(ops, "if").results) == 1
    assert {op.name for op in ops} == {"if", "sin"}


def test_value_used_only_in_a_region_stays() -> None:
    def make(b: Any, p: Value, x: Value) -> Any:
        y = b.exp(x)
        return b.op("if", [p], [region(lambda r: [r.sin(y)]), region(lambda r: [x])])

    assert "exp" in {op.name for op in trimmed([TensorType(BOOL), t()], make)}
