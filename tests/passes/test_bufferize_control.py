"""Control flow at the loop level: carries, streams, updates in place, captured values."""

from __future__ import annotations

import numpy as np
import pytest
from wengert.ir.builder import Builder
from wengert.ir.core import Block, Value, walk
from wengert.ir.types import BOOL, F64, I32, TensorType

RNG = np.random.default_rng(5)


def t(dtype, *shape):
    return TensorType(dtype, shape)


def region(params, make) -> Block:
    """A block with parameters of these types; `make(builder, *params)` gives its results."""
    block = Block([Value(p) for p in params])
    out = make(Builder(block), *block.params)
    block.results = [out] if isinstance(out, Value) else list(out)
    return block


def loop(b, trips, inits, streams, make, reverse=False):
    """A `for` op whose body is `make(b, i, *carries, *elements)`."""
    rows = [b.type(s).with_shape(b.type(s).shape[1:]) for s in streams]
    body = region([t(I32), *(b.type(v) for v in inits), *rows], make)
    operands = [*inits, *streams]
    return b.op("for", operands, [body], trips=trips, carries=len(inits), reverse=reverse)


@pytest.mark.parametrize("trips", [0, 1, 4])
@pytest.mark.parametrize("reverse", [False, True])
def test_for_with_carries_streams_and_stacks(trips, reverse, check_loops) -> None:
    def make(b, s, xs, w):
        def body(b, i, s, x):
            new = b.add(b.mul(s, w), x)
            return new, b.mul(new, b.broadcast(b.convert(i, dtype=F64), shape=(3,), axes=()))

        return loop(b, trips, [s], [xs], body, reverse)

    args = [RNG.normal(size=3), RNG.normal(size=(trips, 3)), RNG.normal(size=3)]
    check_loops([(3,), (trips, 3), (3,)], make, args)


@pytest.mark.parametrize(
    "step",
    [
        lambda b, x, y: (y, x),
        lambda b, x, y: (b.add(x, y), x),
        lambda b, x, y: (b.mul(y, y), b.add(x, x)),
        lambda b, x, y: (x, b.add(x, y)),
        lambda b, x, y: (b.add(x, b.reverse(y, axes=(0,))), b.add(y, b.reverse(x, axes=(0,)))),
        lambda b, x, y: (b.reverse(x, axes=(0,)), y),
        lambda b, x, y: (b.sub(x, y), b.sub(x, y)),
        lambda b, x, y: (b.const(2.0, x), b.add(y, x)),
        lambda b, x, y: (
            b.add(x, b.broadcast(b.reduce_sum(y, axes=(0,)), shape=(4,), axes=())),
            b.add(y, b.broadcast(b.reduce_sum(x, axes=(0,)), shape=(4,), axes=())),
        ),
        lambda b, x, y: (
            b.add(x, b.reshape(b.transpose(b.reshape(x, shape=(2, 2)), perm=(1, 0)), shape=(4,))),
            y,
        ),
        lambda b, x, y: (b.cumsum(x, axis=0, reverse=False), b.sort(x, axis=0)),
        lambda b, x, y: (
            b.reshape(b.transpose(b.reshape(y, shape=(2, 2)), perm=(1, 0)), shape=(4,)),
            y,
        ),
    ],
)
def test_carries_that_read_each_other(step, check_loops) -> None:
    def make(b, x, y):
        return loop(b, 3, [x, y], [], lambda b, i, x, y: step(b, x, y))

    check_loops([(4,), (4,)], make, [RNG.normal(size=4), RNG.normal(size=4)])


def test_view_of_a_carry_is_read_before_the_carry_changes(check_loops) -> None:
    def step(b, i, x):
        turned = b.transpose(b.reshape(x, shape=(3, 2)), perm=(1, 0))
        return b.add(x, turned)

    check_loops([(2, 3)], lambda b, x: loop(b, 3, [x], [], step), [RNG.normal(size=(2, 3))])


