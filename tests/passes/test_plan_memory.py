"""The arena: buffers alive together do not overlap, others share memory."""

from __future__ import annotations

import numpy as np
from wengert.ir.builder import Builder
from wengert.ir.core import Block, Value, walk
from wengert.ir.types import I32, TensorType
from wengert.passes.plan_memory import ALIGNMENT

RNG = np.random.default_rng(7)


def chain(b, x, steps):
    """Values that each need memory: a sort after another."""
    for _ in range(steps):
        x = b.sort(b.neg(x), axis=0)
    return x


def allocations(module):
    return [op for op in walk(module.main.body) if op.name == "loop.alloc"]


def test_a_chain_of_temporaries_takes_the_memory_of_two(check_loops) -> None:
    module = check_loops([(100,)], lambda b, x: chain(b, x, 8), [RNG.normal(size=100)])
    one = -(-800 // ALIGNMENT) * ALIGNMENT
    assert len(allocations(module)) > 10
    assert module.main.attrs["arena"] == 2 * one


def test_offsets_are_aligned_and_inside_the_arena(check_loops) -> None:
    module = check_loops([(7,)], lambda b, x: chain(b, x, 3), [RNG.normal(size=7)])
    assert len(allocations(module)) > 2
    for op in allocations(module):
        assert op.attrs["offset"] % ALIGNMENT == 0
        end = op.attrs["offset"] + op.attrs["type"].tensor.nbytes
        assert 0 <= op.attrs["offset"] and end <= module.main.attrs["arena"]


def test_values_alive_together_do_not_overlap(check_loops) -> None:
    def make(b, x):
        kept = [b.sort(b.mul(x, b.const(float(i), x)), axis=0) for i in range(1, 5)]
        total = kept[0]
        for v in kept[1:]:
            total = b.add(b.reverse(total, axes=(0,)), v)
        return b.cumsum(total, axis=0, reverse=False)

    module = check_loops([(16,)], make, [RNG.normal(size=16)])
    assert module.main.attrs["arena"] >= 4 * 128


def test_no_memory_for_what_is_computed_in_place(check_loops) -> None:
    module = check_loops([(5,)], lambda b, x: b.exp(b.neg(x)), [RNG.normal(size=5)])
    assert module.main.attrs["arena"] == 0
    assert not allocations(module)


def test_memory_of_a_loop_body_is_shared_inside_it(check_loops) -> None:
    """What a body makes lives in one trip; what it uses from around lives through all."""

    def make(b, x):
        outside = b.sort(b.neg(x), axis=0)
        body = Block([Value(TensorType(I32)), Value(b.type(x))])
        inner = Builder(body)
        body.results = [chain(inner, inner.add(body.params[1], outside), 8)]
        (out,) = b.op("for", [x], [body], trips=3, carries=1)
        return b.sort(b.add(out, b.sort(b.mul(out, out), axis=0)), axis=0)

    module = check_loops([(100,)], make, [RNG.normal(size=100)])
    one = -(-800 // ALIGNMENT) * ALIGNMENT
    assert len(allocations(module)) > 10
    assert module.main.attrs["arena"] <= 6 * one
