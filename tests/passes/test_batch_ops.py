"""Every op batched over one example axis equals the interpreter run example by example."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from wengert.ir.builder import Builder
from wengert.ir.core import Block, Function, Module, Value
from wengert.ir.interp import run
from wengert.ir.opdef import OPS
from wengert.ir.types import BOOL, F64, I32, KEY, U32, DType, TensorType
from wengert.passes.batch import BATCH, batch_function

SIZE = 3
Make = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """A function of one example: parameter types and what it computes."""

    name: str
    types: Sequence[TensorType]
    make: Make
    low: int = -3
    high: int = 9
    covers: tuple[str, ...] = field(default=())


def t(dtype: DType, *shape: int) -> TensorType:
    return TensorType(dtype, shape)


def module_of(types: Sequence[TensorType], make: Make) -> Module:
    params = [Value(type, f"x{i}") for i, type in enumerate(types)]
    block = Block(params)
    out = make(Builder(block), *params)
    block.results = [out] if isinstance(out, Value) else list(out)
    return Module({"f": Function("f", block)}, "f")


def sample(rng: np.random.Generator, type: TensorType, shape: tuple[int, ...], case: Case) -> Any:
    if type.dtype.is_float:
        return rng.normal(size=shape).astype(type.dtype.numpy)
    if type.dtype is BOOL:
        return rng.integers(0, 2, shape).astype(bool)
    low = 0 if type.dtype in (U32, KEY) else case.low
    return rng.integers(low, case.high, shape).astype(type.dtype.numpy)


def check(case: Case, axes: Sequence[int | None]) -> None:
    module = module_of(case.types, case.make)
    rng = np.random.default_rng(len(case.name))
    args = [
        np.asarray(sample(rng, type, type.shape if a is None else (SIZE, *type.shape), case))
        for type, a in zip(case.types, axes)
    ]
    name = batch_function(module, "f", axes, SIZE)
    got = run(module, args, name)
    rows = [
        run(module, [x if a is None else np.asarray(x[k]) for x, a in zip(args, axes)], "f")
        for k in range(SIZE)
    ]
    results = module.functions[name].results
    for out, value, row in zip(got, results, zip(*rows, strict=True), strict=True):
        expected = np.stack(row)
        assert value.type.shape == expected.shape
        assert out.dtype == expected.dtype
        np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)


def elementwise_case(name: str) -> Case:
    attrs: dict[str, Any] = {}
    dtype, extra = F64, {}
    if name in ("not", "and", "or", "xor", "shl", "shr"):
        dtype = I32
    elif name in ("threefry", "key_lo", "key_hi"):
        dtype = KEY
    elif name == "key_make":
        dtype = U32
    elif name == "convert":
        attrs = {"dtype": I32}
    elif name == "bitcast":
        dtype, attrs = U32, {"dtype": I32}
    elif name == "select":
        extra = {0: BOOL}
    arity = OPS[name].arity or 1
    types = [t(extra.get(i, dtype), 2, 2) for i in range(arity)]
    return Case(name, types, lambda b, *xs: b.op(name, xs, **attrs))


def loop(
    b: Builder,
    inits: Sequence[Value],
    streams: Sequence[Value],
    trips: int,
    make: Make,
    **attrs: Any,
) -> Any:
    """A `for` whose body is `make(builder, index, carries, elements) -> (carries, outputs)`."""
    params = [Value(t(I32)), *(Value(v.type) for v in inits)]
    params += [Value(v.type.with_shape(v.type.shape[1:])) for v in streams]
    body = Block(params)
    n = len(inits) + 1
    carries, outputs = make(Builder(body), params[0], params[1:n], params[n:])
    body.results = [*carries, *outputs]
    return b.op("for", [*inits, *streams], [body], trips=trips, carries=len(inits), **attrs)


def region(make: Make, *types: TensorType) -> Block:
    params = [Value(type) for type in types]
    block = Block(params)
    block.results = list(make(Builder(block), *params))
    return block


def if_case(b: Builder, c: Value, x: Value, y: Value) -> Any:
    return b.op("if", [c], [region(lambda r: [r.add(x, y)]), region(lambda r: [y])])


def switch_case(b: Builder, k: Value, x: Value, y: Value) -> Any:
    branches = [lambda r: [r.add(x, y)], lambda r: [y], lambda r: [r.mul(x, x)]]
    return b.op("switch", [k], [region(make) for make in branches])


def scan_case(b: Builder, x: Value, xs: Value, k: Value) -> Any:
    def body(r: Any, i: Value, carries: Any, elements: Any) -> Any:
        y = r.add(r.mul(carries[0], k), elements[0])
        count = r.add(carries[1], i)
        return [y, count], [r.sub(y, elements[0]), count]

    return loop(b, [x, b.const(0, I32)], [xs], 4, body, reverse=True)


def map_case(b: Builder, xs: Value, k: Value) -> Any:
    def body(r: Any, i: Value, carries: Any, elements: Any) -> Any:
        return [], [r.mul(elements[0], k), i]

    return loop(b, [], [xs], 4, body)


def promoted_carry_case(b: Builder, x: Value) -> Any:
    """Three carries that become batched one after the other, a trip apart."""

    def body(r: Any, i: Value, c: Any, elements: Any) -> Any:
        return [c[1], c[2], x], [c[0]]

    zero = b.const(0.0, F64)
    return loop(b, [zero, zero, zero], [], 5, body)


def while_case(b: Builder, x: Value, limit: Value) -> Any:
    cond = region(lambda r, v, n: [r.lt(v, limit)], t(F64), t(I32))
    body = region(
        lambda r, v, n: [r.add(r.mul(v, v), r.const(1.0, v)), r.add(n, r.const(1, n))],
        t(F64),
        t(I32),
    )
    return b.op("while", [x, b.const(0, I32)], [cond, body], max_trips=4)


def shared_while_case(b: Builder, x: Value, n: Value) -> Any:
    """Only the second carry can be batched; the count decides."""
    cond = region(lambda r, k, v: [r.gt(k, r.const(0, k))], t(I32), t(F64))
    body = region(lambda r, k, v: [r.sub(k, r.const(1, k)), r.add(v, v)], t(I32), t(F64))
    return b.op("while", [n, x], [cond, body], max_trips=0)


def swapped_matmul(b: Builder, x: Value, y: Value) -> Any:
    return b.dot_general(x, y, lhs_batch=(1,), rhs_batch=(0,), lhs_contract=(0,), rhs_contract=(1,))


def posdef(b: Builder, x: Value) -> Value:
    square = b.dot_general(x, x, lhs_contract=(1,), rhs_contract=(1,), lhs_batch=(), rhs_batch=())
    rows, cols = (b.iota(type=t(I32, 3, 3), axis=i) for i in range(2))
    eye = b.convert(b.eq(rows, cols), dtype=F64)
    return b.add(square, eye)


CASES = [elementwise_case(n) for n in OPS if OPS[n].elementwise] + [
    Case("broadcast", [t(F64, 2)], lambda b, x: b.broadcast(x, shape=(3, 2, 4), axes=(1,))),
    Case("reshape", [t(F64, 2, 6)], lambda b, x: b.reshape(x, shape=(3, 4))),
    Case("transpose", [t(F64, 2, 3, 4)], lambda b, x: b.transpose(x, perm=(2, 0, 1))),
    Case(
        "slice", [t(F64, 5, 4)], lambda b, x: b.slice(x, start=(1, 0), limit=(5, 3), stride=(2, 1))
    ),
    Case("reverse", [t(F64, 3, 2)], lambda b, x: b.reverse(x, axes=(0,))),
    Case("concatenate", [t(F64, 2, 2), t(F64, 2, 1)], lambda b, x, y: b.concatenate(x, y, axis=1)),
    Case(
        "pad",
        [t(F64, 2, 2), t(F64)],
        lambda b, x, f: b.pad(x, f, low=(1, 0), high=(0, 2), interior=(1, 1)),
    ),
    Case("reduce_sum", [t(F64, 2, 3)], lambda b, x: b.reduce_sum(x, axes=(1,))),
    Case("reduce_prod", [t(F64, 2, 3)], lambda b, x: b.reduce_prod(x, axes=(0, 1))),
    Case("reduce_max", [t(F64, 2, 3)], lambda b, x: b.reduce_max(x, axes=(0,))),
    Case("reduce_min", [t(BOOL, 2, 3)], lambda b, x: b.reduce_min(x, axes=(1,))),
    Case("argmax", [t(F64, 2, 3)], lambda b, x: b.argmax(x, axis=1)),
    Case("argmin", [t(F64, 2, 3)], lambda b, x: b.argmin(x, axis=0)),
    Case("cumsum", [t(F64, 2, 3)], lambda b, x: b.cumsum(x, axis=1, reverse=True)),
    Case("sort", [t(F64, 2, 4), t(I32, 2, 4)], lambda b, x, y: b.op("sort", [x, y], axis=1)),
    Case(
        "dot_general",
        [t(F64, 2, 3), t(F64, 3, 4)],
        lambda b, x, y: b.dot_general(
            x, y, lhs_batch=(), rhs_batch=(), lhs_contract=(1,), rhs_contract=(0,)
        ),
    ),
    Case(
        "dot_general batched",
        [t(F64, 2, 5, 3), t(F64, 5, 2, 4)],
        swapped_matmul,
        covers=("dot_general",),
    ),
    Case("cholesky", [t(F64, 3, 3)], lambda b, x: b.cholesky(posdef(b, x))),
    Case(
        "triangular_solve",
        [t(F64, 3, 3), t(F64, 3, 2)],
        lambda b, x, y: b.triangular_solve(posdef(b, x), y, lower=True, trans=True),
    ),
    Case("gather", [t(F64, 3, 4), t(I32, 2, 2)], lambda b, x, i: b.gather(x, i, axis=1, batch=0)),
    Case(
        "gather batched",
        [t(F64, 3, 4), t(I32, 3, 2)],
        lambda b, x, i: b.gather(x, i, axis=1, batch=1),
        covers=("gather",),
    ),
    Case(
        "scatter_add",
        [t(F64, 3, 4), t(I32, 2), t(F64, 3, 2)],
        lambda b, x, i, u: b.scatter_add(x, i, u, axis=1, batch=0),
    ),
    Case(
        "scatter_add batched",
        [t(F64, 3, 4), t(I32, 3, 2), t(F64, 3, 2)],
        lambda b, x, i, u: b.scatter_add(x, i, u, axis=1, batch=1),
        covers=("scatter_add",),
    ),
    Case(
        "dynamic_slice",
        [t(F64, 4, 3), t(I32), t(I32)],
        lambda b, x, i, j: b.dynamic_slice(x, i, j, sizes=(2, 1)),
    ),
    Case(
        "dynamic_slice whole axis",
        [t(F64, 4, 3), t(I32)],
        lambda b, x, i: b.dynamic_slice(x, i, i, sizes=(4, 3)),
        covers=("dynamic_slice",),
    ),
    Case(
        "dynamic_update",
        [t(F64, 4, 3), t(F64, 2, 1), t(I32), t(I32)],
        lambda b, x, u, i, j: b.dynamic_update(x, u, i, j),
    ),
    Case(
        "dynamic_update whole",
        [t(F64, 4, 3), t(F64, 4, 3), t(I32)],
        lambda b, x, u, i: b.dynamic_update(x, u, i, i),
        covers=("dynamic_update",),
    ),
    Case("if", [t(BOOL), t(F64, 2), t(F64, 2)], if_case),
    Case("switch", [t(I32), t(F64, 2), t(F64, 2)], switch_case),
    Case("for", [t(F64, 2), t(F64, 4, 2), t(F64, 2)], scan_case),
    Case("for without carries", [t(F64, 4, 2), t(F64, 2)], map_case, covers=("for",)),
    Case("for with carries batched late", [t(F64)], promoted_carry_case, covers=("for",)),
    Case("while", [t(F64), t(F64)], while_case),
    Case("while with a shared count", [t(F64), t(I32)], shared_while_case, covers=("while",)),
]


def patterns(case: Case) -> list[tuple[int | None, ...]]:
    """Which parameters are mapped: every mix for a few, else all, each alone, each shared."""
    n = len(case.types)
    return [p for p in itertools.product((0, None), repeat=n) if any(a == 0 for a in p)]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_batched_op_equals_loop_over_examples(case: Case) -> None:
    for axes in patterns(case):
        check(case, axes)


def test_every_op_has_a_rule_or_a_reason() -> None:
    core = [n for n in OPS if not n.startswith("loop.")]
    assert BATCH.missing(core) == []


def test_every_rule_has_a_case() -> None:
    covered = {n for c in CASES for n in (c.name, *c.covers)}
    assert sorted(set(BATCH.rules) - covered) == []


def test_shared_parameters_only_are_repeated() -> None:
    module = module_of([t(F64, 2)], lambda b, x: b.neg(x))
    name = batch_function(module, "f", [None], 4)
    (out,) = run(module, [np.array([1.0, 2.0])], name)
    np.testing.assert_array_equal(out, [[-1.0, -2.0]] * 4)


def test_calls_are_inlined() -> None:
    module = module_of([t(F64, 2)], lambda b, x: b.sin(x))
    x = Value(t(F64, 2))
    block = Block([x])
    b = Builder(block)
    block.results = [b.call(x, fn="f", types=(t(F64, 2),))]
    module.add(Function("outer", block))
    name = batch_function(module, "outer", [0], 2)
    x_in = np.arange(4.0).reshape(2, 2)
    np.testing.assert_array_equal(run(module, [x_in], name)[0], np.sin(x_in))
    assert "outer" in module.functions and name != "outer"
