"""Ops that bufferise to more than an expression: kernels, updates in place, control flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from ..ir.builder import Builder
from ..ir.core import Block, Op, Value, free_values, used_values
from ..ir.linalg import free_axes
from ..ir.loops import INDEX
from ..ir.types import BOOL, I32, I64, BufferType

if TYPE_CHECKING:
    from .bufferize import Bufferizer

Rule = Callable[["Bufferizer", Op], None]
OPAQUE: dict[str, Rule] = {}


def _opaque(*names: str) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        for name in names:
            OPAQUE[name] = rule
        return rule

    return add


def _type(v: Value) -> BufferType:
    type = Builder.type(v)
    return BufferType(type.dtype, type.shape)


def _kernel(host: Bufferizer, op: Op, name: str, flags: Sequence[str]) -> None:
    """A kernel call: operands, then results."""
    for r in op.results:
        host.place[r] = host.buffer_for(r)

    def run() -> None:
        inputs = [host.materialised(v, host.b) for v in op.operands]
        outputs = [host.place[r] for r in op.results]
        host.b.op("loop.call", [*inputs, *outputs], kernel=name, flags=tuple(flags))

    host.defer(run, op.operands, op.results)


@_opaque("cholesky")
def _cholesky(host: Bufferizer, op: Op) -> None:
    _kernel(host, op, "cholesky", ())


@_opaque("triangular_solve")
def _triangular_solve(host: Bufferizer, op: Op) -> None:
    _kernel(host, op, "triangular_solve", [f for f in ("lower", "trans") if op.attrs[f]])


@_opaque("sort")
def _sort(host: Bufferizer, op: Op) -> None:
    axis, rank = op.attrs["axis"], Builder.type(op.operands[0]).rank
    if axis == rank - 1:
        _kernel(host, op, "sort", ())
        return
    perm = (*(i for i in range(rank) if i != axis), axis)
    back = tuple(perm.index(i) for i in range(rank))
    moved = [_through(host, v, perm) for v in op.operands]
    results = [Value(m.type) for m in moved]
    _kernel(host, Op("sort", tuple(moved), {"axis": rank - 1}, (), tuple(results)), "sort", ())
    for r, sorted_ in zip(op.results, results):
        host.makers[r] = Op("transpose", (sorted_,), {"perm": back}, (), (r,))
        host.root(r)


def _through(host: Bufferizer, v: Value, perm: tuple[int, ...]) -> Value:
    """A materialised transpose of v."""
    type = Builder.type(v)
    out = Value(type.with_shape(tuple(type.shape[p] for p in perm)))
    host.makers[out] = Op("transpose", (v,), {"perm": perm}, (), (out,))
    host.root(out)
    return out


@_opaque("cumsum")
def _cumsum(host: Bufferizer, op: Op) -> None:
    """A nest over the other axes around a sequential loop."""
    (source,), (result,) = op.operands, op.results
    axis, shape = op.attrs["axis"], Builder.type(source).shape
    host.place[result] = host.buffer_for(result)

    def run() -> None:
        x, out = host.materialised(source, host.b), host.place[result]
        dims = tuple(n for i, n in enumerate(shape) if i != axis)
        body = Block([Value(INDEX, "i") for _ in dims])
        loop = Block([Value(INDEX, "j")])
        b = Builder(loop)

        def at(j: Value) -> list[Value]:
            index = list(body.params)
            index.insert(axis, j)
            return index

        (j,) = loop.params
        edge = b.const(shape[axis] - 1 if op.attrs["reverse"] else 0, I64)
        one = b.const(-1 if op.attrs["reverse"] else 1, I64)
        first = b.op("eq", [j, edge])[0]
        before = b.op("select", [first, j, b.op("sub", [j, one])[0]])[0]
        value = b.op("loop.load", [x, *at(j)])[0]
        total = b.op("loop.load", [out, *at(before)])[0]
        total = b.op("select", [first, value, b.op("add", [total, value])[0]])[0]
        b.op("loop.store", [total, out, *at(j)])
        Builder(body).op("loop.for", [], [loop], trips=shape[axis], reverse=op.attrs["reverse"])
        host.b.op("loop.nest", [], [body], dims=dims, parallel=0, simd=-1)

    host.defer(run, op.operands, op.results)


# Products

BLAS_COUNTS = 2**31  # sides and strides of a matrix are below this


def _layout(
    shape: Sequence[int], batch: Sequence[int], rows: Sequence[int], cols: Sequence[int]
) -> tuple[int, int, int] | None:
    """(batch, row, column) strides of an array seen as a stack of matrices, if it is one."""
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    out = []
    for group in (batch, rows, cols):
        group = [i for i in group if shape[i] != 1]
        for left, right in pairwise(group):
            if strides[left] != strides[right] * shape[right]:
                return None
        out.append(strides[group[-1]] if group else 1)
    b, r, c = out
    r_size = math.prod(shape[i] for i in rows)
    c_size = math.prod(shape[i] for i in cols)
    if r_size == 1:
        r = max(1, c_size)
        c = 1 if c_size == 1 else c
    if c_size == 1:
        c = max(1, r_size) if r == 1 else 1
    if (r != 1 and c != 1) or max(r, c) >= BLAS_COUNTS:
        return None
    return b, r, c


@_opaque("dot_general")
def _dot(host: Bufferizer, op: Op) -> None:
    a, b = op.operands
    (result,) = op.results
    la, lb, ca, cb = (
        list(op.attrs[k]) for k in ("lhs_batch", "rhs_batch", "lhs_contract", "rhs_contract")
    )
    sa, sb = Builder.type(a).shape, Builder.type(b).shape
    fa, fb = free_axes(len(sa), la, ca), free_axes(len(sb), lb, cb)
    left = _layout(sa, la, fa, ca)
    if left is None:
        a, left = _packed(host, a, (*la, *fa, *ca), len(la), len(fa))
    right = _layout(sb, lb, cb, fb)
    if right is None:
        b, right = _packed(host, b, (*lb, *cb, *fb), len(lb), len(cb))
    m, n, k = (math.prod(s[i] for i in g) for s, g in ((sa, fa), (sb, fb), (sa, ca)))
    batch = math.prod(sa[i] for i in la)
    host.place[result] = host.buffer_for(result)

    def run() -> None:
        buffers = [host.materialised(v, host.b) for v in (a, b)]
        host.b.op(
            "loop.gemm",
            [*buffers, host.place[result]],
            batch=batch,
            m=m,
            n=n,
            k=k,
            sa=left,
            sb=right,
            sc=(m * n, n, 1),
        )

    host.defer(run, (a, b), op.results)


def _packed(
    host: Bufferizer, v: Value, perm: tuple[int, ...], batch: int, rows: int
) -> tuple[Value, tuple[int, int, int]]:
    """A copy of v with its axes in order batch, rows, columns, and its strides."""
    out = _through(host, v, perm)
    shape = Builder.type(out).shape
    r = math.prod(shape[batch : batch + rows])
    c = math.prod(shape[batch + rows :])
    return out, (r * c, c, 1)


# Updates


def _copied(host: Bufferizer, op: Op) -> Value:
    """The result's buffer, holding the first operand's data (already, if updated in place)."""
    out = host.place[op.results[0]]
    host.copy(op.operands[0], out)
    return out


@_opaque("dynamic_update")
def _dynamic_update(host: Bufferizer, op: Op) -> None:
    source, update, *starts = op.operands
    host.place[op.results[0]] = host.buffer_for(op.results[0])
    shape, sizes = Builder.type(source).shape, Builder.type(update).shape

    def run() -> None:
        out = _copied(host, op)
        part = host.materialised(update, host.b)
        body = Block([Value(INDEX, "i") for _ in sizes])
        b = Builder(body)
        index = []
        for i, s, n, m in zip(body.params, starts, shape, sizes):
            index.append(i if n == m else b.op("add", [_start(host, b, s, n - m), i])[0])
        value = b.op("loop.load", [part, *body.params])[0]
        b.op("loop.store", [value, out, *index])
        simd = len(sizes) - 1
        host.b.op("loop.nest", [], [body], dims=sizes, parallel=0, simd=simd)

    host.defer(run, op.operands, op.results, [(source, op.results[0])])


def _start(host: Bufferizer, b: Builder, start: Value, limit: int) -> Value:
    """A start index, known or from memory, as i64 held to 0 .. limit."""
    op = host.makers.get(start)
    if op is not None and op.name == "const":
        return b.const(min(max(int(op.attrs["value"]), 0), limit), I64)
    return _held(b, b.op("loop.load", [host.materialised(start, host.b)])[0], limit)


def _held(b: Builder, at: Value, limit: int) -> Value:
    if at.type != INDEX:
        at = b.op("convert", [at], dtype=I64)[0]
    at = b.op("min", [at, b.const(limit, I64)])[0]
    return b.op("max", [at, b.const(0, I64)])[0]


@_opaque("scatter_add")
def _scatter_add(host: Bufferizer, op: Op) -> None:
    source, where, update = op.operands
    axis, batch = op.attrs["axis"], op.attrs["batch"]
    host.place[op.results[0]] = host.buffer_for(op.results[0])
    limit = Builder.type(source).shape[axis] - 1
    dims = Builder.type(update).shape
    count = Builder.type(where).rank - batch

    def run() -> None:
        out = _copied(host, op)
        places, part = (host.materialised(v, host.b) for v in (where, update))
        if 0 in dims:
            return
        body = Block([Value(INDEX, "i") for _ in dims])
        b = Builder(body)
        index = body.params
        at = b.op("loop.load", [places, *index[:batch], *index[axis : axis + count]])[0]
        value = b.op("loop.load", [part, *index])[0]
        target = [*index[:axis], _held(b, at, limit), *index[axis + count :]]
        b.op("loop.accumulate", [value, out, *target])
        host.b.op("loop.nest", [], [body], dims=dims, parallel=0, simd=-1)

    host.defer(run, op.operands, op.results, [(source, op.results[0])])


# Control flow


def _capture(host: Bufferizer, regions: Sequence[Block]) -> None:
    """Give memory to what regions use of this block; constants they write themselves."""
    for region in regions:
        for v in free_values(region):
            op = host.makers.get(v)
            if op is None or op.name != "const":
                host.materialised(v, host.b)


@_opaque("if", "switch")
def _branches(host: Bufferizer, op: Op) -> None:
    for r in op.results:
        host.place[r] = host.buffer_for(r)
        host.owned.add(r)
    kept = _kept(op)

    def run() -> None:
        selector = host.b.op("loop.load", [host.materialised(op.operands[0], host.b)])[0]
        regions = list(op.regions)
        if op.name == "if":
            regions.reverse()
        index = host.b.op("convert", [selector], dtype=I64)[0]
        _capture(host, regions)
        blocks = []
        for region in regions:
            out = Block()
            _branch(host, host.inner(Builder(out)), region, op, kept)
            blocks.append(out)
        host.b.op("loop.switch", [index], blocks)

    host.defer(
        run, list(dict.fromkeys(used_values(op))), op.results, [(v, r) for r, v in kept.items()]
    )


def _kept(op: Op) -> dict[Value, Value]:
    """For results that a branch leaves as they were before: what they were."""
    kept: dict[Value, Value] = {}
    for region in op.regions:
        outside = set(free_values(region))
        for result, v in zip(op.results, region.results):
            if v in outside and v not in kept.values():
                kept.setdefault(result, v)
    return kept


def _branch(
    host: Bufferizer, inner: Bufferizer, region: Block, op: Op, kept: dict[Value, Value]
) -> None:
    """Write a branch. Results that share the memory of what they were are changed in place."""
    outputs, moving = [], []
    for r in op.results:
        buffer = host.place[r]
        before = kept.get(r)
        if before is not None and host.memory(before) is host.memory(r):
            buffer = inner.alloc(_buffer_type(buffer))
            moving.append((buffer, host.place[before]))
        outputs.append(buffer)
    inner.block(region, outputs, moving)


@_opaque("for")
def _for(host: Bufferizer, op: Op) -> None:
    for r in op.results:
        host.place[r] = host.buffer_for(r)

    def run() -> None:
        (body,) = op.regions
        carries = op.attrs["carries"]
        states = [host.place[r] for r in op.results[:carries]]
        for v, state in zip(op.operands, states):
            host.copy(v, state)
        _capture(host, [body])
        streams = [host.materialised(v, host.b) for v in op.operands[carries:]]
        stacks = [host.place[r] for r in op.results[carries:]]
        if not op.attrs["trips"]:
            return
        out = Block([Value(INDEX, "i")])
        b = Builder(out)
        inner = host.inner(b)
        (i,) = out.params
        counter = inner.alloc(BufferType(I32))
        b.op("loop.store", [b.op("convert", [i], dtype=I32)[0], counter])
        inner.place[body.params[0]] = counter
        inner.carry(body.params[1 : 1 + carries], states)
        for p, stream in zip(body.params[1 + carries :], streams):
            inner.place[p] = b.op("loop.subview", [stream, i])[0]
        rows = [b.op("loop.subview", [stack, i])[0] for stack in stacks]
        _loop_body(inner, body, states, rows)
        host.b.op("loop.for", [], [out], trips=op.attrs["trips"], reverse=op.attrs["reverse"])

    host.defer(
        run, used_values(op), op.results, list(zip(op.operands[: op.attrs["carries"]], op.results))
    )


def _buffer_type(v: Value) -> BufferType:
    assert isinstance(v.type, BufferType)
    return v.type


def _loop_body(
    inner: Bufferizer, body: Block, states: Sequence[Value], rows: Sequence[Value]
) -> None:
    """A loop body: new carries are computed aside, then moved over the old ones."""
    temporaries = [inner.alloc(_buffer_type(s)) for s in states]
    inner.block(body, [*temporaries, *rows], moving=list(zip(temporaries, states)))


@_opaque("while")
def _while(host: Bufferizer, op: Op) -> None:
    for r in op.results:
        host.place[r] = host.buffer_for(r)

    def run() -> None:
        cond, body = op.regions
        states = [host.place[r] for r in op.results]
        for v, state in zip(op.operands, states):
            host.copy(v, state)
        _capture(host, [cond, body])
        limit = op.attrs["max_trips"]
        counter = host.alloc(BufferType(I64))
        host.b.op("loop.store", [host.b.const(0, I64), counter])
        test = Block()
        tb = Builder(test)
        inner = host.inner(tb)
        inner.place.update(zip(cond.params, states))
        flag = inner.alloc(BufferType(BOOL))
        inner.block(cond, [flag])
        alive = tb.op("loop.load", [flag])[0]
        if limit:
            count = tb.op("loop.load", [counter])[0]
            alive = tb.op("and", [alive, tb.op("lt", [count, tb.const(limit, I64)])[0]])[0]
        test.results = [alive]
        out = Block()
        b = Builder(out)
        step = host.inner(b)
        count = b.op("loop.load", [counter])[0]
        b.op("loop.store", [b.op("add", [count, b.const(1, I64)])[0], counter])
        step.carry(body.params, states)
        _loop_body(step, body, states, [])
        host.b.op("loop.while", [], [test, out])

    host.defer(run, used_values(op), op.results, list(zip(op.operands, op.results)))