def update(b, x, value, at):
    return b.dynamic_update(x, b.reshape(value, shape=(1,)), at)


def item(b, x, at):
    return b.reshape(b.dynamic_slice(x, at, sizes=(1,)), shape=())


def test_update_of_a_carry_is_in_place(check_loops) -> None:
    def make(b, x, y):
        def body(b, i, x):
            return update(b, x, b.mul(item(b, y, i), b.const(2.0, F64)), i)

        return loop(b, 5, [x], [], body)

    module = check_loops([(5,), (5,)], make, [RNG.normal(size=5), RNG.normal(size=5)])
    (outer,) = [op for op in module.main.body.ops if op.name == "loop.for"]
    assert not any(op.name == "loop.call" for op in walk(outer.regions[0]))


def test_update_that_reads_its_own_carry(check_loops) -> None:
    def make(b, x):
        def body(b, i, x):
            before = item(b, x, b.sub(i, b.const(1, I32)))
            return update(b, x, b.add(before, item(b, x, i)), i)

        return loop(b, 5, [x], [], body)

    module = check_loops([(5,)], make, [RNG.normal(size=5)])
    (outer,) = [op for op in module.main.body.ops if op.name == "loop.for"]
    assert not any(op.name == "loop.call" for op in walk(outer.regions[0]))


@pytest.mark.parametrize("late", [False, True])
def test_old_value_is_kept_where_it_is_read_after_an_update(late, check_loops) -> None:
    def make(b, x, i):
        y = b.exp(x)
        z = update(b, y, b.reduce_sum(x, axes=(0,)), i)
        old = b.sort(y, axis=0) if late else b.reverse(y, axes=(0,))
        return z, b.add(old, z)

    check_loops([(4,), t(I32)], make, [RNG.normal(size=4), np.int32(2)])


def test_update_twice_and_view_of_an_updated_value(check_loops) -> None:
    def make(b, x, i):
        y = b.exp(x)
        one = update(b, y, b.const(3.0, F64), i)
        two = update(b, one, b.const(4.0, F64), b.const(0, I32))
        seen = b.reshape(two, shape=(2, 2))
        three = update(b, two, b.const(5.0, F64), b.const(1, I32))
        return b.add(three, b.reshape(b.transpose(seen, perm=(1, 0)), shape=(4,)))

    check_loops([(4,), t(I32)], make, [RNG.normal(size=4), np.int32(2)])


@pytest.mark.parametrize("flag", [False, True])
def test_if_with_captured_values(flag, check_loops) -> None:
    def make(b, c, x):
        y = b.exp(x)
        two = b.const(2.0, x)
        then = region([], lambda b: (b.mul(y, two), two))
        other = region([], lambda b: (x, b.add(y, b.const(1.0, x))))
        out = b.op("if", [c], [then, other])
        return b.add(out[0], out[1]), out[0]

    check_loops([t(BOOL), (3,)], make, [np.bool_(flag), RNG.normal(size=3)])


@pytest.mark.parametrize("which", [-3, 0, 1, 2, 7])
def test_switch_is_clamped(which, check_loops) -> None:
    def make(b, k, x):
        cases = [region([], lambda b, n=n: b.mul(x, b.const(n, x))) for n in (2.0, 3.0, 5.0)]
        return b.op("switch", [k], cases)

    check_loops([t(I32), (3,)], make, [np.int32(which), RNG.normal(size=3)])


@pytest.mark.parametrize("limit", [0, 2])
def test_while(limit, check_loops) -> None:
    def make(b, s, x):
        ten = b.const(10.0, F64)
        cond = region([t(F64), t(F64, 3)], lambda b, s, x: b.lt(s, ten))

        def step(b, s, x):
            return b.mul(s, b.const(2.0, F64)), b.add(x, b.broadcast(s, shape=(3,), axes=()))

        body = region([t(F64), t(F64, 3)], step)
        return b.op("while", [s, x], [cond, body], max_trips=limit)

    check_loops([(), (3,)], make, [np.float64(1), RNG.normal(size=3)])


