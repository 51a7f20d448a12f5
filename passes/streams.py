"""`xs[i]` in a loop over i becomes a stream, `ys[i] = y` a stacked output.

Streams are cheap to differentiate: their cotangents are stacked, where those of an indexed
array would be a whole array added up in every trip. A carry that is only written row by row
need not be carried, and the loop may become a parallel one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.builder import Builder
from ..ir.clone import Env
from ..ir.core import Block, Function, Module, Op, Value, walk

Makers = dict[Value, Op]


def streams(module: Module) -> Module:
    """Every function with reads and writes at the index of a loop turned to streams.

    Only those that are in bounds in every trip, so that no index is clamped.
    """
    out = Module({}, module.entry)
    for name, f in module.functions.items():
        if not any(op.name == "for" for op in walk(f.body)):
            out.functions[name] = f
            continue
        out.functions[name] = Function(name, _block(f.body, {}, {}), f.span, dict(f.attrs))
    return out


def _block(block: Block, env: Env, makers: Makers) -> Block:
    params = [Value(p.type, p.name) for p in block.params]
    env.update(zip(block.params, params))
    out = Block(params)
    b = Builder(out)
    for op in block.ops:
        regions = tuple(_block(r, env, makers) for r in op.regions)
        operands = tuple(env.get(v, v) for v in op.operands)
        results = tuple(Value(v.type, v.name) for v in op.results)
        new = Op(op.name, operands, op.attrs, regions, results, op.span)
        env.update(zip(op.results, results))
        b.span = op.span
        if op.name == "for" and op.attrs["trips"]:
            new = _Reads(new, b, makers).rewritten()
            _write_stacked(new, b, makers)
        else:
            out.ops.append(new)
        makers.update((r, new) for r in new.results)
    out.results = [env.get(v, v) for v in block.results]
    return out


@dataclass(frozen=True)
class Access:
    """Row first + step * i of `axis` in trip i, in bounds in every trip; step is 1 or -1."""

    axis: int
    first: int
    step: int


def _access(
    starts: Sequence[Value], shape: Sequence[int], sizes: Sequence[int], loop: Op, makers: Makers
) -> Access | None:
    """How a block of `sizes` of an array moves with the loop, if by one row a trip."""
    trips, index = loop.attrs["trips"], loop.regions[0].params[0]
    moving = [i for i, (n, m) in enumerate(zip(shape, sizes)) if n != m]
    if not moving and trips == 1:
        moving = [i for i, s in enumerate(starts) if s is index and sizes[i] == 1][:1]
    if len(moving) != 1 or sizes[moving[0]] != 1:
        return None
    (axis,) = moving
    line = _line(starts[axis], index, makers)
    if line is None:
        return None
    first, step = line
    last = first + step * (trips - 1)
    inside = min(first, last) >= 0 and max(first, last) < shape[axis]
    return Access(axis, first, step) if inside else None


def _line(start: Value, index: Value, makers: Makers) -> tuple[int, int] | None:
    """(first, step) of index, index + c, c + index, index - c or c - index."""
    if start is index:
        return 0, 1
    op = makers.get(start)
    if op is None or op.name not in ("add", "sub"):
        return None
    x, y = op.operands
    if x is index:
        c = _number(y, makers)
        return None if c is None else (c if op.name == "add" else -c, 1)
    c = _number(x, makers)
    if y is not index or c is None:
        return None
    return c, 1 if op.name == "add" else -1


def _number(v: Value, makers: Makers) -> int | None:
    op = makers.get(v)
    if op is None or op.name != "const" or isinstance(op.attrs["value"], np.ndarray):
        return None
    return int(op.attrs["value"])


class _Reads:
    """A loop whose reads at its index, in nested regions too, become streams."""

    def __init__(self, op: Op, b: Builder, makers: Makers) -> None:
        self.op = op
        self.b = b
        self.makers = makers
        (body,) = op.regions
        self.inside = set(body.params) | {r for o in walk(body) for r in o.results}
        self.inside |= {p for o in walk(body) for region in o.regions for p in region.params}
        self.rows: dict[tuple[Value, Access], Value] = {}
        self.arrays: list[Value] = []

    def rewritten(self) -> Op:
        """The loop with its new streams; what prepares them is written before it."""
        (body,) = self.op.regions
        region = self._region(body)
        if not self.arrays:
            return self.op
        region.params = [*body.params, *self.rows.values()]
        operands = (*self.op.operands, *self.arrays)
        return Op("for", operands, self.op.attrs, (region,), self.op.results, self.op.span)

    def _region(self, block: Block) -> Block:
        return Block(block.params, [self._op(op) for op in block.ops], block.results)

    def _op(self, op: Op) -> Op:
        if op.name == "dynamic_slice" and op.operands[0] not in self.inside:
            row = self._row(op)
            if row is not None:
                shape = {"shape": op.attrs["sizes"]}
                return Op("reshape", (row,), shape, (), op.results, op.span)
        if not op.regions:
            return op
        regions = tuple(self._region(r) for r in op.regions)
        return Op(op.name, op.operands, op.attrs, regions, op.results, op.span)

    def _row(self, op: Op) -> Value | None:
        source, *starts = op.operands
        shape = Builder.type(source).shape
        access = _access(starts, shape, op.attrs["sizes"], self.op, self.makers)
        if access is None:
            return None
        key = (source, access)
        if key not in self.rows:
            array = _rows_first(self.b, source, access, self.op.attrs["trips"])
            self.arrays.append(array)
            type = Builder.type(array)
            self.rows[key] = Value(type.with_shape(type.shape[1:]), source.name or "row")
        return self.rows[key]


def _rows_first(b: Any, x: Value, access: Access, trips: int) -> Value:
    """The rows of x that the loop reads, in the order of its index, their axis first."""
    shape, axis = Builder.type(x).shape, access.axis
    if shape[axis] != trips:
        low = min(access.first, access.first + access.step * (trips - 1))
        start = tuple(low if i == axis else 0 for i in range(len(shape)))
        limit = tuple(low + trips if i == axis else n for i, n in enumerate(shape))
        x = b.slice(x, start=start, limit=limit, stride=(1,) * len(shape))
    if access.step < 0:
        x = b.reverse(x, axes=(axis,))
    if axis:
        x = b.transpose(x, perm=(axis, *(i for i in range(len(shape)) if i != axis)))
    return x


def _write_stacked(op: Op, b: Any, makers: Makers) -> None:
    """Append the loop, its carries that are only written row by row turned to outputs."""
    (body,) = op.regions
    n = op.attrs["carries"]
    uses: dict[Value, int] = {}
    for v in [v for o in walk(body) for v in _used(o)] + body.results:
        uses[v] = uses.get(v, 0) + 1
    found = {i: a for i in range(n) if (a := _written_rows(op, i, uses, makers)) is not None}
    if not found:
        b.append(op)
        return
    kept = [i for i in range(n) if i not in found]
    updates = {i: makers[body.results[i]] for i in found}
    ops = [o for o in body.ops if o not in updates.values()]
    region = Block([p for i, p in enumerate(body.params) if i - 1 not in found], ops)
    inner: Any = Builder(region, op.span)
    rows = []
    for i, access in found.items():
        update = updates[i].operands[1]
        shape = Builder.type(update).shape
        row = tuple(m for a, m in enumerate(shape) if a != access.axis)
        rows.append(inner.reshape(update, shape=row))
    region.results = [*(body.results[i] for i in kept), *body.results[n:], *rows]
    carries = (*(op.operands[i] for i in kept), *op.operands[n:])
    stacked = [
        Builder.type(r).with_shape((op.attrs["trips"], *Builder.type(r).shape)) for r in rows
    ]
    fresh = [Value(t, op.results[i].name) for t, i in zip(stacked, found)]
    results = (*(op.results[i] for i in kept), *op.results[n:], *fresh)
    attrs = op.attrs | {"carries": len(kept)}
    b.append(Op("for", carries, attrs, (region,), results, op.span))
    for (i, access), value in zip(found.items(), fresh):
        _place(b, op.operands[i], value, access, op.results[i])


def _used(op: Op) -> list[Value]:
    return [*op.operands, *(v for r in op.regions for v in r.results)]


def _written_rows(op: Op, i: int, uses: dict[Value, int], makers: Makers) -> Access | None:
    """Which row carry i gets in a trip, where that is all that happens to it."""
    (body,) = op.regions
    param, result = body.params[1 + i], body.results[i]
    update = makers.get(result)
    if update is None or update.name != "dynamic_update" or update.operands[0] is not param:
        return None
    if uses.get(param) != 1 or uses.get(result) != 1 or update not in body.ops:
        return None
    new = Builder.type(update.operands[1])
    return _access(update.operands[2:], Builder.type(param).shape, new.shape, op, makers)


def _place(b: Any, init: Value, rows: Value, access: Access, result: Value) -> None:
    """Write the ops that put stacked rows where the carry would have them, as `result`."""
    shape, axis = Builder.type(init).shape, access.axis
    trips = Builder.type(rows).shape[0]
    rank = len(shape)
    if axis:
        rows = b.transpose(rows, perm=(*range(1, axis + 1), 0, *range(axis + 1, rank)))
    if access.step < 0:
        rows = b.reverse(rows, axes=(axis,))
    low = min(access.first, access.first + access.step * (trips - 1))
    parts = [
        _part(b, init, axis, 0, low),
        rows,
        _part(b, init, axis, low + trips, shape[axis]),
    ]
    whole = [p for p in parts if Builder.type(p).size]
    b.append(Op("concatenate", tuple(whole), {"axis": axis}, (), (result,), b.span))


def _part(b: Any, x: Value, axis: int, low: int, high: int) -> Value:
    shape = Builder.type(x).shape
    start = tuple(low if i == axis else 0 for i in range(len(shape)))
    limit = tuple(high if i == axis else n for i, n in enumerate(shape))
    return b.slice(x, start=start, limit=limit, stride=(1,) * len(shape))
