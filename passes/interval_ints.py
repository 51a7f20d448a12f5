"""Interval rules of integers, bools, comparisons and conversions.

A bool's bounds are "certainly" and "possibly". Integers wrap: where a bound may, the result is
everything that the type holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ir.builder import Builder
from ..ir.core import Op, Value
from ..ir.opdef import dialect_ops
from ..ir.types import BOOL, F64, I64, DType
from .boxes import INTERVAL, Box, Boxes, NoInterval, is_float, known


def _dtype(v: Value) -> DType:
    return Builder.type(v).dtype


def whole_range(w: Boxes, like: Value) -> Box:
    """Everything that an integer or bool of the type of `like` can be."""
    dtype = _dtype(like)
    if dtype is BOOL:
        return Box(w.const(False, like), w.const(True, like))
    info = np.iinfo(dtype.numpy)
    return Box(w.const(info.min, like), w.const(info.max, like))


def fitting(w: Boxes, box: Box, estimate: Box) -> Box:
    """An integer box, or everything where its bounds, estimated in f64, may have wrapped."""
    b, full = w.b, whole_range(w, box.lo)
    info = np.iinfo(_dtype(box.lo).numpy)
    limit = 2.0**62 if _dtype(box.lo) is I64 else float(info.max)
    least = -limit if _dtype(box.lo) is I64 else float(info.min)
    lo, hi = estimate
    fits = b.and_(b.ge(lo, w.const(least, lo)), b.le(hi, w.const(limit, hi)))
    return Box(b.select(fits, box.lo, full.lo), b.select(fits, box.hi, full.hi))


def _ends(w: Boxes, name: str, x: Box, y: Box) -> Box:
    """The least and the largest sum, difference or product of bounds."""
    b = w.b
    if name == "add":
        return Box(b.add(x.lo, y.lo), b.add(x.hi, y.hi))
    if name == "sub":
        return Box(b.sub(x.lo, y.hi), b.sub(x.hi, y.lo))
    products = [b.mul(p, q) for p in dict.fromkeys(x) for q in dict.fromkeys(y)]
    return Box(w.least(products), w.most(products))


def in_f64(w: Boxes, x: Box) -> Box:
    """Integer bounds as floats."""
    lo = w.b.convert(x.lo, dtype=F64)
    return known(lo) if x.known else Box(lo, w.b.convert(x.hi, dtype=F64))


def integer_rule(w: Boxes, op: Op) -> Sequence[Box]:
    """Arithmetic of integers."""
    b = w.b
    boxes = [w[v] for v in op.operands]
    if op.name in ("add", "sub", "mul"):
        x, y = boxes
        estimate = _ends(w, op.name, in_f64(w, x), in_f64(w, y))
        return [fitting(w, _ends(w, op.name, x, y), estimate)]
    if op.name in ("neg", "abs"):
        (x,) = boxes
        wide = in_f64(w, x)
        if op.name == "neg":
            return [fitting(w, Box(b.neg(x.hi), b.neg(x.lo)), Box(b.neg(wide.hi), b.neg(wide.lo)))]
        if _dtype(x.lo).name == "u32":
            return [x]
        return [fitting(w, w.magnitudes(x), w.magnitudes(wide))]
    return [_division(w, op, *boxes)]


def _division(w: Boxes, op: Op, x: Box, y: Box) -> Box:
    """floordiv and mod: bounds at the ends for a positive divisor, else everything."""
    b, full = w.b, whole_range(w, x.lo)
    zero, one = w.const(0, x.lo), w.const(1, x.lo)
    if op.name == "mod":
        box = Box(zero, b.sub(y.hi, one))
    else:
        quotients = [b.floordiv(p, q) for p in dict.fromkeys(x) for q in dict.fromkeys(y)]
        box = Box(w.least(quotients), w.most(quotients))
    positive = b.gt(y.lo, zero)
    return Box(b.select(positive, box.lo, full.lo), b.select(positive, box.hi, full.hi))


# Comparisons


def _ordered(name: str) -> None:
    """lt, le, gt, ge: certain where the boxes are apart; possible unless they are the other way."""

    def rule(w: Boxes, op: Op) -> Sequence[Box]:
        x, y = (w[v] for v in op.operands)
        if name in ("gt", "ge"):
            x, y = y, x
        strict = name in ("lt", "gt")
        certain = w.b.op("lt" if strict else "le", [x.hi, y.lo])[0]
        impossible = w.b.op("ge" if strict else "gt", [x.lo, y.hi])[0]
        return [Box(certain, w.b.not_(impossible))]

    INTERVAL.set(name, rule)


for _name in ("lt", "le", "gt", "ge"):
    _ordered(_name)


def _equal(w: Boxes, x: Box, y: Box) -> Box:
    """x == y: certain where both are one number, possible where they overlap."""
    b = w.b
    one = b.and_(b.eq(x.lo, x.hi), b.and_(b.eq(y.lo, y.hi), b.eq(x.lo, y.lo)))
    if _dtype(x.lo) is BOOL:
        apart = b.or_(b.and_(x.lo, b.not_(y.hi)), b.and_(y.lo, b.not_(x.hi)))
    else:
        apart = b.or_(b.gt(x.lo, y.hi), b.gt(y.lo, x.hi))
    return Box(one, b.not_(apart))


@INTERVAL.register("eq", "ne")
def _equality(w: Boxes, op: Op) -> Sequence[Box]:
    x, y = (w[v] for v in op.operands)
    if _dtype(x.lo).name == "key":
        raise _random(op)
    box = _equal(w, x, y)
    return [box if op.name == "eq" else Box(w.b.not_(box.hi), w.b.not_(box.lo))]


@INTERVAL.register("select")
def _select(w: Boxes, op: Op) -> Sequence[Box]:
    test, x, y = (w[v] for v in op.operands)
    if _dtype(x.lo).name == "key" and not test.known:
        raise _random(op)
    if test.known:
        return [Box(*(w.b.select(test.lo, p, q) for p, q in zip(x, y)))]
    return [w.choose(test, x, y)]


# Bits


def _logic(name: str, bools: Callable[[Any, Box, Box], Box]) -> None:
    """Logic of bools; of integers nothing is known but the type."""

    def rule(w: Boxes, op: Op) -> Sequence[Box]:
        x, y = (w[v] for v in op.operands)
        if _dtype(x.lo) is not BOOL:
            return [whole_range(w, x.lo)]
        return [bools(w.b, x, y)]

    INTERVAL.set(name, rule)


def _differ(b: Any, x: Box, y: Box) -> Box:
    certain = b.or_(b.and_(x.lo, b.not_(y.hi)), b.and_(y.lo, b.not_(x.hi)))
    possible = b.and_(b.or_(x.hi, y.hi), b.not_(b.and_(x.lo, y.lo)))
    return Box(certain, possible)


_logic("and", lambda b, x, y: Box(b.and_(x.lo, y.lo), b.and_(x.hi, y.hi)))
_logic("or", lambda b, x, y: Box(b.or_(x.lo, y.lo), b.or_(x.hi, y.hi)))
_logic("xor", _differ)


@INTERVAL.register("not")
def _not(w: Boxes, op: Op) -> Sequence[Box]:
    """The complement turns the order of bools, and of integers, round."""
    x = w[op.operands[0]]
    return [Box(w.b.not_(x.hi), w.b.not_(x.lo))]


@INTERVAL.register("shl", "shr")
def _shift(w: Boxes, op: Op) -> Sequence[Box]:
    return [whole_range(w, w[op.operands[0]].lo)]


# Conversions


@INTERVAL.register("convert")
def _convert(w: Boxes, op: Op) -> Sequence[Box]:
    """Rising, but for integers that do not fit, which wrap; NaN gives 0."""
    b, x, target = w.b, w[op.operands[0]], op.attrs["dtype"]
    source = _dtype(x.lo)
    if target is BOOL:
        zero = known(w.const(0, x.lo))
        box = _equal(w, x, zero)
        return [Box(b.not_(box.hi), b.not_(box.lo))]
    lo, hi = (b.convert(v, dtype=target) for v in x)
    if target.is_float:
        exact = source is BOOL or (target is F64 and source is not I64)
        return [Box(lo, hi) if exact else w.outward(lo, hi)]
    if source is BOOL:
        return [Box(lo, hi)]
    if source.is_float:
        full, nothing = whole_range(w, lo), b.or_(b.ne(x.lo, x.lo), b.ne(x.hi, x.hi))
        return [Box(b.select(nothing, full.lo, lo), b.select(nothing, full.hi, hi))]
    return [fitting(w, Box(lo, hi), in_f64(w, x))]


@INTERVAL.register("bitcast")
def _bitcast(w: Boxes, op: Op) -> Sequence[Box]:
    out = op.results[0]
    if is_float(out):
        nan = w.const(float("nan"), Builder.type(out))
        return [Box(nan, w.const(float("nan"), Builder.type(out)))]
    if _dtype(out).name == "key":
        raise _random(op)
    full = whole_range(w, out)
    return [full]


def _random(op: Op) -> NoInterval:
    return NoInterval(
        "a random key that depends on a box has no bounds",
        op.span,
        hint="give the key, or what it is made from, as a point",
    )


@INTERVAL.register("threefry", "key_make", "key_lo", "key_hi")
def _keys(w: Boxes, op: Op) -> Sequence[Box]:
    raise _random(op)


INTERVAL.none("they have no operands, so they stay", "const", "iota")
INTERVAL.none(
    "passes expand it first",
    *("call", "linear_call"),
    *dialect_ops(),
)
