"""Interval rules of ops that move, index, reduce and contract elements."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..ir.builder import Builder
from ..ir.core import Op, Value
from ..ir.linalg import free_axes
from ..ir.reductions import identity
from ..ir.types import I32, TensorType
from .boxes import INTERVAL, Box, Boxes, NoInterval, is_float, known
from .interval_floats import product
from .interval_ints import fitting, in_f64

SMALL = 16  # terms of a contraction written out as products, which is tighter


def _shape(v: Value) -> tuple[int, ...]:
    return Builder.type(v).shape


def _both(w: Boxes, op: Op, *boxes: Box) -> Box:
    """The op on the lower bounds and on the upper ones."""
    lo, hi = (w.b.op(op.name, [x[end] for x in boxes], **op.attrs)[0] for end in (0, 1))
    return Box(lo, hi)


@INTERVAL.register("broadcast", "reshape", "transpose", "slice", "reverse", "concatenate", "pad")
def _moved(w: Boxes, op: Op) -> Sequence[Box]:
    return [_both(w, op, *(w[v] for v in op.operands))]


@INTERVAL.register("reduce_max", "reduce_min")
def _extreme(w: Boxes, op: Op) -> Sequence[Box]:
    return [_both(w, op, w[op.operands[0]])]


# Sums: n terms in any order err by n units of the sum of their sizes


def _summed(w: Boxes, op: Op, lo: Value, hi: Value, sizes: Value, terms: int) -> Box:
    """Bounds of a sum of `terms` numbers, whose sizes sum to `sizes`."""
    b = w.b
    margin = b.mul(sizes, w.units(terms + 2, sizes))
    lo, hi = w.lower(b.sub(lo, margin)), w.upper(b.add(hi, margin))
    if op.results[0] in w.nonnegative or all(v in w.nonnegative for v in op.operands):
        lo = b.max(lo, w.const(0, lo))
    return Box(lo, hi)


@INTERVAL.register("reduce_sum", "cumsum")
def _sum(w: Boxes, op: Op) -> Sequence[Box]:
    x = w[op.operands[0]]
    box = _both(w, op, x)
    if not is_float(op.operands[0]):
        return [fitting(w, box, _both(w, op, in_f64(w, x)))]
    shape = _shape(x.lo)
    terms = math.prod(shape[a] for a in op.attrs.get("axes", (op.attrs.get("axis"),)))
    sizes = w.b.op(op.name, [w.magnitudes(x).hi], **op.attrs)[0]
    return [_summed(w, op, box.lo, box.hi, sizes, terms)]


@INTERVAL.register("reduce_prod")
def _prod(w: Boxes, op: Op) -> Sequence[Box]:
    """Halves multiplied until one is left."""
    b, x = w.b, w[op.operands[0]]
    if not is_float(op.operands[0]):
        raise _uncertain(op, "a product of whole numbers")
    shape, axes = _shape(x.lo), op.attrs["axes"]
    kept = tuple(i for i in range(len(shape)) if i not in axes)
    size = math.prod(shape[i] for i in axes)
    flat = (*(shape[i] for i in kept), size)
    if not size:
        return [known(w.const(1, Builder.type(op.results[0])))]

    def part(v: Value, low: int, high: int) -> Value:
        zeros, ones = (0,) * len(kept), (1,) * len(flat)
        out: Value = b.slice(v, start=(*zeros, low), limit=(*flat[:-1], high), stride=ones)
        return out

    x = Box(*(b.reshape(b.transpose(v, perm=kept + tuple(axes)), shape=flat) for v in x))
    while size > 1:
        half = size // 2
        left, right = (Box(*(part(v, *ends) for v in x)) for ends in ((0, half), (half, 2 * half)))
        out = w.outward(*product(w, left, right))
        if size % 2:
            rest = Box(*(part(v, 2 * half, size) for v in x))
            out = Box(*(b.concatenate(p, q, axis=len(kept)) for p, q in zip(out, rest)))
        x, size = out, size - half
    return [Box(*(b.reshape(v, shape=flat[:-1]) for v in x))]


@INTERVAL.register("dot_general")
def _dot(w: Boxes, op: Op) -> Sequence[Box]:
    """Written out where few terms are summed; else by centres and radii (Rump 1999)."""
    b = w.b
    x, y = (w[v] for v in op.operands)
    terms = math.prod(_shape(x.lo)[a] for a in op.attrs["lhs_contract"])
    if not is_float(op.operands[0]):
        raise _uncertain(op, "a sum of whole numbers")
    if terms <= SMALL:
        return [_small_dot(w, op, x, y, terms)]

    def dot(p: Value, q: Value) -> Value:
        out: Value = b.dot_general(p, q, **op.attrs)
        return out

    (cx, rx), (cy, ry) = _centred(w, x), _centred(w, y)
    centre = dot(cx, cy)
    around = dot(b.abs(cx), b.abs(cy))
    radius = w.const(0, centre)
    if ry is not None:
        radius = b.add(radius, dot(b.abs(cx), ry))
    if rx is not None:
        reach = b.abs(cy) if ry is None else b.add(b.abs(cy), ry)
        radius = b.add(radius, dot(rx, reach))
    radius = w.upper(b.mul(radius, w.const(1 + 1e-6, radius)))
    sizes = b.add(around, radius)
    return [_summed(w, op, b.sub(centre, radius), b.add(centre, radius), sizes, 2 * terms)]


def _centred(w: Boxes, x: Box) -> tuple[Value, Value | None]:
    """Centre and radius of a box; a known value has no radius."""
    b = w.b
    if x.known:
        return x.lo, None
    half = w.const(0.5, x.lo)
    centre = b.add(b.mul(x.lo, half), b.mul(x.hi, half))
    return centre, w.upper(b.max(b.sub(x.hi, centre), b.sub(centre, x.lo)))


def _small_dot(w: Boxes, op: Op, x: Box, y: Box, terms: int) -> Box:
    """Products of bounds, then their sum."""
    b, at = w.b, op.attrs
    rank_x, rank_y = len(_shape(x.lo)), len(_shape(y.lo))
    free_x = free_axes(rank_x, at["lhs_batch"], at["lhs_contract"])
    free_y = free_axes(rank_y, at["rhs_batch"], at["rhs_contract"])
    n, p, q = len(at["lhs_batch"]), len(free_x), len(free_y)
    order_x = (*at["lhs_batch"], *free_x, *at["lhs_contract"])
    order_y = (*at["rhs_batch"], *free_y, *at["rhs_contract"])
    sizes_x, sizes_y = _shape(x.lo), _shape(y.lo)
    inner = [sizes_x[i] for i in at["lhs_contract"]]
    shape = [sizes_x[i] for i in order_x[: n + p]] + [sizes_y[i] for i in free_y] + inner
    last = tuple(range(n + p + q, len(shape)))

    def spread(v: Value, order: Sequence[int], axes: tuple[int, ...]) -> Value:
        out: Value = b.broadcast(b.transpose(v, perm=tuple(order)), shape=shape, axes=axes)
        return out

    axes_x = (*range(n + p), *last)
    axes_y = (*range(n), *range(n + p, n + p + q), *last)
    wide_x = Box(*(spread(v, order_x, axes_x) for v in x)) if not x.known else None
    wide_y = Box(*(spread(v, order_y, axes_y) for v in y)) if not y.known else None
    lo, hi = product(
        w,
        wide_x or known(spread(x.lo, order_x, axes_x)),
        wide_y or known(spread(y.lo, order_y, axes_y)),
    )
    sizes = b.reduce_sum(w.magnitudes(Box(lo, hi)).hi, axes=last)
    lo, hi = b.reduce_sum(lo, axes=last), b.reduce_sum(hi, axes=last)
    return _summed(w, op, lo, hi, sizes, terms + 1)


# Order


@INTERVAL.register("argmax", "argmin")
def _arg(w: Boxes, op: Op) -> Sequence[Box]:
    """From the first to the last place that may hold the extreme."""
    b, axis = w.b, op.attrs["axis"]
    x = w[op.operands[0]]
    low, high = (x.lo, x.hi) if op.name == "argmax" else (x.hi, x.lo)
    name, beaten = ("reduce_max", "lt") if op.name == "argmax" else ("reduce_min", "gt")
    best = b.op(name, [low], axes=(axis,))[0]
    shape = _shape(low)
    kept = tuple(i for i in range(len(shape)) if i != axis)
    out = b.op(beaten, [high, b.broadcast(best, shape=shape, axes=kept)])[0]
    places = b.iota(type=TensorType(I32, shape), axis=axis)
    last = w.const(shape[axis] - 1, places)
    first = b.reduce_min(b.select(out, last, places), axes=(axis,))
    return [Box(first, b.reduce_max(b.select(out, w.const(0, places), places), axes=(axis,)))]


@INTERVAL.register("sort")
def _sort(w: Boxes, op: Op) -> Sequence[Box]:
    """The first operand: bounds sorted bound what is sorted. The others may come from anywhere."""
    b, axis = w.b, op.attrs["axis"]
    first = w[op.operands[0]]
    lo, hi = (b.op("sort", [v], axis=axis)[0] for v in first)
    out = [Box(lo, hi)]
    if is_float(op.operands[0]):
        bad = b.or_(b.ne(first.lo, first.lo), b.ne(first.hi, first.hi))
        out = [w.unknown(_along(w, "reduce_max", bad, axis), out[0])]
    for v in op.operands[1:]:
        if Builder.type(v).dtype.name == "key":
            raise _uncertain(op, "an order of random keys")
        x = w[v]
        lo, hi = _along(w, "reduce_min", x.lo, axis), _along(w, "reduce_max", x.hi, axis)
        out.append(Box(lo, hi))
    return out


def _along(w: Boxes, name: str, v: Value, axis: int) -> Value:
    """A reduction along an axis, repeated along it."""
    shape = _shape(v)
    kept = tuple(i for i in range(len(shape)) if i != axis)
    out: Value = w.b.broadcast(w.b.op(name, [v], axes=(axis,))[0], shape=shape, axes=kept)
    return out


# Places that depend on the box


@INTERVAL.register("gather")
def _gather(w: Boxes, op: Op) -> Sequence[Box]:
    x, index = (w[v] for v in op.operands)
    if index.known:
        return [Box(*(w.b.gather(v, index.lo, **op.attrs) for v in x))]
    return [_gather_any(w, x, index, op.attrs["axis"], op.attrs["batch"])]


def _gather_any(w: Boxes, x: Box, index: Box, axis: int, batch: int) -> Box:
    """Elements along `axis` at indices that are only bounded: the hull of all between.

    Every element is compared with every index: axes are batch, those before `axis`, the index's
    own, those behind, and the reduced one at the end.
    """
    b = w.b
    source, where = _shape(x.lo), _shape(index.lo)
    n, own = source[axis], len(where) - batch
    shape = (*source[:axis], *where[batch:], *source[axis + 1 :], n)
    last = len(shape) - 1
    moved = (*(i for i in range(len(source)) if i != axis), axis)
    axes = (*range(axis), *range(axis + own, last), last)
    spread = [b.broadcast(b.transpose(v, perm=moved), shape=shape, axes=axes) for v in x]
    dtype = Builder.type(index.lo).dtype
    places = b.iota(type=TensorType(dtype, shape), axis=last)
    spots = (*range(batch), *range(axis, axis + own))
    top, zero = w.const(n - 1, index.lo), w.const(0, index.lo)
    ends = [
        b.broadcast(b.max(b.min(v, top), zero), shape=shape, axes=spots)
        for v in (index.lo, index.hi)
    ]
    inside = b.and_(b.ge(places, ends[0]), b.le(places, ends[1]))
    kind = Builder.type(x.lo).dtype
    least, most = (w.const(identity(k, kind), spread[0]) for k in ("min", "max"))
    lo = b.reduce_min(b.select(inside, spread[0], least), axes=(last,))
    return Box(lo, b.reduce_max(b.select(inside, spread[1], most), axes=(last,)))


@INTERVAL.register("dynamic_slice")
def _dynamic_slice(w: Boxes, op: Op) -> Sequence[Box]:
    """Axis by axis where a start is uncertain."""
    b = w.b
    x, *starts = (w[v] for v in op.operands)
    if all(s.known for s in starts):
        return [Box(*(b.dynamic_slice(v, *(s.lo for s in starts), **op.attrs) for v in x))]
    for axis, (start, size) in enumerate(zip(starts, op.attrs["sizes"])):
        n = _shape(x.lo)[axis]
        if size == n:
            continue
        top, zero = w.const(n - size, start.lo), w.const(0, start.lo)
        line = b.iota(type=TensorType(Builder.type(start.lo).dtype, (size,)), axis=0)
        held = [b.max(b.min(v, top), zero) for v in start]
        window = Box(*(b.add(b.broadcast(v, shape=(size,), axes=()), line) for v in held))
        x = _gather_any(w, x, window, axis, 0)
    return [x]


@INTERVAL.register("dynamic_update")
def _dynamic_update(w: Boxes, op: Op) -> Sequence[Box]:
    """With uncertain places an element may stay, or become any of the update's."""
    b = w.b
    x, update, *starts = (w[v] for v in op.operands)
    if all(s.known for s in starts):
        places = [s.lo for s in starts]
        return [Box(*(b.dynamic_update(p, q, *places) for p, q in zip(x, update)))]
    shape = _shape(x.lo)
    axes = tuple(range(len(shape)))
    lo, hi = b.reduce_min(update.lo, axes=axes), b.reduce_max(update.hi, axes=axes)
    return [w.hull(x, Box(*(b.broadcast(v, shape=shape, axes=()) for v in (lo, hi))))]


@INTERVAL.register("scatter_add")
def _scatter_add(w: Boxes, op: Op) -> Sequence[Box]:
    b = w.b
    x, index, update = (w[v] for v in op.operands)
    if not index.known or not is_float(op.operands[0]):
        raise _uncertain(op, "a sum at places that depend on the box")
    lo, hi = (b.scatter_add(p, index.lo, q, **op.attrs) for p, q in zip(x, update))
    sizes = [w.magnitudes(v).hi for v in (x, update)]
    total = b.scatter_add(sizes[0], index.lo, sizes[1], **op.attrs)
    terms = math.prod(_shape(index.lo)[op.attrs["batch"] :]) + 1
    return [_summed(w, op, lo, hi, total, terms)]


@INTERVAL.register("cholesky", "triangular_solve")
def _factor(w: Boxes, op: Op) -> Sequence[Box]:
    raise _uncertain(op, f"{op.name} of a matrix")


def _uncertain(op: Op, what: str) -> NoInterval:
    return NoInterval(
        f"{what} that depends on a box has no bounds",
        op.span,
        hint="let only the parameters be boxes that it does not depend on",
    )
