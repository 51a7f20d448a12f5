"""Random programs with branches, loops and maps: every way to their derivative agrees."""

from __future__ import annotations

import random

import numpy as np
import pytest
from wengert.ir.builder import Builder
from wengert.ir.core import Block, Module, Value
from wengert.ir.interp import run
from wengert.ir.types import F64, I32, TensorType
from wengert.passes.derivatives import jvp_function, vjp_function
from wengert.passes.expand_diff import expand_diff

SIZE = 4
VECTOR = TensorType(F64, (SIZE,))
SCALAR = TensorType(F64)
SMOOTH = ["sin", "cos", "tanh", "sigmoid", "atan", "asinh", "erf", "neg"]
POLICIES = ["", "carry", "sqrt"]


class Generator:
    """Writes random ops on vectors of SIZE numbers; values stay of order one."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def grow(self, b, pool, steps, depth):
        """Append `steps` random values to `pool`, using those in it; the last one."""
        kinds = [self.unary, self.binary, self.reduction, self.index, self.dot]
        nested = [self.branch, self.loop, self.map] if depth else []
        for _ in range(steps):
            make = self.rng.choice(kinds + nested)
            pool.append(make(b, pool, depth))
        return b.sin(b.add(pool[-1], self.rng.choice(pool)))

    def whole(self, b, x, y, steps, depth):
        """A function of x and y that depends on every value made on the way."""
        pool = [x, y]
        self.grow(b, pool, steps, depth)
        total = pool[0]
        for k, v in enumerate(pool[1:]):
            total = b.add(total, b.mul(v, b.const(0.3 + 0.1 * k, v)))
        return b.mul(total, b.const(0.2, total))

    def unary(self, b, pool, depth):
        return getattr(b, self.rng.choice(SMOOTH))(self.rng.choice(pool))

    def binary(self, b, pool, depth):
        x, y = self.rng.choice(pool), self.rng.choice(pool)
        kind = self.rng.choice(["add", "sub", "mul", "div", "max", "select", "pow"])
        if kind == "div":
            return b.div(x, b.add(b.mul(y, y), b.const(1.0, y)))
        if kind == "select":
            return b.select(b.gt(x, y), b.sin(x), b.mul(y, y))
        if kind == "pow":
            return b.pow(b.add(b.tanh(x), b.const(2.0, x)), b.sin(y))
        return b.tanh(getattr(b, kind)(x, y))

    def reduction(self, b, pool, depth):
        x = self.rng.choice(pool)
        kind = self.rng.choice(["reduce_sum", "reduce_max", "reduce_prod", "cumsum", "sort"])
        if kind == "sort":
            return b.op("sort", [x], axis=0)[0]
        if kind == "cumsum":
            return b.tanh(b.cumsum(x, axis=0, reverse=self.rng.random() < 0.5))
        total = b.op(kind, [x], axes=(0,))[0]
        return b.tanh(b.broadcast(total, shape=(SIZE,), axes=()))

    def index(self, b, pool, depth):
        x, y = self.rng.choice(pool), self.rng.choice(pool)
        where = b.const(
            np.array([self.rng.randrange(SIZE) for _ in range(SIZE)]), TensorType(I32, (SIZE,))
        )
        kind = self.rng.choice(["gather", "scatter", "slice", "pad", "reverse"])
        if kind == "gather":
            return b.gather(x, where, axis=0)
        if kind == "scatter":
            return b.tanh(b.scatter_add(x, where, y, axis=0))
        if kind == "reverse":
            return b.reverse(x, axes=(0,))
        part = b.slice(x, start=(1,), limit=(SIZE,), stride=(2,))
        if kind == "pad":
            return b.pad(part, b.const(0.5, F64), low=(1,), high=(0,), interior=(1,))
        rest = b.slice(y, start=(0,), limit=(SIZE - 2,), stride=(1,))
        return b.concatenate(part, rest, axis=0)

    def dot(self, b, pool, depth):
        x, y = self.rng.choice(pool), self.rng.choice(pool)
        table = b.dot_general(x, y)
        return b.tanh(b.dot_general(table, x, lhs_contract=(1,), rhs_contract=(0,)))

    def block(self, pool, depth, params=()):
        out = Block(list(params))
        b = Builder(out)
        inside = list(pool) + [p for p in params if p.type == VECTOR]
        return out, b, inside

    def branch(self, b, pool, depth):
        test = b.gt(b.reduce_sum(self.rng.choice(pool), axes=(0,)), b.const(0.2, F64))
        regions = []
        for _ in range(2):
            out, inner, inside = self.block(pool, depth)
            out.results = [
                self.grow(inner, inside, self.rng.randrange(3), depth - 1)
                if self.rng.random() < 0.9
                else inner.const(0.7, VECTOR)
            ]
            regions.append(out)
        return b.op("if", [test], regions)[0]

    def loop(self, b, pool, depth):
        trips = self.rng.choice([0, 1, 3, 5])
        inits = [self.rng.choice(pool), b.const(0.3, VECTOR)]
        rows = b.broadcast(self.rng.choice(pool), shape=(trips, SIZE), axes=(1,))
        names = ["i", "c", "late", "row"]
        types = [TensorType(I32), VECTOR, VECTOR, VECTOR]
        params = [Value(t, n) for t, n in zip(types, names)]
        out, inner, inside = self.block(pool, depth, params)
        first = self.grow(inner, inside, 2, depth - 1)
        place = inner.broadcast(inner.convert(params[0], dtype=F64), shape=(SIZE,), axes=())
        second = inner.sin(inner.add(params[2], inner.mul(params[1], place)))
        out.results = [first, second, self.rng.choice(inside)]
        attrs = {"reverse": self.rng.random() < 0.3, "checkpoint": self.rng.choice(POLICIES)}
        c, late, rows = b.op("for", [*inits, rows], [out], trips=trips, carries=2, **attrs)
        total = b.tanh(b.reduce_sum(rows, axes=(0,)))
        return self.rng.choice([c, late, total])

    def map(self, b, pool, depth):
        """A loop without carries over the elements of a vector, some read by the index."""
        x, y = self.rng.choice(pool), self.rng.choice(pool)
        params = [Value(TensorType(I32), "i"), Value(SCALAR, "e")]
        out, inner, inside = self.block(pool, depth, params)
        read = inner.reshape(inner.dynamic_slice(y, params[0], sizes=(1,)), shape=())
        wide = inner.broadcast(inner.mul(params[1], read), shape=(SIZE,), axes=())
        inside.append(wide)
        row = self.grow(inner, inside, 2, depth - 1)
        out.results = [inner.tanh(inner.reduce_sum(row, axes=(0,)))]
        return b.op("for", [x], [out], trips=SIZE, carries=0)[0]


@pytest.mark.parametrize("seed", range(40))
def test_random_program(ad, seed):
    gen = Generator(seed)
    m = ad.module([(SIZE,)] * 2, lambda b, x, y: gen.whole(b, x, y, 8, 2))
    rng = np.random.default_rng(seed)
    args = [rng.normal(size=SIZE) for _ in range(2)]
    ad.check(m, args, tol=2e-5)

    ct = rng.normal(size=SIZE)
    direct = ad.vjp(m, args, [ct])
    for kind, types in (("diff.vjp", [VECTOR] * 3), ("diff.jvp", [VECTOR] * 2)):
        extra = [VECTOR] if kind == "diff.vjp" else [VECTOR, VECTOR]
        whole = _request(m, kind, types, extra)
        values = [ct] if kind == "diff.vjp" else args[::-1]
        got = run(expand_diff(whole), [*args, *values])
        want = direct if kind == "diff.vjp" else ad.jvp(m, args, args[::-1])
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def _request(m: Module, kind: str, types: list[TensorType], extra: list[TensorType]) -> Module:
    params = [Value(t) for t in [VECTOR] * 2 + extra]
    block = Block(params)
    block.results = list(Builder(block).op(kind, params, fn="f", wrt=(0, 1), types=types))
    from wengert.ir.core import Function

    return Module({**m.functions, "whole": Function("whole", block)}, "whole")


@pytest.mark.parametrize("seed", range(40, 52))
def test_second_derivatives_of_random_programs_agree(ad, seed):
    """Forward over reverse against reverse over forward: <ct, H v> both ways."""
    gen = Generator(seed)
    m = ad.module([(SIZE,)] * 2, lambda b, x, y: gen.whole(b, x, y, 5, 1))
    rng = np.random.default_rng(seed)
    x, y, v, ct = (rng.normal(size=SIZE) for _ in range(4))
    back = vjp_function(m, "f", (0,))
    twice = jvp_function(m, back, (0,))
    over_reverse = run(m, [x, y, ct, v], twice)[-1]
    ahead = jvp_function(m, "f", (0,))
    again = vjp_function(m, ahead, (0,))
    zero = np.zeros(SIZE)
    over_forward = run(m, [x, y, v, zero, ct], again)[-1]
    np.testing.assert_allclose(over_reverse, over_forward, rtol=1e-8, atol=1e-10)
    reverse_twice = vjp_function(m, back, (0,))
    own = run(m, [x, y, ct, zero, v], reverse_twice)[-1]
    np.testing.assert_allclose(own, over_reverse, rtol=1e-8, atol=1e-10)
