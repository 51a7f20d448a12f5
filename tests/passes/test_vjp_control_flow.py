"""Derivatives through branches and loops, in both modes, by numbers."""

from __future__ import annotations

import numpy as np
import pytest
from wengert.ir.builder import Builder
from wengert.ir.core import Block, Value, walk
from wengert.ir.types import BOOL, F64, I32, TensorType
from wengert.passes.derivatives import vjp_function
from wengert.passes.jvp import NotDifferentiable

RNG = np.random.default_rng(11)
SCALAR = TensorType(F64)
POLICIES = ["all", "carry", "sqrt"]


def region(types, make):
    """A block with parameters of `types` whose results `make(builder, *params)` lists."""
    block = Block([Value(t, f"p{i}") for i, t in enumerate(types)])
    block.results = list(make(Builder(block), *block.params))
    return block


def loop(b, trips, inits, streams, make, **attrs):
    """A `for` whose body is make(builder, i, *carries, *elements)."""
    types = [TensorType(I32), *(v.type for v in inits)]
    types += [v.type.with_shape(v.type.shape[1:]) for v in streams]
    body = region(types, make)
    return b.op("for", [*inits, *streams], [body], trips=trips, carries=len(inits), **attrs)


def test_if(ad):
    def make(b, x, y):
        test = b.gt(b.reduce_sum(x, axes=(0,)), b.const(0, F64))
        then = region([], lambda b: [b.mul(b.exp(x), y), b.reduce_sum(x, axes=(0,))])
        other = region([], lambda b: [b.sin(y), b.const(1.5, F64)])
        return b.op("if", [test], [then, other])

    m = ad.module([(3,), (3,)], make)
    for sign in (1, -1):
        ad.check(m, [sign * np.array([0.3, 1.2, 0.1]), RNG.normal(size=3)])
        ad.check(m, [sign * np.array([0.3, 1.2, 0.1]), RNG.normal(size=3)], wrt=(1,))


def test_switch_with_flat_and_constant_branches(ad):
    def make(b, x, k):
        index = b.convert(k, dtype=I32)
        cases = [
            region([], lambda b: [b.mul(x, b.tanh(x))]),
            region([], lambda b: [b.floor(x)]),
            region([], lambda b: [b.const(2.0, x)]),
            region([], lambda b: [x]),
        ]
        return b.op("switch", [index], cases)

    m = ad.module([(4,), ()], make)
    for k in (-3.0, 0.0, 1.0, 2.0, 3.0, 9.0):
        ad.check(m, [RNG.normal(size=4), np.array(k)], wrt=(0,))


def test_nested_if_of_captured_values(ad):
    def make(b, x, y):
        zero = b.const(0, F64)
        z = b.exp(x)

        def inner(b):
            return b.op(
                "if",
                [b.gt(y, zero)],
                [region([], lambda b: [b.mul(z, y)]), region([], lambda b: [b.div(y, z)])],
            )

        return b.op("if", [b.gt(x, zero)], [region([], inner), region([], lambda b: [b.mul(z, z)])])

    m = ad.module([(), ()], make)
    for x, y in ((0.4, 0.7), (0.4, -0.7), (-0.4, 0.7)):
        ad.check(m, [np.array(x), np.array(y)])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("trips", [0, 1, 4, 7, 12])
def test_for_with_carries_streams_outputs_and_captures(ad, policy, trips, reverse):
    def make(b, x, w, xs):
        def body(b, i, c, n, e):
            scaled = b.mul(b.tanh(b.add(c, e)), w)
            place = b.convert(i, dtype=F64)
            return [
                b.add(b.mul(c, b.const(0.5, F64)), scaled),
                b.add(n, i),
                b.mul(c, b.mul(c, place)),
            ]

        zero = b.const(0, I32)
        return loop(b, trips, [x, zero], [xs], body, checkpoint=policy, reverse=reverse)

    m = ad.module([(), (), (trips,)], make)
    args = [np.array(0.3), np.array(0.8), RNG.normal(size=trips)]
    for wrt in ((0,), (1,), (2,), (0, 1, 2)):
        ad.check(m, args, wrt=wrt)


