"""Random programs of moves, arithmetic, reductions, products and updates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wengert.ir.core import Block, Value
from wengert.ir.types import F64, I32, TensorType

N = 4  # every value is [N] or [N, N]


def square(b, x):
    return x if b.type(x).rank == 2 else b.broadcast(x, shape=(N, N), axes=(b.type(x).size % 2,))


def line(b, x):
    return x if b.type(x).rank == 1 else b.reduce_max(x, axes=(0,))


def update(b, x, y):
    return b.dynamic_update(
        line(b, x), b.slice(line(b, y), start=(1,), limit=(3,), stride=(1,)), b.const(2, I32)
    )


def product(b, x, y):
    return b.dot_general(
        square(b, x), square(b, y), lhs_batch=(), rhs_batch=(), lhs_contract=(0,), rhs_contract=(1,)
    )


def turned(b, x):
    return b.transpose(square(b, x), perm=(1, 0))


def joined(b, x, y):
    parts = [
        b.slice(line(b, v), start=(s,), limit=(e,), stride=(1,))
        for v, s, e in ((x, 0, 1), (y, 1, N))
    ]
    return b.concatenate(*parts, axis=0)


def picked(b, x, y):
    where = b.convert(b.mul(line(b, y), b.const(2.9, line(b, y))), dtype=I32)
    return b.gather(line(b, x), where, axis=0, batch=0)


def spread(b, x, y):
    where = b.convert(b.mul(line(b, y), b.const(2.9, line(b, y))), dtype=I32)
    return b.scatter_add(line(b, x), where, b.tanh(line(b, y)), axis=0, batch=0)


def reshaped(b, x):
    flat = b.reshape(square(b, x), shape=(2, 2 * N))
    return b.reshape(b.transpose(flat, perm=(1, 0)), shape=(N, N))


STEPS = [
    lambda b, x, y: b.tanh(b.add(square(b, x), square(b, y))),
    lambda b, x, y: b.sin(b.mul(line(b, x), line(b, y))),
    lambda b, x, y: turned(b, x),
    lambda b, x, y: b.reverse(x, axes=(0,)),
    lambda b, x, y: b.tanh(b.reduce_sum(square(b, x), axes=(1,))),
    lambda b, x, y: reshaped(b, x),
    lambda b, x, y: b.sort(x, axis=0),
    lambda b, x, y: b.tanh(b.cumsum(x, axis=0, reverse=True)),
    lambda b, x, y: b.tanh(product(b, x, y)),
    update,
    joined,
    picked,
    spread,
]
PROGRAMS = st.lists(
    st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 30), st.integers(0, 30)),
    min_size=1,
    max_size=14,
)


def straight(b, values, program):
    values = list(values)
    for step, i, j in program:
        values.append(STEPS[step](b, values[-1 - i % len(values)], values[-1 - j % len(values)]))
    return values


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(program=PROGRAMS, seed=st.integers(0, 100))
def test_straight_line(program, seed, check_loops) -> None:
    rng = np.random.default_rng(seed)
    args = [rng.normal(size=N), rng.normal(size=(N, N))]

    def make(b, x, y):
        return straight(b, (x, y), program)[-3:]

    check_loops([(N,), (N, N)], make, args)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(program=PROGRAMS, seed=st.integers(0, 100), trips=st.integers(1, 3))
@pytest.mark.parametrize("swap", [False, True])
def test_loop_carrying_two_values(swap, program, seed, trips, check_loops) -> None:
    """The carries are values of the body; in-place updates must not disturb their readers."""
    rng = np.random.default_rng(seed)
    args = [rng.normal(size=N), rng.normal(size=N)]

    def make(b, x, y):
        body = Block([Value(TensorType(I32)), *(Value(TensorType(F64, (N,))) for _ in "xy")])
        inner = type(b)(body)
        values = straight(inner, body.params[1:], program)
        ends = [v for v in values if inner.type(v).rank == 1][-2:]
        body.results = [*(reversed(ends) if swap else ends), values[-1]]
        start = b.exp(x)
        out = b.op("for", [start, y], [body], trips=trips, carries=2)
        return *out, start

    check_loops([(N,), (N,)], make, args)
