"""Loops without carries become batched ops where that is wise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from wengert.ir.builder import Builder
from wengert.ir.core import Block, Function, Module, Value, walk
from wengert.ir.interp import run
from wengert.ir.types import F64, I32, KEY, TensorType
from wengert.ir.verify import verify
from wengert.passes.vectorize import MOST_BYTES, vectorize

Make = Callable[..., Any]


def t(*shape: int) -> TensorType:
    return TensorType(F64, shape)


def module_of(types: Sequence[TensorType], make: Make) -> Module:
    params = [Value(type, f"x{i}") for i, type in enumerate(types)]
    block = Block(params)
    block.results = list(make(Builder(block), *params))
    return Module({"f": Function("f", block)}, "f")


def loop(b: Any, inits: Sequence[Value], xs: Sequence[Value], trips: int, make: Make) -> Any:
    types = [TensorType(I32), *(v.type for v in inits)]
    types += [v.type.with_shape(v.type.shape[1:]) for v in xs]
    body = Block([Value(type) for type in types])
    body.results = list(make(Builder(body), *body.params))
    return b.op("for", [*inits, *xs], [body], trips=trips, carries=len(inits))


def vectorized(types: Sequence[TensorType], make: Make) -> list[str]:
    """Names of the ops after the pass, whose meaning is checked."""
    module = module_of(types, make)
    out = vectorize(module)
    verify(out)
    rng = np.random.default_rng(3)
    args = []
    for type in types:
        x = (
            rng.integers(0, 9, type.shape)
            if not type.dtype.is_float
            else rng.normal(size=type.shape)
        )
        args.append(np.asarray(x).astype(type.dtype.numpy))
    for x, y in zip(run(module, args), run(out, args), strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-12)
    return [op.name for op in walk(out.main.body)]


def test_map_over_rows_becomes_array_ops() -> None:
    def make(b: Any, xs: Value, w: Value) -> Any:
        def body(r: Any, i: Value, x: Value) -> Any:
            y = r.dot_general(
                x, w, lhs_contract=(0,), rhs_contract=(0,), lhs_batch=(), rhs_batch=()
            )
            return [r.mul(y, r.broadcast(r.convert(i, dtype=F64), shape=(2,), axes=()))]

        return loop(b, [], [xs], 5, body)

    ops = vectorized([t(5, 3), t(3, 2)], make)
    assert "for" not in ops
    assert ops.count("dot_general") == 1


def test_nested_maps_become_array_ops() -> None:
    def make(b: Any, xs: Value) -> Any:
        def inner(r: Any, x: Value, i: Value) -> Any:
            return loop(
                r, [], [x], 3, lambda q, j, e: [q.mul(e, q.convert(q.add(i, j), dtype=F64))]
            )

        return loop(b, [], [xs], 4, lambda r, i, x: inner(r, x, i))

    assert "for" not in vectorized([t(4, 3)], make)


def test_scan_inside_a_map_becomes_one_scan() -> None:
    def make(b: Any, xs: Value) -> Any:
        def body(r: Any, i: Value, x: Value) -> Any:
            return loop(r, [r.const(0.0, F64)], [x], 6, lambda q, j, s, e: [q.add(q.sin(s), e), s])

        return loop(b, [], [xs], 4, body)

    ops = vectorized([t(4, 6)], make)
    assert ops.count("for") == 1


def test_value_shared_by_all_trips_is_repeated() -> None:
    make = lambda b, x: loop(b, [], [], 4, lambda r, i: [x, r.const(2.0, F64)])
    assert "for" not in vectorized([t(2)], make)


def test_random_draws_of_a_map_are_those_of_the_loop() -> None:
    from wengert.ir import random

    def make(b: Any, keys: Value) -> Any:
        return loop(b, [], [keys], 3, lambda r, i, k: [random.normal(r, k, (2,), F64)])

    assert "for" not in vectorized([TensorType(KEY, (3,))], make)


def test_loop_with_carries_stays() -> None:
    make = lambda b, x: loop(b, [x], [], 4, lambda r, i, s: [r.sin(s)])
    assert "for" in vectorized([t(2)], make)


def test_loop_around_a_while_stays() -> None:
    """Batched, every example would wait for the slowest; threads do better."""

    def make(b: Any, xs: Value) -> Any:
        def body(r: Any, i: Value, x: Value) -> Any:
            cond, step = Block([Value(t())]), Block([Value(t())])
            cond.results = [Builder(cond).lt(cond.params[0], x)]
            inner = Builder(step)
            step.results = [inner.add(step.params[0], inner.const(1.0, F64))]
            return r.op("while", [r.const(0.0, F64)], [cond, step], max_trips=0)

        return loop(b, [], [xs], 4, body)

    assert vectorized([t(4)], make).count("while") == 1


@pytest.mark.parametrize("fits", [True, False])
def test_loop_whose_values_need_too_much_memory_stays(fits: bool) -> None:
    trips = 8
    elements = MOST_BYTES // 8 // trips // 4  # two results a trip fit, five do not

    def make(b: Any, x: Value) -> Any:
        def body(r: Any, i: Value) -> Any:
            big = r.broadcast(x, shape=(elements,), axes=())
            for _ in range(0 if fits else 4):
                big = r.sin(big)
            return [r.reduce_sum(big, axes=(0,))]

        return loop(b, [], [], trips, body)

    ops = [op.name for op in walk(vectorize(module_of([t()], make)).main.body)]
    assert ("for" in ops) is not fits
