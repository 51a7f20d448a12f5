"""Reads and writes at a loop's index become streams and stacked outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from wengert.ir.builder import Builder
from wengert.ir.core import Block, Function, Module, Op, Value, walk
from wengert.ir.interp import run
from wengert.ir.types import F64, I32, TensorType
from wengert.passes.simplify import simplify
from wengert.passes.streams import streams
from wengert.passes.vectorize import vectorize

Make = Callable[..., Any]


def t(*shape: int) -> TensorType:
    return TensorType(F64, shape)


def module_of(types: Sequence[TensorType], make: Make) -> Module:
    params = [Value(type, f"x{i}") for i, type in enumerate(types)]
    block = Block(params)
    out = make(Builder(block), *params)
    block.results = [out] if isinstance(out, Value) else list(out)
    return Module({"f": Function("f", block)}, "f")


def loop(b: Any, inits: Sequence[Value], trips: int, make: Make, reverse: bool = False) -> Any:
    params = [Value(TensorType(I32), "i"), *(Value(v.type) for v in inits)]
    body = Block(params)
    body.results = list(make(Builder(body), *params))
    return b.op("for", inits, [body], trips=trips, carries=len(inits), reverse=reverse)


def row_sum(trips: int, start: Make, axis: int = 0, reverse: bool = False) -> Make:
    """A weighted running sum of rows of x, the row of trip i being `start(b, i)`."""

    def make(b: Any, x: Value) -> Any:
        shape = x.type.shape
        sizes = tuple(1 if a == axis else n for a, n in enumerate(shape))
        small = tuple(n for a, n in enumerate(shape) if a != axis)

        def body(r: Any, i: Value, total: Value) -> Any:
            starts = [start(r, i) if a == axis else r.const(0, I32) for a in range(len(shape))]
            row = r.reshape(r.dynamic_slice(x, *starts, sizes=sizes), shape=small)
            return [r.add(r.mul(total, r.const(0.5, total)), row)]

        return loop(b, [b.const(0.0, t(*small))], trips, body, reverse)

    return make


def row_fill(trips: int, start: Make, axis: int = 0, reads: bool = False) -> Make:
    """x with rows written by a loop; with `reads` the loop looks at what it wrote."""

    def make(b: Any, x: Value) -> Any:
        shape = x.type.shape
        one = tuple(1 if a == axis else n for a, n in enumerate(shape))

        def body(r: Any, i: Value, y: Value) -> Any:
            starts = [start(r, i) if a == axis else r.const(0, I32) for a in range(len(shape))]
            number = r.convert(i, dtype=F64)
            if reads:
                number = r.add(number, r.reduce_sum(y, axes=tuple(range(len(shape)))))
            return [r.dynamic_update(y, r.broadcast(number, shape=one, axes=()), *starts)]

        return loop(b, [x], trips, body)

    return make


def plus(c: int) -> Make:
    return lambda b, i: b.add(i, b.const(c, I32))


def ops(module: Module) -> list[str]:
    return [op.name for op in walk(module.main.body)]


def the_loop(module: Module) -> Op:
    return next(op for op in walk(module.main.body) if op.name == "for")


def check_same(before: Module, after: Module) -> None:
    rng = np.random.default_rng(0)
    args = [rng.normal(size=p.type.shape) for p in before.main.params]
    for x, y in zip(run(before, args), run(after, args), strict=True):
        np.testing.assert_array_equal(x, y)


READS = {
    "at the index": ((5, 2), row_sum(5, lambda b, i: i)),
    "of the second axis": ((2, 5), row_sum(5, lambda b, i: i, axis=1)),
    "of some rows": ((7, 2), row_sum(5, lambda b, i: i)),
    "after the index": ((7, 2), row_sum(5, plus(2))),
    "backwards": ((7, 2), row_sum(5, lambda b, i: b.sub(b.const(5, I32), i))),
    "in a reversed loop": ((6, 2), row_sum(5, plus(1), reverse=True)),
}


@pytest.mark.parametrize("name", READS)
def test_read_becomes_stream(name: str) -> None:
    shape, make = READS[name]
    before = module_of([t(*shape)], make)
    after = streams(before)
    check_same(before, after)
    assert "dynamic_slice" not in ops(after)
    assert len(the_loop(after).operands) == 2


CLAMPED = {
    "past the end": ((5, 2), row_sum(5, plus(1))),
    "before the start": ((5, 2), row_sum(5, plus(-1))),
    "at twice the index": ((10, 2), row_sum(5, lambda b, i: b.add(i, i))),
}


@pytest.mark.parametrize("name", CLAMPED)
def test_read_that_may_be_clamped_or_skips_stays(name: str) -> None:
    shape, make = CLAMPED[name]
    before = module_of([t(*shape)], make)
    after = streams(before)
    check_same(before, after)
    assert "dynamic_slice" in ops(after)


def test_read_in_a_branch_inside_the_loop_is_streamed() -> None:
    def make(b: Any, x: Value) -> Any:
        def body(r: Any, i: Value, total: Value) -> Any:
            then, other = Block(), Block()
            inner = Builder(then)
            then.results = [inner.reshape(inner.dynamic_slice(x, i, sizes=(1,)), shape=())]
            other.results = [total]
            (v,) = r.op("if", [r.lt(total, r.const(1.0, F64))], [then, other])
            return [r.add(total, v)]

        return loop(b, [b.const(0.0, F64)], 4, body)

    before = module_of([t(4)], make)
    after = streams(before)
    check_same(before, after)
    assert "dynamic_slice" not in ops(after)


WRITES = {
    "every row": ((5, 2), row_fill(5, lambda b, i: i)),
    "every column": ((2, 5), row_fill(5, lambda b, i: i, axis=1)),
    "the last axis of three": ((2, 3, 5), row_fill(5, lambda b, i: i, axis=2)),
    "some rows": ((8, 2), row_fill(5, plus(2))),
    "rows backwards": ((6, 2), row_fill(5, lambda b, i: b.sub(b.const(4, I32), i))),
}


@pytest.mark.parametrize("name", WRITES)
def test_write_becomes_stacked_output(name: str) -> None:
    shape, make = WRITES[name]
    before = module_of([t(*shape)], make)
    after = streams(before)
    check_same(before, after)
    assert the_loop(after).attrs["carries"] == 0
    arrays = vectorize(after)
    check_same(before, arrays)
    assert "for" not in ops(arrays)


def test_carry_that_is_read_stays_a_carry() -> None:
    before = module_of([t(5, 2)], row_fill(5, lambda b, i: i, reads=True))
    after = streams(before)
    check_same(before, after)
    assert the_loop(after).attrs["carries"] == 1


def test_written_rows_simplify_to_the_rows() -> None:
    before = module_of([t(5, 2)], row_fill(5, lambda b, i: i))
    after = simplify(vectorize(streams(before)))
    check_same(before, after)
    assert set(ops(after)) <= {"const", "iota", "convert", "broadcast"}
