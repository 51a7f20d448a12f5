"""What the simplifier makes of small programs, and that their meaning stays."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from wengert.ir.builder import Builder
from wengert.ir.core import Block, Function, Module, Value, walk
from wengert.ir.interp import run
from wengert.ir.types import BOOL, F32, F64, I32, I64, DType, TensorType
from wengert.ir.verify import verify
from wengert.passes.simplify import simplify

Make = Callable[..., Any]
SPECIAL = [0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan, 1e308, 5e-324]


def t(dtype: DType, *shape: int) -> TensorType:
    return TensorType(dtype, shape)


def f(*shape: int) -> TensorType:
    return t(F64, *shape)


def module_of(types: Sequence[TensorType], make: Make) -> Module:
    params = [Value(type, f"x{i}") for i, type in enumerate(types)]
    block = Block(params)
    out = make(Builder(block), *params)
    block.results = [out] if isinstance(out, Value) else list(out)
    return Module({"f": Function("f", block)}, "f")


def region(make: Make, *types: TensorType) -> Block:
    params = [Value(type) for type in types]
    block = Block(params)
    block.results = list(make(Builder(block), *params))
    return block


def arguments(types: Sequence[TensorType]) -> list[Any]:
    rng = np.random.default_rng(1)
    out = []
    for type in types:
        if type.dtype.is_float:
            x = rng.normal(size=type.shape)
        else:
            x = rng.integers(0, 2 if type.dtype is BOOL else 5, type.shape)
        out.append(np.asarray(x).astype(type.dtype.numpy))
    return out


def names(module: Module) -> list[str]:
    return [op.name for op in walk(module.main.body)]


def simplified(types: Sequence[TensorType], make: Make, exact: bool = True) -> Module:
    """The simplified program, checked against the one it came from."""
    module = module_of(types, make)
    out = simplify(module)
    verify(out)
    args = arguments(types)
    for x, y in zip(run(module, args), run(out, args), strict=True):
        if exact:
            np.testing.assert_array_equal(x, y)
        else:
            np.testing.assert_allclose(y, x, rtol=1e-12)
    return out


def at_special_values(make: Make, dtype: DType = F64) -> None:
    """A rule on one float changes no bit at zeros, infinities, NaN and the largest numbers."""
    with np.errstate(over="ignore", under="ignore"):
        x = np.array(SPECIAL).astype(dtype.numpy)
    module = module_of([t(dtype, x.size)], make)
    (before,), (after,) = run(module, [x]), run(simplify(module), [x])
    np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(np.signbit(before[before == 0]), np.signbit(after[after == 0]))


def c(b: Any, number: float, like: Value) -> Value:
    return b.const(number, like)


# Programs of one operand: what they do, and the ops that are left.
ALGEBRA: dict[str, tuple[Make, list[str]]] = {
    "x * 1": (lambda b, x: b.mul(c(b, 1, x), x), []),
    "x - 0": (lambda b, x: b.sub(x, c(b, 0.0, x)), []),
    "x + -0.0": (lambda b, x: b.add(x, c(b, -0.0, x)), []),
    "x + 0.0 stays": (lambda b, x: b.add(x, c(b, 0.0, x)), ["const", "add"]),
    "x * 0 stays": (lambda b, x: b.mul(x, c(b, 0.0, x)), ["const", "mul"]),
    "x - x stays": (lambda b, x: b.sub(x, x), ["sub"]),
    "x * -1": (lambda b, x: b.mul(c(b, -1, x), x), ["neg"]),
    "--x": (lambda b, x: b.neg(b.neg(x)), []),
    "x - (-x)": (lambda b, x: b.sub(x, b.neg(x)), ["add"]),
    "-x + x": (lambda b, x: b.add(b.neg(x), x), ["sub"]),
    "-x * -x": (lambda b, x: b.mul(b.neg(x), b.neg(x)), ["mul"]),
    "-(x * 3)": (lambda b, x: b.neg(b.mul(x, c(b, 3, x))), ["const", "mul"]),
    "x / 4": (lambda b, x: b.div(x, c(b, 4, x)), ["const", "mul"]),
    "x / 3 stays": (lambda b, x: b.div(x, c(b, 3, x)), ["const", "div"]),
    "x ^ 2": (lambda b, x: b.pow(x, c(b, 2, x)), ["mul"]),
    "x ^ 1": (lambda b, x: b.pow(x, c(b, 1, x)), []),
    "x ^ 0": (lambda b, x: b.pow(x, c(b, 0, x)), ["const"]),
    "x ^ -1": (lambda b, x: b.pow(x, c(b, -1, x)), ["const", "div"]),
    "x ^ 0.5 stays": (lambda b, x: b.pow(x, c(b, 0.5, x)), ["const", "pow"]),
    "max(x, x)": (lambda b, x: b.max(x, x), []),
    "select of one": (lambda b, x: b.select(b.lt(x, c(b, 0, x)), x, x), []),
    "select not": (lambda b, x: b.select(b.not_(b.lt(x, c(b, 0, x))), x, b.neg(x)), ["const", "lt", "neg", "select"]),
    "x y = y x": (lambda b, x: b.sub(b.mul(x, b.sin(x)), b.mul(b.sin(x), x)), ["sin", "mul", "sub"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ALGEBRA)
def test_algebra(name: str) -> None:
    make, left = ALGEBRA[name]
    rounds = name == "x ^ 2"  # the C library's pow is not always the rounded product
    assert names(simplified([f(2, 3)], make, exact=not rounds)) == left
    at_special_values(make)


@pytest.mark.parametrize("number", [2.0**127, 2.0**-140, 2.0**-126, -0.5])
def test_division_by_powers_of_two_is_exact_in_f32(number: float) -> None:
    at_special_values(lambda b, x: b.div(x, c(b, number, x)), F32)


def test_integers_times_zero_are_zero() -> None:
    assert names(simplified([t(I32, 3)], lambda b, x: b.mul(x, c(b, 0, x)))) == ["const"]


def wide(b: Any, x: Value, shape: tuple[int, ...], *axes: int) -> Value:
    return b.broadcast(x, shape=shape, axes=axes)  # type: ignore[no-any-return]


def cut(b: Any, x: Value, *ranges: tuple[int, ...]) -> Value:
    starts, limits, strides = zip(*((*r, 1)[:3] for r in ranges))
    return b.slice(x, start=starts, limit=limits, stride=strides)  # type: ignore[no-any-return]


def index(b: Any, n: int, first: int, step: int) -> Value:
    line = b.iota(type=t(I32, n), axis=0)
    return b.add(b.mul(line, c(b, step, line)), c(b, first, line))  # type: ignore[no-any-return]


# Programs of one operand f64[4,6].
STRUCTURE: dict[str, tuple[Make, list[str]]] = {
    "transpose twice": (lambda b, x: b.transpose(b.transpose(x, perm=(1, 0)), perm=(1, 0)), []),
    "reshape twice": (lambda b, x: b.reshape(b.reshape(x, shape=(24,)), shape=(4, 6)), []),
    "broadcast twice": (lambda b, x: wide(b, wide(b, x, (2, 4, 6), 1, 2), (2, 4, 5, 6), 0, 1, 3), ["broadcast"]),
    "broadcast of an added axis": (lambda b, x: wide(b, b.reshape(x, shape=(4, 1, 6)), (4, 1, 6, 2), 0, 1, 2), ["broadcast"]),
    "transpose of axes of size 1": (lambda b, x: b.transpose(b.reshape(x, shape=(1, 24)), perm=(1, 0)), ["reshape"]),
    "slice of slice": (lambda b, x: cut(b, cut(b, x, (1, 4), (0, 6, 2)), (1, 2), (0, 3, 2)), ["slice"]),
    "slice of slice at the end": (lambda b, x: cut(b, cut(b, x, (0, 4), (0, 6, 5)), (0, 4), (2, 2)), ["const"]),
    "slice of broadcast": (lambda b, x: cut(b, wide(b, x, (9, 4, 6), 1, 2), (2, 7), (0, 4), (1, 3)), ["slice", "broadcast"]),
    "slice of concatenate": (lambda b, x: cut(b, b.concatenate(x, b.neg(x), axis=0), (4, 7), (0, 6)), ["neg", "slice"]),
    "slice of pad": (lambda b, x: cut(b, b.pad(x, b.const(0, F64), low=(1, 2), high=(0, 1), interior=(0, 0)), (1, 5), (2, 8)), []),
    "concatenated halves": (lambda b, x: b.concatenate(cut(b, x, (0, 2), (0, 6)), cut(b, x, (2, 4), (0, 6)), axis=0), []),
    "nested concatenate": (lambda b, x: b.concatenate(b.concatenate(x, b.sin(x), axis=0), x, axis=0), ["sin", "concatenate"]),
    "reverse twice": (lambda b, x: b.reverse(b.reverse(x, axes=(0, 1)), axes=(0,)), ["reverse"]),
    "pad by nothing": (lambda b, x: b.pad(x, b.const(0, F64), low=(0, 0), high=(0, 0), interior=(0, 0)), []),
    "gather of a range": (lambda b, x: b.gather(x, index(b, 3, 1, 1), axis=1, batch=0), ["slice"]),
    "gather backwards": (lambda b, x: b.gather(x, index(b, 3, 5, -2), axis=1, batch=0), ["slice", "reverse"]),
    "gather of one": (lambda b, x: b.gather(x, index(b, 3, 2, 0), axis=1, batch=0), ["slice", "reshape", "broadcast"]),
    "gather with clamped ends": (lambda b, x: b.gather(x, index(b, 3, 4, 1), axis=1, batch=0), ["const", "gather"]),
    "dynamic slice at a known place": (lambda b, x: b.dynamic_slice(x, b.const(1, I32), b.const(9, I32), sizes=(2, 3)), ["slice"]),
    "dynamic update of everything": (lambda b, x: b.dynamic_update(b.sin(x), x, b.const(1, I32), b.const(9, I32)), []),
    "sum of sum": (lambda b, x: b.reduce_sum(b.reduce_sum(x, axes=(1,)), axes=(0,)), ["reduce_sum"]),
    "max of max": (lambda b, x: b.reduce_max(b.reduce_max(x, axes=(0,)), axes=(0,)), ["reduce_max"]),
    "max of broadcast": (lambda b, x: b.reduce_max(wide(b, x, (4, 6, 5), 0, 1), axes=(2,)), []),
    "sum of broadcast": (lambda b, x: b.reduce_sum(wide(b, x, (4, 6, 8), 0, 1), axes=(2,)), ["const", "mul"]),
    "sum of axes of size 1": (lambda b, x: b.reduce_sum(b.reshape(x, shape=(4, 1, 6)), axes=(1,)), []),
    "max of transpose": (lambda b, x: b.reduce_max(b.transpose(x, perm=(1, 0)), axes=(0,)), ["reduce_max"]),
    "max of reshape": (lambda b, x: b.reduce_max(b.reshape(x, shape=(24,)), axes=(0,)), ["reduce_max"]),
    "op of broadcasts": (lambda b, x: b.add(b.sin(wide(b, x, (2, 4, 6), 1, 2)), b.const(1.0, f(2, 4, 6))), ["sin", "const", "add", "broadcast"]),
    "product with a transpose": (lambda b, x: b.dot_general(x, b.transpose(x, perm=(1, 0)), lhs_contract=(1,), rhs_contract=(0,), lhs_batch=(), rhs_batch=()), ["dot_general"]),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURE)
def test_structure(name: str) -> None:
    make, left = STRUCTURE[name]
    assert sorted(names(simplified([f(4, 6)], make, exact=False))) == sorted(left)


def test_sum_of_product_of_broadcasts_is_a_matrix_product() -> None:
    def make(b: Any, x: Value, y: Value) -> Any:
        shape = (8, 9, 2, 10)  # x over 0 1 2, y over 1 2 3: contracts 1, batches 2
        left, right = wide(b, x, shape, 0, 1, 2), wide(b, y, shape, 1, 2, 3)
        return b.reduce_sum(b.mul(left, right), axes=(1,))

    out = simplified([f(8, 9, 2), f(9, 2, 10)], make, exact=False)
    assert names(out) == ["dot_general", "transpose"]


def test_large_ranges_are_known_without_being_written_out() -> None:
    def make(b: Any, x: Value) -> Any:
        i = index(b, 100_000, 1, 1)
        held = b.max(b.min(i, c(b, 100_000, i)), c(b, 0, i))
        inside = b.lt(i, c(b, 100_001, i))
        taken = b.gather(x, held, axis=0, batch=0)
        return b.select(inside, taken, c(b, 0, taken))

    assert names(simplified([f(100_001)], make)) == ["slice"]


def test_comparisons_that_ranges_decide() -> None:
    def make(b: Any, x: Value) -> Any:
        i = b.iota(type=t(I32, 5000), axis=0)
        n = c(b, 4999, i)
        return [b.le(i, n), b.lt(i, n), b.gt(i, n), b.ge(i, n), b.ge(i, c(b, 0, i)), b.lt(n, i)]

    out = simplified([f()], make)
    assert Counter(names(out)) == Counter({"const": 3, "iota": 1, "lt": 1, "ge": 1})


def test_converts_through_a_wider_type_go() -> None:
    def make(b: Any, x: Value, i: Value) -> Any:
        return b.convert(b.convert(x, dtype=F64), dtype=F32), b.convert(
            b.convert(i, dtype=I64), dtype=F64
        )

    assert names(simplified([t(F32, 2), t(I32, 2)], make)) == ["convert"]


def test_convert_through_a_narrower_type_stays() -> None:
    make = lambda b, x: b.convert(b.convert(x, dtype=F32), dtype=F64)
    assert names(simplified([f(3)], make)) == ["convert", "convert"]


def test_constants_fold_with_their_zeros() -> None:
    def make(b: Any) -> Any:
        x = b.const(np.array([0.0, -0.0, 2.0]), f(3))
        return b.mul(x, b.const(-1.0, x)), b.reduce_sum(x, axes=(0,))

    (product, total) = run(simplify(module_of([], make)), [])
    assert np.signbit(product).tolist() == [True, False, True]
    assert total == 2.0


def test_large_constants_are_not_folded() -> None:
    def make(b: Any) -> Any:
        return b.convert(b.iota(type=t(I32, 5000), axis=0), dtype=F64)

    assert names(simplified([], make)) == ["iota", "convert"]


def test_equal_ops_are_written_once_across_regions() -> None:
    def make(b: Any, p: Value, x: Value) -> Any:
        y = b.exp(x)
        branches = [region(lambda r: [r.sin(r.exp(x))]), region(lambda r: [r.exp(x)])]
        return [y, *b.op("if", [p], branches)]

    assert Counter(names(simplified([t(BOOL), f(3)], make)))["exp"] == 1


def test_branch_with_known_selector_replaces_the_choice() -> None:
    def make(b: Any, x: Value) -> Any:
        branches = [region(lambda r, k=k: [r.mul(x, c(r, k, x))]) for k in (2, 3, 5)]
        return b.op("switch", [b.const(9, I32)], branches)

    out = simplified([f(3)], make)
    assert names(out) == ["const", "mul"]
    assert out.main.body.ops[0].attrs["value"] == 5


def test_result_that_all_branches_share_leaves_the_choice() -> None:
    def make(b: Any, p: Value, x: Value) -> Any:
        return b.op("if", [p], [region(lambda r: [x, r.sin(x)]), region(lambda r: [x, x])])

    out = simplified([t(BOOL), f(3)], make)
    assert out.main.results[0] is out.main.params[1]


def loop(
    b: Any, inits: Sequence[Value], xs: Sequence[Value], trips: int, make: Make, **attrs: Any
) -> Any:
    """A `for` whose body is `make(builder, i, *carries, *elements)`."""
    types = [t(I32), *(v.type for v in inits), *(v.type.with_shape(v.type.shape[1:]) for v in xs)]
    body = region(make, *types)
    return b.op("for", [*inits, *xs], [body], trips=trips, carries=len(inits), **attrs)


def test_loop_invariants_move_out() -> None:
    def make(b: Any, x: Value, y: Value) -> Any:
        return loop(b, [x], [], 99, lambda r, i, s: [r.add(s, r.sin(r.exp(y)))])

    out = simplified([f(3), f(3)], make)
    assert names(out) == ["exp", "sin", "for", "add"]


def test_invariants_of_nested_loops_move_all_the_way() -> None:
    def make(b: Any, x: Value, y: Value) -> Any:
        def outer(r: Any, i: Value, s: Value) -> Any:
            return loop(r, [s], [], 50, lambda q, j, v: [q.add(v, q.exp(y))])

        return loop(b, [x], [], 50, outer)

    assert names(simplified([f(), f()], make))[0] == "exp"


def test_unchanged_carries_and_streams_leave_the_loop() -> None:
    def make(b: Any, x: Value, y: Value) -> Any:
        same = wide(b, y, (99, 3), 1)
        ones = b.const(1.0, f(99, 3))

        def body(r: Any, i: Value, s: Value, k: Value, e: Value, one: Value) -> Any:
            return [r.add(r.mul(s, k), r.mul(e, one)), k, e, i, k, s]

        return loop(b, [x, y], [same, ones], 99, body)

    out = simplified([f(3), f(3)], make)
    (op,) = [op for op in out.main.body.ops if op.name == "for"]
    assert op.attrs["carries"] == 1
    assert len(op.operands) == 1
    assert len(op.results) == 2  # the carry, and its value before every trip


def test_unchanged_carry_of_a_while_leaves_the_loop() -> None:
    def make(b: Any, x: Value, k: Value) -> Any:
        cond = region(lambda r, v, s: [r.lt(v, r.mul(s, c(r, 100, s)))], f(), f())
        body = region(lambda r, v, s: [r.add(r.mul(v, v), c(r, 2, v)), s], f(), f())
        return b.op("while", [x, b.exp(k)], [cond, body], max_trips=0)

    out = simplified([f(), f()], make)
    (op,) = [op for op in out.main.body.ops if op.name == "while"]
    assert len(op.operands) == 1


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("trips", [0, 1, 3])
def test_short_loops_are_written_out(trips: int, reverse: bool) -> None:
    def make(b: Any, x: Value, xs: Value) -> Any:
        def body(r: Any, i: Value, s: Value, e: Value) -> Any:
            new = r.add(r.mul(s, e), r.convert(i, dtype=F64))
            return [new, r.sub(new, s)]

        return loop(b, [x], [xs], trips, body, reverse=reverse)

    assert "for" not in names(simplified([f(), f(trips)], make))


def test_loops_that_recompute_are_not_written_out() -> None:
    def make(b: Any, x: Value) -> Any:
        return loop(b, [x], [], 3, lambda r, i, s: [r.sin(s)], checkpoint="sqrt")

    assert "for" in names(simplified([f()], make))


def test_written_out_loops_see_their_own_trip() -> None:
    """A loop in a loop that is written out: the outputs belong to the right outer trip."""

    def make(b: Any, x: Value) -> Any:
        def outer(r: Any, i: Value, s: Value) -> Any:
            inner = loop(r, [s, s], [], 30, lambda q, j, v, k: [q.sin(v), k, v, k])
            return [inner[0], r.reduce_sum(inner[2], axes=(0,)), inner[3]]

        return loop(b, [x], [], 2, outer)

    assert Counter(names(simplified([f()], make, exact=False)))["for"] == 2


def test_ten_thousand_ops_take_about_a_second() -> None:
    def make(b: Any, x: Value) -> Any:
        v = x
        for i in range(5000):
            v = b.add(b.mul(v, c(b, 1 / (i + 2), v)), x)
        return v

    module = module_of([f(1000)], make)
    start = time.process_time()
    simplify(module)
    assert time.process_time() - start < 3