@pytest.mark.parametrize("policy", POLICIES)
def test_loop_in_loop(ad, policy):
    def make(b, x, w):
        def outer(b, i, c):
            def inner(b, j, d):
                both = b.convert(b.add(i, j), dtype=F64)
                return [b.sin(b.add(b.mul(d, w), b.mul(c, both))), b.mul(d, c)]

            d, parts = loop(b, 3, [c], [], inner, checkpoint=policy)
            return [b.add(d, b.reduce_sum(parts, axes=(0,)))]

        return loop(b, 4, [x], [], outer, checkpoint=policy)

    ad.check(ad.module([(), ()], make), [np.array(0.4), np.array(0.3)])


def test_branch_in_loop_and_loop_in_branch(ad):
    def make(b, x, xs):
        def body(b, i, c, e):
            def then(b):
                return loop(b, 2, [c], [], lambda b, j, d: [b.mul(d, b.cos(e))])

            other = region([], lambda b: [b.add(c, b.mul(e, e))])
            return b.op("if", [b.gt(e, b.const(0, F64))], [region([], then), other])

        return loop(b, 5, [x], [xs], body)

    ad.check(ad.module([(), (5,)], make), [np.array(0.9), RNG.normal(size=5)])


def test_parallel_map_stays_one(ad):
    def make(b, w, xs):
        def body(b, i, e):
            return [b.mul(b.exp(b.mul(e, w)), e)]

        return loop(b, 6, [], [xs], body)

    m = ad.module([(2,), (6, 2)], make)
    ad.check(m, [RNG.normal(size=2), RNG.normal(size=(6, 2))])
    name = vjp_function(m, "f", (0, 1))
    loops = [op for op in walk(m.functions[name].body) if op.name == "for"]
    assert len(loops) == 2
    assert all(op.attrs["carries"] == 0 for op in loops)


def test_element_of_a_captured_array(ad):
    def make(b, xs):
        def body(b, i, c):
            row = b.dynamic_slice(xs, i, sizes=(1,))
            return [b.mul(c, b.reshape(row, shape=()))]

        return loop(b, 5, [b.const(1.0, F64)], [], body)

    ad.check(ad.module([(5,)], make), [RNG.normal(size=5)])


def test_writing_elements_of_a_carried_array(ad):
    def make(b, xs, c):
        def body(b, i, ys):
            row = b.dynamic_slice(ys, i, sizes=(1,))
            after = b.mul(b.sin(row), b.broadcast(c, shape=(1,), axes=()))
            return [b.dynamic_update(ys, after, b.add(i, b.const(1, I32)))]

        return loop(b, 4, [xs], [], body)

    ad.check(ad.module([(5,), ()], make), [RNG.normal(size=5), np.array(1.3)])


def test_carry_that_becomes_active_late(ad):
    """b is zero at first and gets a tangent from a only after one trip, c after two."""

    def make(b, x):
        zero = b.const(0, F64)

        def body(b, i, p, q, r):
            return [b.mul(p, x), b.add(q, p), b.add(r, b.mul(q, q))]

        return loop(b, 4, [b.const(1.0, F64), zero, zero], [], body)

    ad.check(ad.module([()], make), [np.array(1.2)])


def test_inactive_carries_get_no_tangents(ad):
    def make(b, x):
        def body(b, i, c, k):
            return [b.mul(c, x), b.add(k, b.const(1.0, F64))]

        return loop(b, 3, [x, b.const(0, F64)], [], body)

    m = ad.module([()], make)
    name = vjp_function(m, "f", (0,))
    ad.check(m, [np.array(0.7)])
    backward = [op for op in walk(m.functions[name].body) if op.name == "for"][-1]
    assert backward.attrs["carries"] == 2  # the cotangent of c and the sum for x


def test_policies_store_what_they_say(ad):
    def peak(policy, trips=64):
        def make(b, x):
            def body(b, i, c):
                return [b.sin(b.exp(b.cos(b.mul(c, x))))]

            return loop(b, trips, [x], [], body, checkpoint=policy)

        m = ad.module([()], make)
        ad.check(m, [np.array(0.4)])
        f = m.functions[vjp_function(m, "f", (0,))]
        return sum(r.type.size for op in f.body.ops if op.name == "for" for r in op.results)

    every, carry, root = (peak(p) for p in POLICIES)
    assert carry < every
    assert root <= carry / 4