def test_loops_inside_branches_inside_loops(check_loops) -> None:
    def make(b, x, w):
        def body(b, i, s):
            def then(b):
                return loop(b, 2, [s], [w], lambda b, j, s, r: b.mul(s, b.sin(r)))[0]

            odd = b.eq(b.mod(i, b.const(2, I32)), b.const(1, I32))
            out = b.op("if", [odd], [region([], then), region([], lambda b: b.add(s, x))])
            return out[0], b.reduce_sum(out[0], axes=(0,))

        return loop(b, 3, [b.mul(x, x)], [], body)

    check_loops([(3,), (2, 3)], make, [RNG.normal(size=3), RNG.normal(size=(2, 3))])


def test_loop_without_carries_of_independent_rows(check_loops) -> None:
    def make(b, xs, w):
        def body(b, i, x):
            return b.dot_general(
                x, w, lhs_batch=(), rhs_batch=(), lhs_contract=(0,), rhs_contract=(0,)
            ), b.sort(x, axis=0)

        return loop(b, 4, [], [xs], body)

    check_loops([(4, 3), (3, 2)], make, [RNG.normal(size=(4, 3)), RNG.normal(size=(3, 2))])


def test_constants_that_a_loop_captures_are_written_in_it(check_loops) -> None:
    def make(b, x):
        half = b.const(0.5, F64)
        return loop(b, 3, [x], [], lambda b, i, x: b.mul(b.add(x, half), half))

    module = check_loops([()], make, [np.float64(3)])
    (outer,) = [op for op in module.main.body.ops if op.name == "loop.for"]
    assert any(op.name == "const" and op.attrs["value"] == 0.5 for op in walk(outer.regions[0]))
    assert not any(op.name == "loop.alloc" for op in module.main.body.ops)


def test_same_value_returned_twice_and_parameters_returned(check_loops) -> None:
    def make(b, x, c):
        y = b.neg(x)
        return y, y, x, c, b.reshape(y, shape=(2, 2)), b.const(1.5, F64)

    check_loops([(4,), t(BOOL)], make, [RNG.normal(size=4), np.bool_(True)])


@pytest.mark.parametrize("reads_after", [False, True])
@pytest.mark.parametrize("flags", [[1, 0, 1], [0, 0, 0]])
def test_a_branch_changes_a_carry_in_place(flags, reads_after, check_loops) -> None:
    """What one branch leaves as it was is updated in its own memory, unless it is read again."""

    def make(b, s, flags, xs):
        def body(b, i, s, flag, x):
            def then(b):
                return b.min(s, b.sub(x, b.reverse(s, axes=(0,)))) if reads_after else b.min(s, x)

            branches = [region([], then), region([], lambda b: s)]
            (out,) = b.op("if", [flag], branches)
            return (out, b.add(out, s)) if reads_after else out

        return loop(b, 3, [s], [flags, xs], body)

    args = [RNG.normal(size=8), np.array(flags, bool), RNG.normal(size=(3, 8))]
    loops = check_loops([(8,), t(BOOL, 3), (3, 8)], make, args)
    inside = next(op for op in walk(loops.main.body) if op.name == "loop.for")
    if not reads_after:
        assert not any(op.name == "loop.call" for op in walk(inside.regions[0]))


def test_branches_that_swap_what_they_keep(check_loops) -> None:
    def make(b, c, x, y):
        u, v = b.sin(x), b.cos(y)
        one = region([], lambda b: (v, u))
        two = region([], lambda b: (u, b.add(v, u)))
        p, q = b.op("if", [c], [one, two])
        return b.add(p, p), q

    for c in (True, False):
        args = [np.array(c), RNG.normal(size=5), RNG.normal(size=5)]
        check_loops([t(BOOL), (5,), (5,)], make, args)
