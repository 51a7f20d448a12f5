"""Where transposes and broadcasts end up: below what can do without them, at no cost in numbers.

Arrays hold small whole numbers, so that sums are exact in any order and results must be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wengert.ir.builder import Builder
from wengert.ir.core import Block, Function, Module, Op, Value, walk
from wengert.ir.interp import run
from wengert.ir.opdef import OPS
from wengert.ir.types import F32, F64, TensorType
from wengert.ir.verify import verify
from wengert.passes.rewrite_layouts import DEEPEST
from wengert.passes.simplify import simplify

Make = Callable[..., Any]
Shape = tuple[int, ...]
TURN = (2, 0, 1)


def whole_numbers(shapes: Sequence[Shape]) -> list[Any]:
    rng = np.random.default_rng(4)
    return [rng.integers(-4, 5, s).astype(np.float64) for s in shapes]


def simplified(ad: Any, shapes: Sequence[Shape], make: Make) -> Module:
    """The simplified program; its results are those of the program as written."""
    module = ad.module(shapes, make)
    out = simplify(module)
    verify(out)
    args = whole_numbers(shapes)
    for before, after in zip(run(module, args), run(out, args), strict=True):
        np.testing.assert_array_equal(after, before)
    return out


def ops(module: Module, name: str) -> list[Op]:
    return [op for op in walk(module.main.body) if op.name == name]


def order(module: Module) -> list[str]:
    return [op.name for op in module.main.body.ops]


def turned(b: Any, x: Value) -> Value:
    return b.transpose(x, perm=TURN)  # type: ignore[no-any-return]


# Transposes sink below elementwise ops. Operands: x f64[2,3,4], y f64[2,3,4], v f64[3].
SINKING: dict[str, tuple[Make, list[str]]] = {
    "unary": (lambda b, x, y, v: b.neg(turned(b, x)), ["neg"]),
    "unary twice": (lambda b, x, y, v: b.abs(b.neg(turned(b, x))), ["neg", "abs"]),
    "stop_gradient": (lambda b, x, y, v: b.stop_gradient(turned(b, x)), ["stop_gradient"]),
    "convert": (lambda b, x, y, v: b.convert(turned(b, x), dtype=F32), ["convert"]),
    "two of one order": (lambda b, x, y, v: b.sub(turned(b, x), turned(b, y)), ["sub"]),
    "comparison": (lambda b, x, y, v: b.lt(turned(b, x), turned(b, y)), ["lt"]),
    "one number": (lambda b, x, y, v: b.mul(turned(b, x), b.const(3.0, turned(b, x))), ["const", "mul"]),
    "broadcast": (lambda b, x, y, v: b.mul(turned(b, x), b.broadcast(v, shape=(4, 2, 3), axes=(2,))), ["broadcast", "mul"]),
    "choice": (
        lambda b, x, y, v: b.select(b.lt(turned(b, x), turned(b, y)), turned(b, y), b.const(0.0, turned(b, y))),
        ["lt", "const", "select"],
    ),
    "there and back": (lambda b, x, y, v: b.transpose(b.neg(turned(b, x)), perm=(1, 2, 0)), ["neg"]),
}  # fmt: skip


@pytest.mark.parametrize("name", SINKING)
def test_transpose_sinks_below_elementwise_ops(ad: Any, name: str) -> None:
    make, above = SINKING[name]
    out = simplified(ad, [(2, 3, 4), (2, 3, 4), (3,)], make)
    left = ["transpose"] if name != "there and back" else []
    assert order(out) == [*above, *left]


def test_transpose_stays_above_an_op_with_an_array_in_another_order(ad: Any) -> None:
    """Sinking it would transpose the other operand, which is as large."""
    out = simplified(ad, [(2, 3, 4), (4, 2, 3)], lambda b, x, y: b.add(turned(b, x), y))
    assert order(out) == ["transpose", "add"]


def test_arrays_in_two_other_orders_are_not_taken_for_one(ad: Any) -> None:
    def make(b: Any, x: Value, y: Value) -> Any:
        return b.sub(turned(b, x), b.transpose(y, perm=(1, 2, 0)))

    assert order(simplified(ad, [(3, 3, 3)] * 2, make)) == ["transpose", "transpose", "sub"]


REDUCTIONS = ["reduce_sum", "reduce_max", "reduce_min", "reduce_prod"]


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 2), (0, 1, 2)])
def test_reductions_come_before_transposes(ad: Any, name: str, axes: Shape) -> None:
    """Only the reduced array is transposed, and only where its axes are out of order."""

    def make(b: Any, x: Value) -> Any:
        return b.op(name, [b.transpose(x, perm=(2, 1, 0))], axes=axes)[0]

    out = simplified(ad, [(2, 3, 4)], make)
    left = ["transpose"] if len(axes) == 1 else []
    assert order(out) == [name, *left]
    assert ops(out, name)[0].operands[0] is out.main.params[0]


def test_axes_that_a_reduction_keeps_stay_in_their_order(ad: Any) -> None:
    def make(b: Any, x: Value) -> Any:
        return b.reduce_sum(b.transpose(x, perm=(3, 1, 0, 2)), axes=(1,))

    out = simplified(ad, [(2, 3, 4, 5)], make)
    assert order(out) == ["reduce_sum", "transpose"]
    assert out.main.results[0].type.shape == (5, 2, 4)


def test_transpose_meets_a_reduction_through_elementwise_ops(ad: Any) -> None:
    def make(b: Any, x: Value, y: Value) -> Any:
        product = b.mul(b.neg(turned(b, x)), turned(b, y))
        return b.reduce_max(product, axes=(0, 1))

    assert order(simplified(ad, [(2, 3, 4)] * 2, make)) == ["neg", "mul", "reduce_max"]


@pytest.mark.parametrize(
    ("axes", "perm", "left"),
    [
        ((0, 1), (1, 0, 2), ["transpose", "broadcast"]),  # x's own axes change their order
        ((0, 1), (2, 0, 1), ["broadcast"]),  # they only move
        ((0, 2), (0, 1, 2), ["broadcast"]),
        ((1, 2), (2, 1, 0), ["transpose", "broadcast"]),
    ],
)
def test_transposed_broadcast_is_a_broadcast(
    ad: Any, axes: Shape, perm: Shape, left: list[str]
) -> None:
    shape = [5, 5, 5]
    shape[axes[0]], shape[axes[1]] = 2, 3

    def make(b: Any, x: Value) -> Any:
        return b.transpose(b.broadcast(x, shape=tuple(shape), axes=axes), perm=perm)

    out = simplified(ad, [(2, 3)], make)
    assert order(out) == left
    assert all(op.result.type.size == 6 for op in ops(out, "transpose"))


def test_axes_of_a_broadcast_keep_their_order(ad: Any) -> None:
    def make(b: Any, x: Value) -> Any:
        wide = b.broadcast(x, shape=(2, 9, 3, 4), axes=(0, 2, 3))
        return b.transpose(wide, perm=(3, 0, 1, 2))

    out = simplified(ad, [(2, 3, 4)], make)
    assert order(out) == ["transpose", "broadcast"]
    assert ops(out, "transpose")[0].result.type.shape == (4, 2, 3)


def test_ops_on_broadcasts_compute_on_what_was_broadcast(ad: Any) -> None:
    def make(b: Any, x: Value, y: Value) -> Any:
        wide = [b.broadcast(v, shape=(9, 2, 3), axes=(1, 2)) for v in (x, y)]
        return b.add(b.mul(*wide), b.const(2.0, wide[0]))

    out = simplified(ad, [(2, 3)] * 2, make)
    assert sorted(order(out)) == ["add", "broadcast", "const", "mul"]
    assert ops(out, "mul")[0].result.type.size == 6


MATRIX = {"lhs_batch": (), "rhs_batch": (), "lhs_contract": (1,), "rhs_contract": (0,)}


@pytest.mark.parametrize("side", [0, 1])
def test_products_name_the_axes_of_what_was_transposed(ad: Any, side: int) -> None:
    def make(b: Any, *xs: Value) -> Any:
        operands = [b.transpose(x, perm=(1, 0)) if i == side else x for i, x in enumerate(xs)]
        return b.dot_general(*operands, **MATRIX)

    shapes = [(5, 3), (5, 4)] if side == 0 else [(3, 5), (4, 5)]
    assert order(simplified(ad, shapes, make)) == ["dot_general"]


def test_products_keep_the_order_of_free_axes(ad: Any) -> None:
    """Free axes are the result's, in the operand's order: the transpose of two of them stays."""

    def make(b: Any, x: Value, y: Value) -> Any:
        return b.dot_general(
            b.transpose(x, perm=(1, 0, 2)), y,
            lhs_batch=(), rhs_batch=(), lhs_contract=(2,), rhs_contract=(0,),
        )  # fmt: skip

    assert order(simplified(ad, [(2, 3, 4), (4, 5)], make)) == ["transpose", "dot_general"]


def batched_product(b: Any, x: Value, y: Value) -> Any:
    """x [n, k, d] times y [k, d, m], batched over k: x's batch axis is not its first."""
    return b.dot_general(x, y, lhs_batch=(1,), rhs_batch=(0,), lhs_contract=(2,), rhs_contract=(1,))


