"""Passes keep the meaning of random programs: the interpreter before and after agrees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wengert.ir.builder import Builder
from wengert.ir.core import Block, Function, Module, Value
from wengert.ir.interp import run
from wengert.ir.types import F64, I32, DType, TensorType
from wengert.passes.batch import batch_function
from wengert.passes.dce import dce_function
from wengert.passes.intervals import interval_function
from wengert.passes.pipeline import FRONT, run_pipeline
from wengert.passes.simplify import simplify
from wengert.passes.streams import streams
from wengert.passes.vectorize import vectorize

SHAPES = [(), (3,), (2, 3), (3, 1), (3, 4)]
UNARY = ["sin", "exp", "neg", "abs", "tanh"]
BINARY = ["add", "sub", "mul", "max", "min", "div"]
COMPARE = ["lt", "ge", "eq"]
NUMBERS = [0.0, 1.0, -1.0, 2.0, -0.0, 0.5, 3.0]
TRIPS = 3
Step = tuple[int, int, int]
Steps = list[Step]


def t(dtype: DType, *shape: int) -> TensorType:
    return TensorType(dtype, shape)


class Maker:
    """Turns numbers into ops over the values at hand; any numbers give a valid program."""

    def __init__(self, block: Block, values: Sequence[Value], steps: Steps, depth: int = 0) -> None:
        self.b: Any = Builder(block)
        self.values = list(values)
        self.steps = steps
        self.depth = depth

    def fill(self, count: int) -> None:
        """Spend up to `count` steps."""
        while count and self.steps:
            count -= 1
            kind, p, q = self.steps.pop()
            made = MAKERS[kind % len(MAKERS)](self, p, q)
            self.values += made if isinstance(made, (list, tuple)) else [made]

    def pick(self, k: int, dtype: DType = F64, least_rank: int = 0) -> Value:
        """A value of the dtype, number k of those that fit."""
        fit = [v for v in self.values if v.type.dtype is dtype and v.type.rank >= least_rank]
        return fit[k % len(fit)]

    def like(self, k: int, x: Value) -> Value:
        """A value of x's type."""
        fit = [v for v in self.values if v.type == x.type]
        return fit[k % len(fit)]

    def elementwise(self, p: int, q: int) -> Any:
        x = self.pick(p)
        if q % 3 == 0:
            return getattr(self.b, UNARY[q % len(UNARY)])(x)
        return getattr(self.b, BINARY[q % len(BINARY)])(x, self.like(q // 7, x))

    def constant(self, p: int, q: int) -> Any:
        x = self.pick(p)
        return self.b.const(NUMBERS[q % len(NUMBERS)], x)

    def with_constant(self, p: int, q: int) -> Any:
        x = self.pick(p)
        c = self.b.const(NUMBERS[q % len(NUMBERS)], x)
        return getattr(self.b, BINARY[q // 11 % len(BINARY)])(*((c, x) if q % 2 else (x, c)))

    def select(self, p: int, q: int) -> Any:
        x = self.pick(p)
        y = self.like(q, x)
        return self.b.select(getattr(self.b, COMPARE[q % 3])(x, self.like(p // 3, x)), x, y)

    def reshape(self, p: int, q: int) -> Any:
        x = self.pick(p)
        options = [(x.type.size,), (1, x.type.size), (*x.type.shape, 1), (1, *x.type.shape)]
        if x.type.size % 2 == 0:
            options.append((2, x.type.size // 2))
        return self.b.reshape(x, shape=options[q % len(options)])

    def transpose(self, p: int, q: int) -> Any:
        x = self.pick(p)
        perm = list(range(x.type.rank))
        return self.b.transpose(x, perm=tuple(np.random.default_rng(q).permutation(perm).tolist()))

    def broadcast(self, p: int, q: int) -> Any:
        x = self.pick(p)
        if x.type.size > 40 or x.type.rank > 3:
            return x
        at = q % (x.type.rank + 1)
        shape = (*x.type.shape[:at], 2 + q % 2, *x.type.shape[at:])
        return self.b.broadcast(x, shape=shape, axes=tuple(i for i in range(len(shape)) if i != at))

    def reduce(self, p: int, q: int) -> Any:
        x = self.pick(p)
        axes = tuple(i for i in range(x.type.rank) if q >> i & 1)
        name = ["reduce_sum", "reduce_max", "reduce_min", "reduce_prod"][q // 8 % 4]
        return getattr(self.b, name)(x, axes=axes)

    def outer_sum(self, p: int, q: int) -> Any:
        """A sum of products written with broadcasts, big enough to become a contraction."""
        x, y = (self.flat(k, 8 * 9) for k in (p, q))
        x, y = (self.b.reshape(v, shape=s) for v, s in ((x, (8, 9)), (y, (9, 8))))
        wide = (8, 9, 8)
        left = self.b.broadcast(x, shape=wide, axes=(0, 1))
        product = self.b.mul(left, self.b.broadcast(y, shape=wide, axes=(1, 2)))
        return self.b.reduce_sum(product, axes=(1,))

    def flat(self, k: int, size: int) -> Value:
        x = self.pick(k)
        x = self.b.reshape(x, shape=(x.type.size,))
        count = -(-size // x.type.size)
        joined = self.b.concatenate(*[x] * count, axis=0)
        return self.b.slice(joined, start=(0,), limit=(size,), stride=(1,))

    def slice(self, p: int, q: int) -> Any:
        x = self.pick(p)
        rng = np.random.default_rng(q)
        start = tuple(
            int(rng.integers(0, n + 1)) if n > 1 and q % 5 == 0 else 0 for n in x.type.shape
        )
        limit = tuple(int(rng.integers(s + (s < n), n + 1)) for s, n in zip(start, x.type.shape))
        stride = tuple(int(rng.integers(1, 3)) for _ in start)
        out = self.b.slice(x, start=start, limit=limit, stride=stride)
        return out if out.type.size else x

    def concatenate(self, p: int, q: int) -> Any:
        x = self.pick(p, least_rank=1)
        if x.type.size > 40:
            return x
        return self.b.concatenate(x, self.like(q, x), axis=q % x.type.rank)

    def pad(self, p: int, q: int) -> Any:
        x = self.pick(p)
        if x.type.size > 40:
            return x
        low, high = ((q >> s) % 2 for s in (0, 1))
        rank = x.type.rank
        fill = self.b.const(NUMBERS[q % 4], F64)
        return self.b.pad(
            x, fill, low=(low,) * rank, high=(high,) * rank, interior=(q // 4 % 2,) * rank
        )

    def reverse(self, p: int, q: int) -> Any:
        x = self.pick(p)
        return self.b.reverse(x, axes=tuple(i for i in range(x.type.rank) if q >> i & 1))

    def gather(self, p: int, q: int) -> Any:
        x = self.pick(p, least_rank=1)
        index = self.b.iota(type=t(I32, 2), axis=0)
        index = self.b.mul(index, self.b.const(q % 5 - 2, index))
        index = self.b.add(index, self.b.const(q // 5 % 4 - 1, index))
        return self.b.gather(x, index, axis=q % x.type.rank, batch=0)

    def dynamic_slice(self, p: int, q: int) -> Any:
        x = self.pick(p, least_rank=1)
        numbers = [v for v in self.values if v.type == t(I32)]
        first = numbers[q % len(numbers)]
        starts = [first, *(self.b.const(0, I32) for _ in x.type.shape[1:])]
        return self.b.dynamic_slice(x, *starts, sizes=(1, *x.type.shape[1:]))

    def index(self, p: int, q: int) -> Any:
        i = self.pick(p, I32)
        return self.b.add(i, self.b.const(q % 3 - 1, i))

    def branch(self, p: int, q: int) -> Any:
        if self.depth > 1:
            return []
        x = self.pick(p)
        test = self.b.lt(
            self.b.reduce_sum(x, axes=tuple(range(x.type.rank))), self.b.const(q % 3 - 1, F64)
        )
        regions = []
        for _ in range(2):
            block = Block()
            inner = Maker(block, self.values, self.steps, self.depth + 1)
            inner.fill(2)
            block.results = [inner.like(q, x)]
            regions.append(block)
        return list(self.b.op("if", [test], regions))

    def loop(self, p: int, q: int) -> Any:
        if self.depth > 1:
            return []
        inits = [self.pick(p), self.pick(q)][: q % 3]
        xs = [
            v
            for v in self.values
            if v.type.rank and v.type.shape[0] == TRIPS and v.type.dtype is F64
        ]
        xs = [xs[p % len(xs)]] if xs and p % 2 else []
        params = [Value(t(I32), "i"), *(Value(v.type) for v in inits)]
        params += [Value(v.type.with_shape(v.type.shape[1:])) for v in xs]
        block = Block(params)
        inner = Maker(block, [*self.values, *params], self.steps, self.depth + 1)
        inner.fill(3 if q % 2 else 60)
        carries = [inner.like(q // 3 + k, v) for k, v in enumerate(inits)]
        block.results = [*carries, inner.values[-1], inner.pick(q // 5)]
        return list(
            self.b.op(
                "for",
                [*inits, *xs],
                [block],
                trips=TRIPS,
                carries=len(inits),
                reverse=bool(p % 3 == 0),
            )
        )


MAKERS: list[Callable[[Maker, int, int], Any]] = [
    Maker.elementwise, Maker.constant, Maker.with_constant, Maker.select, Maker.reshape,
    Maker.transpose, Maker.broadcast, Maker.reduce, Maker.outer_sum, Maker.slice,
    Maker.concatenate, Maker.pad, Maker.reverse, Maker.gather, Maker.dynamic_slice, Maker.index,
    Maker.branch, Maker.loop,
]  # fmt: skip


def program(steps: Sequence[Step]) -> Module:
    """The program that `steps` spell, from an array of each shape and an index."""
    params = [Value(t(F64, *s), f"x{i}") for i, s in enumerate(SHAPES)] + [Value(t(I32), "k")]
    block = Block(params)
    maker = Maker(block, params, list(steps))
    maker.fill(len(steps))
    block.results = maker.values[-4:]
    return Module({"f": Function("f", block)}, "f")


def arguments(seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    floats = [np.asarray(rng.integers(-3, 4, s) / 2.0) for s in SHAPES]
    return [*floats, np.asarray(seed % 4, np.int32)]


def dce(module: Module) -> Module:
    return Module({n: dce_function(f) for n, f in module.functions.items()}, module.entry)


def front(module: Module) -> Module:
    return run_pipeline(module, FRONT)


NUMBER = st.integers(0, 10_000)
STEPS = st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=1, max_size=16)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def same(before: Sequence[Any], after: Sequence[Any]) -> None:
    for x, y in zip(before, after, strict=True):
        assert x.shape == y.shape
        assert x.dtype == y.dtype
        if x.dtype.kind != "f":
            np.testing.assert_array_equal(x, y)
            continue
        with np.errstate(all="ignore"):
            scale = float(np.nanmax(np.abs(np.where(np.isfinite(x), x, 0)), initial=1.0))
        np.testing.assert_allclose(y, x, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize(
    "change", [simplify, dce, streams, vectorize, front], ids=lambda f: f.__name__
)
@QUICK
@given(steps=STEPS)
def test_pass_keeps_the_meaning(change: Callable[[Module], Module], steps: list[Step]) -> None:
    module = program(steps)
    args = arguments(len(steps))
    same(run(module, args), run(change(module), args))


@QUICK
@given(steps=STEPS)
def test_simplify_twice_adds_nothing(steps: list[Step]) -> None:
    def size(block: Block) -> int:
        return sum(1 + sum(size(r) for r in op.regions) for op in block.ops)

    once = simplify(program(steps))
    assert size(simplify(once).main.body) <= size(once.main.body)


@QUICK
@given(steps=STEPS, shared=st.integers(0, 63))
def test_batched_program_is_the_program_on_each_example(steps: list[Step], shared: int) -> None:
    module = program(steps)
    axes = [None if shared >> i & 1 else 0 for i in range(len(SHAPES) + 1)]
    rows = [arguments(seed) for seed in (3, 5)]
    args = [rows[0][i] if a is None else np.stack([r[i] for r in rows]) for i, a in enumerate(axes)]
    name = batch_function(module, "f", axes, 2)
    together = run(module, args, name)
    for k in range(2):
        alone = run(module, [x if a is None else np.asarray(x[k]) for x, a in zip(args, axes)], "f")
        same(alone, [np.asarray(out[k]) for out in together])


@QUICK
@given(steps=STEPS, seed=st.integers(0, 2**16), width=st.sampled_from([0.0, 1e-9, 0.05, 1.0]))
def test_bounds_over_a_box_hold_at_points_of_it(steps: list[Step], seed: int, width: float) -> None:
    module = program(steps)
    rng = np.random.default_rng(seed)
    centre = arguments(seed % 7)
    spread = [rng.uniform(0, width, x.shape) for x in centre[:-1]]
    low = [x - s for x, s in zip(centre, spread)] + [np.asarray(0, np.int32)]
    high = [x + s for x, s in zip(centre, spread)] + [np.asarray(2, np.int32)]
    boxed = range(len(centre)) if seed % 3 == 0 else range(len(SHAPES))
    name = interval_function(module, "f", boxed)
    corners = [v for i, pair in enumerate(zip(low, high)) for v in pair[: 1 + (i in boxed)]]
    bounds = run(module, corners, name)
    for _ in range(5):
        point = [np.asarray(x + (y - x) * rng.uniform(size=x.shape)) for x, y in zip(low, high)]
        point[-1] = np.asarray(rng.integers(0, 3) if len(SHAPES) in boxed else 0, np.int32)
        for value, lo, hi in zip(run(module, point), bounds[::2], bounds[1::2], strict=True):
            assert lo.shape == hi.shape == value.shape
            unknown = (lo != lo) | (hi != hi)
            inside = (lo <= value) & (value <= hi)
            assert (inside | unknown).all(), (value, lo, hi)
