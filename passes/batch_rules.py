"""Batching rules of the array ops: how each takes a new first axis."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.builder import Builder
from ..ir.core import Op, Value
from ..ir.opdef import OPS
from ..ir.types import I32, TensorType
from .batcher import BATCH, Batcher


def _rank(v: Value) -> int:
    return Builder.type(v).rank


def _elementwise(w: Batcher, op: Op) -> Sequence[Value]:
    return w.b.op(op.name, [w.wide(v) for v in op.operands], **op.attrs)


for _name, _definition in OPS.items():
    if _definition.elementwise:
        BATCH.set(_name, _elementwise)


@BATCH.register("broadcast")
def _broadcast(w: Batcher, op: Op) -> Sequence[Value]:
    axes = (0, *(a + 1 for a in op.attrs["axes"]))
    shape = (w.size, *op.attrs["shape"])
    return [w.b.broadcast(w.value(op.operands[0]), shape=shape, axes=axes)]


@BATCH.register("reshape")
def _reshape(w: Batcher, op: Op) -> Sequence[Value]:
    return [w.b.reshape(w.value(op.operands[0]), shape=(w.size, *op.attrs["shape"]))]


@BATCH.register("transpose")
def _transpose(w: Batcher, op: Op) -> Sequence[Value]:
    perm = (0, *(p + 1 for p in op.attrs["perm"]))
    return [w.b.transpose(w.value(op.operands[0]), perm=perm)]


@BATCH.register("slice")
def _slice(w: Batcher, op: Op) -> Sequence[Value]:
    start, limit = (0, *op.attrs["start"]), (w.size, *op.attrs["limit"])
    stride = (1, *op.attrs["stride"])
    return [w.b.slice(w.value(op.operands[0]), start=start, limit=limit, stride=stride)]


@BATCH.register("reverse", "reduce_sum", "reduce_max", "reduce_min", "reduce_prod")
def _axes(w: Batcher, op: Op) -> Sequence[Value]:
    axes = tuple(a + 1 for a in op.attrs["axes"])
    return w.b.op(op.name, [w.value(op.operands[0])], axes=axes)


@BATCH.register("argmax", "argmin", "cumsum", "concatenate", "sort")
def _axis(w: Batcher, op: Op) -> Sequence[Value]:
    attrs = op.attrs | {"axis": op.attrs["axis"] + 1}
    return w.b.op(op.name, [w.wide(v) for v in op.operands], **attrs)


@BATCH.register("cholesky", "triangular_solve")
def _stacked(w: Batcher, op: Op) -> Sequence[Value]:
    return _elementwise(w, op)


@BATCH.register("pad")
def _pad(w: Batcher, op: Op) -> Sequence[Value]:
    x, fill = op.operands
    attrs = {k: (0, *op.attrs[k]) for k in ("low", "high", "interior")}
    if not w.has(fill):
        return [w.b.pad(w.wide(x), w.value(fill), **attrs)]
    zero = w.b.const(0, Builder.type(fill).dtype)
    placed = w.b.pad(w.wide(x), zero, **attrs)
    ones = w.b.const(1, TensorType(I32, (w.size, *Builder.type(x).shape)))
    inside = w.b.pad(ones, w.b.const(0, I32), **attrs)
    shape = Builder.type(placed).shape
    around = w.b.broadcast(w.value(fill), shape=shape, axes=(0,))
    return [w.b.select(w.b.ne(inside, w.b.const(0, inside)), placed, around)]


def take(w: Batcher, x: Value, has_x: bool, index: Value, has_index: bool, axis: int) -> Value:
    """gather of new values along `axis` (counted without the batch axis), batch axis first."""
    b = w.b
    if has_x and has_index:
        return b.gather(x, index, axis=axis + 1, batch=1)
    if has_x:
        return b.gather(x, index, axis=axis + 1, batch=0)
    out = b.gather(x, index, axis=axis, batch=0)
    rank = _rank(out)
    return b.transpose(out, perm=(axis, *(i for i in range(rank) if i != axis)))


@BATCH.register("gather")
def _gather(w: Batcher, op: Op) -> Sequence[Value]:
    x, index = op.operands
    axis, batch = op.attrs["axis"], op.attrs["batch"]
    if batch == 0:
        return [take(w, w.value(x), w.has(x), w.value(index), w.has(index), axis)]
    return [w.b.gather(w.wide(x), w.wide(index), axis=axis + 1, batch=batch + 1)]


@BATCH.register("scatter_add")
def _scatter_add(w: Batcher, op: Op) -> Sequence[Value]:
    attrs = {"axis": op.attrs["axis"] + 1, "batch": op.attrs["batch"] + 1}
    return [w.b.scatter_add(*(w.wide(v) for v in op.operands), **attrs)]


def _clamped(w: Batcher, start: Value, limit: int) -> Value:
    """A new start index (batched or not) held to 0 .. limit."""
    b = w.b
    return b.max(b.min(start, b.const(limit, start)), b.const(0, start))


@BATCH.register("dynamic_slice")
def _dynamic_slice(w: Batcher, op: Op) -> Sequence[Value]:
    x, *starts = op.operands
    sizes, shape = op.attrs["sizes"], Builder.type(x).shape
    new, has = w.value(x), w.has(x)
    if not any(w.has(s) for s in starts):
        zero = w.b.const(0, I32)
        fixed = [w.value(s) for s in starts]
        return [w.b.dynamic_slice(new, zero, *fixed, sizes=(w.size, *sizes))]
    for axis, (start, size) in enumerate(zip(starts, sizes)):
        if size == shape[axis]:
            continue
        first = _clamped(w, w.value(start), shape[axis] - size)
        index = _window(w, first, w.has(start), size)
        if has or w.has(start):
            new, has = take(w, new, has, index, w.has(start), axis), True
        else:
            new = w.b.gather(new, index, axis=axis, batch=0)
    return [new if has else w.spread(new)]


def _window(w: Batcher, first: Value, has: bool, size: int) -> Value:
    """Indices first, first + 1, ...: `[size]`, or `[batch, size]` for a batched start."""
    shape = (w.size, size) if has else (size,)
    type = TensorType(Builder.type(first).dtype, shape)
    line = w.b.iota(type=type, axis=len(shape) - 1)
    return w.b.add(w.b.broadcast(first, shape=shape, axes=(0,) if has else ()), line)


@BATCH.register("dynamic_update")
def _dynamic_update(w: Batcher, op: Op) -> Sequence[Value]:
    x, update, *starts = op.operands
    if not any(w.has(s) for s in starts):
        zero = w.b.const(0, I32)
        fixed = [w.value(s) for s in starts]
        return [w.b.dynamic_update(w.wide(x), w.wide(update), zero, *fixed)]
    b, old = w.b, w.wide(x)
    shape, sizes = Builder.type(x).shape, Builder.type(update).shape
    new: Value = w.wide(update)
    inside: Value | None = None
    for axis, (start, size) in enumerate(zip(starts, sizes)):
        if size == shape[axis]:
            continue
        first = _clamped(w, w.value(start), shape[axis] - size)
        has = w.has(start)
        spots = (w.size, shape[axis]) if has else (shape[axis],)
        type = TensorType(Builder.type(first).dtype, spots)
        places = b.iota(type=type, axis=len(spots) - 1)
        offset = b.sub(places, b.broadcast(first, shape=spots, axes=(0,) if has else ()))
        hit = b.and_(b.ge(offset, b.const(0, offset)), b.lt(offset, b.const(size, offset)))
        new = take(w, new, True, _clamped(w, offset, size - 1), has, axis)
        axes = (0, axis + 1) if has else (axis + 1,)
        wide = b.broadcast(hit, shape=(w.size, *shape), axes=axes)
        inside = wide if inside is None else b.and_(inside, wide)
    return [new if inside is None else b.select(inside, new, old)]


@BATCH.register("dot_general")
def _dot(w: Batcher, op: Op) -> Sequence[Value]:
    x, y = op.operands
    la, lb, ca, cb = (
        op.attrs[k] for k in ("lhs_batch", "rhs_batch", "lhs_contract", "rhs_contract")
    )

    def up(axes: Sequence[int], has: bool) -> tuple[int, ...]:
        return tuple(a + 1 for a in axes) if has else tuple(axes)

    hx, hy = w.has(x), w.has(y)
    both = (0,) if hx and hy else ()
    out = w.b.dot_general(
        w.value(x),
        w.value(y),
        lhs_batch=both + up(la, hx),
        rhs_batch=both + up(lb, hy),
        lhs_contract=up(ca, hx),
        rhs_contract=up(cb, hy),
    )
    if both:
        return [out]
    # One side is mapped: its axis is the first of that side's free axes.
    at = len(la) if hx else _rank(out) - (_rank(w.value(y)) - len(lb) - len(cb))
    if not at:
        return [out]
    return [w.b.transpose(out, perm=(at, *(i for i in range(_rank(out)) if i != at)))]


BATCH.none("it has no operand that could be mapped", "const", "iota")