def differences(b: Any, points: Value, means: Value) -> Value:
    """points [n, d] minus means [k, d], as [n, k, d]: what a mixture's gradient multiplies."""
    shape = (4, 3, 2)
    return b.sub(  # type: ignore[no-any-return]
        b.broadcast(points, shape=shape, axes=(0, 2)), b.broadcast(means, shape=shape, axes=(1, 2))
    )


def test_batch_axes_lead_in_trees_of_broadcasts(ad: Any) -> None:
    """The differences are written again as [k, n, d], so no stack of matrices is copied."""

    def make(b: Any, points: Value, means: Value, y: Value) -> Any:
        return batched_product(b, b.neg(differences(b, points, means)), y)

    out = simplified(ad, [(4, 2), (3, 2), (3, 2, 5)], make)
    (dot,) = ops(out, "dot_general")
    assert dot.attrs["lhs_batch"] == (0,) and dot.operands[0].type.shape == (3, 4, 2)
    assert not ops(out, "transpose")


def test_batch_axes_stay_where_the_operand_is_an_array_of_its_own(ad: Any) -> None:
    out = simplified(ad, [(4, 3, 2), (3, 2, 5)], batched_product)
    assert order(out) == ["dot_general"]
    assert ops(out, "dot_general")[0].attrs["lhs_batch"] == (1,)