def collatz(b, x, w, bound):
    """Doubles x (and scales by w) until it is above 10."""

    def cond(b, v, n):
        return [b.lt(v, b.const(10.0, F64))]

    def body(b, v, n):
        return [b.add(b.mul(v, b.const(2.0, F64)), b.sin(w)), b.add(n, b.const(1, I32))]

    types = [SCALAR, TensorType(I32)]
    regions = [region(types, cond), region(types, body)]
    return b.op("while", [x, b.const(0, I32)], regions, max_trips=bound)


@pytest.mark.parametrize("start", [0.9, 3.0, 12.0])
def test_bounded_while(ad, start):
    m = ad.module([(), ()], lambda b, x, w: collatz(b, x, w, 8))
    ad.check(m, [np.array(start), np.array(0.4)])
    ad.check(m, [np.array(start), np.array(0.4)], wrt=(1,))


def test_while_stops_at_its_bound(ad):
    m = ad.module([(), ()], lambda b, x, w: collatz(b, x, w, 2))
    ad.check(m, [np.array(0.5), np.array(0.4)])


def test_unbounded_while_is_forward_only(ad):
    m = ad.module([(), ()], lambda b, x, w: collatz(b, x, w, 0))
    ad.check(m, [np.array(0.9), np.array(0.4)], reverse=False)
    with pytest.raises(NotDifferentiable, match="how often.*\n.*max 100"):
        vjp_function(m, "f", (0,))


def test_while_that_counts_only_needs_no_bound(ad):
    """A loop that no derivative goes through is copied, bound or not."""

    def make(b, x):
        types = [TensorType(I32)]
        cond = region(types, lambda b, n: [b.lt(n, b.const(5, I32))])
        body = region(types, lambda b, n: [b.add(n, b.const(1, I32))])
        (n,) = b.op("while", [b.const(0, I32)], [cond, body])
        return b.mul(x, b.convert(n, dtype=F64))

    ad.check(ad.module([()], make), [np.array(0.9)])


def test_while_inside_a_loop(ad):
    def make(b, x, w):
        def body(b, i, c):
            out, _ = collatz(b, c, w, 6)
            return [b.mul(out, b.const(0.1, F64))]

        return loop(b, 3, [x], [], body)

    ad.check(ad.module([(), ()], make), [np.array(0.7), np.array(0.2)])


def test_loop_carrying_a_bool(ad):
    def make(b, x):
        def body(b, i, c, odd):
            c = b.select(odd, b.mul(c, c), b.exp(c))
            return [b.mul(c, b.const(0.3, F64)), b.not_(odd)]

        return loop(b, 4, [x, b.const(True, BOOL)], [], body)

    ad.check(ad.module([()], make), [np.array(0.8)])


def test_cotangents_of_elements_are_added_in_place(ad):
    """Reading two elements a trip must not cost a whole array a trip."""

    def make(b, xs, w):
        def body(b, i, c):
            one = b.reshape(b.dynamic_slice(xs, i, sizes=(1,)), shape=())
            more = b.add(i, b.const(2, I32))
            two = b.reshape(b.gather(xs, b.reshape(more, shape=(1,)), axis=0), shape=())
            return [b.add(b.mul(c, one), b.mul(two, w))]

        return loop(b, 5, [b.const(1.0, F64)], [], body)

    m = ad.module([(7,), ()], make)
    ad.check(m, [RNG.normal(size=7), np.array(0.3)])
    backward = [op for op in m.functions[vjp_function(m, "f", (0,))].body.ops if op.name == "for"]
    whole = [op for op in walk(backward[-1].regions[0]) if op.result.type.shape == (7,)]
    assert [op.name for op in whole] == ["scatter_add", "dynamic_update"]


def test_captured_total_goes_through_a_branch(ad):
    """Inside a branch in a loop the total of a captured array is updated, not made anew."""

    def make(b, xs, w):
        def body(b, i, c):
            row = b.reshape(b.dynamic_slice(xs, i, sizes=(1,)), shape=())
            test = b.gt(row, b.const(0, F64))
            then = region([], lambda b: [b.mul(c, b.sin(row))])
            other = region([], lambda b: [b.mul(b.reduce_sum(xs, axes=(0,)), c)])
            return b.op("if", [test], [then, other])

        first = loop(b, 4, [w], [], body)
        return b.add(first[0], b.reduce_sum(b.mul(xs, xs), axes=(0,)))

    ad.check(ad.module([(4,), ()], make), [np.array([0.3, -0.2, 0.9, -1.1]), np.array(0.6)])