@pytest.mark.parametrize("depth", [DEEPEST, DEEPEST + 1])
def test_only_shallow_trees_are_written_again(ad: Any, depth: int) -> None:
    """`differences` is one op; the rest of `depth` are unary."""

    def make(b: Any, points: Value, means: Value, y: Value) -> Any:
        x = differences(b, points, means)
        for k in range(depth - 1):
            x = b.abs(x) if k % 2 else b.neg(x)
        return batched_product(b, x, y)

    out = simplified(ad, [(4, 2), (3, 2), (3, 2, 5)], make)
    leads = ops(out, "dot_general")[0].attrs["lhs_batch"] == (0,)
    assert leads == (depth <= DEEPEST)


# Random programs

LARGEST = 2.0**40  # of any number: sums stay exact in f64
SHAPES = [(2, 3), (3, 3), (2, 3, 4), (2, 2, 3, 2), (3, 3, 3), (4,), (3,)]
UNARY = ["neg", "abs", "stop_gradient", "sign"]
BINARY = ["add", "sub", "mul", "max", "min"]
Step = tuple[int, int, int]


def orders(x: Value) -> list[Shape]:
    return list(permutations(range(x.type.rank)))


class Maker:
    """Turns numbers into ops that move axes, and what they sink through."""

    def __init__(self, params: Sequence[Value], block: Block) -> None:
        self.b: Any = Builder(block)
        self.values = list(params)
        self.bounds = dict.fromkeys(params, 4.0)

    def keep(self, value: Value, bound: float) -> None:
        """Note a value whose numbers are at most `bound`; larger ones are clipped to 4."""
        if bound > LARGEST:
            low, high = (self.b.const(c, value) for c in (-4.0, 4.0))
            value, bound = self.b.max(self.b.min(value, high), low), 4.0
        self.values.append(value)
        self.bounds[value] = max(bound, 1.0)

    def bound(self, v: Value) -> float:
        """The largest number of v, or of all values for an operand that `like` made of one."""
        return self.bounds.get(v) or max(self.bounds.values())

    def pick(self, k: int) -> Value:
        """One of the last few values, so that ops meet each other."""
        recent = self.values[-6:]
        return recent[k % len(recent)]

    def like(self, k: int, x: Value) -> Value:
        """A value of x's shape: another one, a number, a broadcast, or one with axes moved."""
        shape = x.type.shape
        same = [v for v in self.values if v.type == x.type]
        moved = [v for v in self.values if sorted(v.type.shape) == sorted(shape)]
        kind, k = k % 4, k // 4
        if kind == 0:
            return self.b.const(float(k % 9 - 4), x)  # type: ignore[no-any-return]
        if kind == 1 and shape:
            axis = k % len(shape)
            rows = [v for v in self.values if v.type.shape == shape[axis : axis + 1]]
            if rows:
                return self.b.broadcast(rows[k % len(rows)], shape=shape, axes=(axis,))  # type: ignore[no-any-return]
        if kind == 2:
            y = moved[k % len(moved)]
            perms = [p for p in orders(y) if tuple(y.type.shape[i] for i in p) == shape]
            return self.b.transpose(y, perm=perms[k % len(perms)])  # type: ignore[no-any-return]
        return same[k % len(same)]

    def unary(self, x: Value, q: int) -> None:
        name = UNARY[q % len(UNARY)]
        self.keep(self.b.op(name, [x])[0], self.bounds[x])

    def binary(self, x: Value, q: int) -> None:
        y = self.like(q // len(BINARY), x)
        name = BINARY[q % len(BINARY)]
        p, r = self.bound(x), self.bound(y)
        self.keep(
            self.b.op(name, [x, y] if q % 2 else [y, x])[0], p * r if name == "mul" else p + r
        )

    def transpose(self, x: Value, q: int) -> None:
        perms = orders(x)
        self.keep(self.b.transpose(x, perm=perms[q % len(perms)]), self.bounds[x])

    def broadcast(self, x: Value, q: int) -> None:
        if x.type.rank > 3:
            return
        at = q % (x.type.rank + 1)
        shape = (*x.type.shape[:at], 2 + q % 3, *x.type.shape[at:])
        axes = tuple(i for i in range(len(shape)) if i != at)
        self.keep(self.b.broadcast(x, shape=shape, axes=axes), self.bounds[x])

    def reduce(self, x: Value, q: int) -> None:
        axes = tuple(i for i in range(x.type.rank) if q >> i & 1)
        name = ["reduce_sum", "reduce_max", "reduce_min"][q // 16 % 3]
        self.keep(self.b.op(name, [x], axes=axes)[0], self.bounds[x] * x.type.size)

    def product(self, x: Value, q: int) -> None:
        """x times a value of its shape, each axis batched, contracted or free."""
        y = self.like(q, x)
        parts = [q // 3**i % 3 for i in range(x.type.rank)]
        batch, contract = (tuple(i for i, p in enumerate(parts) if p == k) for k in (0, 1))
        free = [n for n, p in zip(x.type.shape, parts) if p == 2]
        if np.prod([*x.type.shape, *free]) > 2000:
            return
        out = self.b.dot_general(
            x, y, lhs_batch=batch, rhs_batch=batch, lhs_contract=contract, rhs_contract=contract
        )
        self.keep(out, self.bound(x) * self.bound(y) * x.type.size)


MAKERS = [
    Maker.unary, Maker.binary, Maker.binary, Maker.transpose, Maker.transpose,
    Maker.broadcast, Maker.reduce, Maker.product,
]  # fmt: skip


def program(steps: Sequence[Step]) -> Module:
    params = [Value(TensorType(F64, s), f"x{i}") for i, s in enumerate(SHAPES)]
    block = Block(params)
    maker = Maker(params, block)
    for kind, p, q in steps:
        MAKERS[kind % len(MAKERS)](maker, maker.pick(p), q)
    block.results = maker.values[-3:]
    return Module({"f": Function("f", block)}, "f")


def misplaced(module: Module) -> list[str]:
    """Ops below a transpose, or a broadcast, that a rule should have put above it."""
    makers = {r: op for op in walk(module.main.body) for r in op.results}
    found = []
    for op in walk(module.main.body):
        below = {makers[v].name for v in op.operands if v in makers}
        unary = len(op.operands) == 1 and OPS[op.name].elementwise
        moves = unary or op.name == "transpose" or op.name.startswith("reduce_")
        if moves and "transpose" in below:
            found.append(f"{op.name} of a transpose")
        if op.name == "transpose" and "broadcast" in below:
            found.append("transpose of a broadcast")
    return found


NUMBER = st.integers(0, 10_000)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=1, max_size=14))
def test_random_programs_keep_their_numbers(steps: list[Step]) -> None:
    module = program(steps)
    verify(module)
    after = simplify(module)
    verify(after)
    assert not misplaced(after)
    args = whole_numbers(SHAPES)
    for before, now in zip(run(module, args), run(after, args), strict=True):
        np.testing.assert_array_equal(now, before)
