"""Algebraic rules of the simplifier, one small function an op.

A rule gets (b, operands, attrs) before the op is written and returns the values that it
equals, or None. Rules are exact: they change no result, NaN, infinities and signed zeros
included (x * 0 stays; x + 0.0 with x = -0.0 gives 0.0 and stays, x + -0.0 goes). Three round
differently: sums taken as one multiplication, as a contraction, and small whole powers as
products; a sum over axes of size 1 may differ in the sign of a zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.builder import Builder
from ..ir.core import Op, Value
from ..ir.opdef import OPS
from ..ir.types import BOOL, F32, F64, I32, I64, DType
from .rewrite_layouts import sink_broadcast, sink_transpose
from .rewrite_table import RULES, Found, Rule, made, rule, shape_of

if TYPE_CHECKING:
    from .simplify import Simplifier


def _elementwise(name: str, special: Rule | None) -> Rule:
    commutes = OPS[name].commutative

    def rule(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
        if commutes and b.splat(xs[0]) is not None and b.splat(xs[1]) is None:
            return b.op(name, [xs[1], xs[0]], **attrs)  # constants stand on the right
        if special is not None:
            found = special(b, xs, attrs)
            if found is not None:
                return found
        return sink_broadcast(b, name, xs, attrs) or sink_transpose(b, name, xs, attrs)

    return rule


def _is(b: Simplifier, v: Value, number: float) -> bool:
    """Whether v is filled with `number`, the sign of zero included."""
    value = b.splat(v)
    if value is None or isinstance(value, bool):
        return False
    return bool(value == number) and math.copysign(1, value) == math.copysign(1, number)


def _add(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    x, y = xs
    if _is(b, y, -0.0 if Builder.type(x).dtype.is_float else 0):
        return [x]
    for one, other in ((x, y), (y, x)):
        negated = made(b, other, "neg")
        if negated is not None:
            return [b.sub(one, negated.operands[0])]
    return None


def _sub(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    x, y = xs
    if _is(b, y, 0.0):
        return [x]
    negated = made(b, y, "neg")
    return [b.add(x, negated.operands[0])] if negated else None


def _mul(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    x, y = xs
    if _is(b, y, 1):
        return [x]
    if _is(b, y, -1):
        return [b.neg(x)]
    if _is(b, y, 0) and not Builder.type(x).dtype.is_float:
        return [y]
    left, right = made(b, x, "neg"), made(b, y, "neg")
    if left is not None and right is not None:
        return [b.mul(left.operands[0], right.operands[0])]
    if left is not None and b.splat(y) is not None:
        return [b.mul(left.operands[0], b.neg(y))]
    return None


def _div(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    x, y = xs
    value = b.splat(y)
    if value is None:
        return None
    if value == 1:
        return [x]
    if _exact_reciprocal(Builder.type(y).dtype, value):
        return [b.mul(x, b.const(1 / value, y))]
    return None


def _exact_reciprocal(dtype: DType, value: float) -> bool:
    """Whether value is a power of two whose reciprocal is a normal number too."""
    if not math.isfinite(value) or abs(math.frexp(value)[0]) != 0.5:
        return False
    limits = np.finfo(dtype.numpy)
    return all(limits.tiny <= abs(v) <= limits.max for v in (value, 1 / value))


WHOLE_POWERS = 4


def _pow(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    x, y = xs
    power = b.splat(y)
    if power is None or not math.isfinite(power) or power != int(power):
        return None
    if power == 0:
        return [b.const(1, x)]
    if not -1 <= power <= WHOLE_POWERS:
        return None
    if power == -1:
        return [b.div(b.const(1, x), x)]
    out = x
    for _ in range(int(power) - 1):
        out = b.mul(out, x)
    return [out]


def _neg(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    inner = made(b, xs[0], "neg")
    if inner is not None:
        return [inner.operands[0]]
    product = made(b, xs[0], "mul")
    if product is not None and b.splat(product.operands[1]) is not None:
        return [b.mul(product.operands[0], b.neg(product.operands[1]))]
    return None


def _select(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    test, x, y = xs
    if x is y:
        return [x]
    known = b.splat(test)
    if known is not None:
        return [x if known else y]
    inverse = made(b, test, "not")
    if inverse is not None:
        return [b.select(inverse.operands[0], y, x)]
    first, second = made(b, x, "select"), made(b, y, "select")
    if first is not None and first.operands[0] is test:
        return [b.select(test, first.operands[1], y)]
    if second is not None and second.operands[0] is test:
        return [b.select(test, x, second.operands[2])]
    if first is not None and first.operands[2] is y:
        return [b.select(b.and_(test, first.operands[0]), first.operands[1], y)]
    return _select_added(b, test, x, y)


def _select_added(b: Simplifier, test: Value, x: Value, y: Value) -> Found:
    """Where one side is the other and something more, that is chosen, or a zero to add.

    The sum is then the same on both sides, and its derivative needs no choice.
    """
    zero = -0.0 if Builder.type(x).dtype.is_float else 0
    for more, base in ((x, y), (y, x)):
        op = made(b, more, "add")
        if op is None or base not in op.operands:
            continue
        extra = op.operands[1] if op.operands[0] is base else op.operands[0]
        sides = (extra, b.const(zero, extra))
        return [b.add(base, b.select(test, *(sides if more is x else sides[::-1])))]
    return None


def _not(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    inner = made(b, xs[0], "not")
    return None if inner is None else [inner.operands[0]]


def _convert(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    (x,) = xs
    source, target = Builder.type(x).dtype, attrs["dtype"]
    if source is target:
        return [x]
    inner = made(b, x, "convert")
    if inner is None:
        return None
    first = Builder.type(inner.operands[0]).dtype
    if first is BOOL or (first, source) in ((F32, F64), (I32, I64), (I32, F64)):
        return [b.convert(inner.operands[0], dtype=target)]  # the step between loses nothing
    return None


def _and_or(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any], unit: bool) -> Found:
    """x and x, x and true, x and false (`unit` is true); the same of or with false."""
    x, y = xs
    if x is y:
        return [x]
    known = b.splat(y)
    if known is None or Builder.type(x).dtype is not BOOL:
        return None
    return [x] if known == unit else [y]


def _same(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    return [xs[0]] if xs[0] is xs[1] else None


_SPECIAL: dict[str, Rule] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "select": _select,
    "convert": _convert,
    "pow": _pow,
    "not": _not,
    "and": lambda b, xs, attrs: _and_or(b, xs, attrs, unit=True),
    "or": lambda b, xs, attrs: _and_or(b, xs, attrs, unit=False),
    "max": _same,
    "min": _same,
}

for _name, _definition in OPS.items():
    if _definition.elementwise:
        RULES[_name] = _elementwise(_name, _SPECIAL.get(_name))


@rule("stop_gradient")
def _stop(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    if made(b, xs[0], "stop_gradient"):
        return [xs[0]]
    return sink_transpose(b, "stop_gradient", xs, attrs)


@rule("reshape")
def _reshape(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    (x,) = xs
    shape = tuple(attrs["shape"])
    if shape_of(x) == shape:
        return [x]
    if b.splat(x) is not None:
        return [b.const(b.splat(x), Builder.type(x).with_shape(shape))]
    inner = made(b, x, "reshape")
    if inner is not None:
        return [b.reshape(inner.operands[0], shape=shape)]
    spread = made(b, x, "broadcast")
    if spread is not None:
        return _reshape_broadcast(b, spread, shape)
    return None


def _reshape_broadcast(b: Simplifier, spread: Op, shape: tuple[int, ...]) -> Found:
    """A reshape that only adds or drops axes of size 1 around a broadcast."""
    old = spread.attrs["shape"]
    if [n for n in old if n != 1] != [n for n in shape if n != 1]:
        return None
    source = spread.operands[0]
    kept = [a for a, n in zip(spread.attrs["axes"], shape_of(source)) if n != 1]
    wide = [i for i, n in enumerate(old) if n != 1]
    new_wide = [i for i, n in enumerate(shape) if n != 1]
    axes = tuple(new_wide[wide.index(a)] for a in kept)
    small = b.reshape(source, shape=tuple(n for n in shape_of(source) if n != 1))
    return [b.broadcast(small, shape=shape, axes=axes)]


@rule("transpose")
def _transpose(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    (x,) = xs
    perm = tuple(attrs["perm"])
    shape = tuple(shape_of(x)[p] for p in perm)
    if b.splat(x) is not None:
        return [b.const(b.splat(x), Builder.type(x).with_shape(shape))]
    wide = [p for p in perm if shape_of(x)[p] != 1]
    if wide == sorted(wide):
        return [b.reshape(x, shape=shape)]
    inner = made(b, x, "transpose")
    if inner is not None:
        return [b.transpose(inner.operands[0], perm=tuple(inner.attrs["perm"][p] for p in perm))]
    spread = made(b, x, "broadcast")
    if spread is not None:
        axes = [perm.index(a) for a in spread.attrs["axes"]]
        order = sorted(range(len(axes)), key=axes.__getitem__)
        small = b.transpose(spread.operands[0], perm=tuple(order))
        return [b.broadcast(small, shape=shape, axes=tuple(sorted(axes)))]
    return None


@rule("broadcast")
def _broadcast(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    (x,) = xs
    shape, axes = tuple(attrs["shape"]), tuple(attrs["axes"])
    if shape_of(x) == shape:
        return [x]
    if b.splat(x) is not None:
        return [b.const(b.splat(x), Builder.type(x).with_shape(shape))]
    inner = made(b, x, "broadcast")
    if inner is not None:
        composed = tuple(axes[a] for a in inner.attrs["axes"])
        return [b.broadcast(inner.operands[0], shape=shape, axes=composed)]
    if 1 in shape_of(x):
        return _broadcast_wide(b, x, shape, axes)
    return None


def _broadcast_wide(b: Simplifier, x: Value, shape: tuple[int, ...], axes: Sequence[int]) -> Found:
    """A broadcast of axes of size 1 names the others only, if a reshape put them there."""
    inner = made(b, x, "reshape")
    wide = tuple(a for a, n in zip(axes, shape_of(x)) if n != 1)
    small = tuple(n for n in shape_of(x) if n != 1)
    if inner is None or shape_of(inner.operands[0]) != small:
        return None
    return [b.broadcast(inner.operands[0], shape=shape, axes=wide)]


@rule("slice")
def _slice(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    (x,) = xs
    start, limit, stride = attrs["start"], attrs["limit"], attrs["stride"]
    if tuple(limit) == shape_of(x) and not any(start) and set(stride) <= {1}:
        return [x]
    shape = tuple(-(-(h - lo) // s) for lo, h, s in zip(start, limit, stride))
    if b.splat(x) is not None:
        return [b.const(b.splat(x), Builder.type(x).with_shape(shape))]
    if 0 in shape:
        return [b.const(0, Builder.type(x).with_shape(shape))]
    inner = made(b, x, "slice")
    if inner is None:
        return None
    first = inner.attrs
    begin = tuple(p + lo * s for p, lo, s in zip(first["start"], start, first["stride"]))
    step = tuple(s * t for s, t in zip(first["stride"], stride))
    end = tuple(lo + (n - 1) * s + 1 for lo, n, s in zip(begin, shape, step))
    return [b.slice(inner.operands[0], start=begin, limit=end, stride=step)]


@rule("reverse")
def _reverse(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    (x,) = xs
    axes = [a for a in attrs["axes"] if shape_of(x)[a] > 1]
    if not axes or b.splat(x) is not None:
        return [x]
    inner = made(b, x, "reverse")
    if inner is None:
        return None
    left = tuple(sorted(set(axes) ^ set(inner.attrs["axes"])))
    return [b.reverse(inner.operands[0], axes=left)]


@rule("concatenate")
def _concatenate(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    axis = attrs["axis"]
    kept = [x for x in xs if shape_of(x)[axis]]
    if len(kept) == 1:
        return [kept[0]]
    return [b.concatenate(*kept, axis=axis)] if kept and len(kept) < len(xs) else None


@rule("pad")
def _pad(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    if not any((*attrs["low"], *attrs["high"], *attrs["interior"])):
        return [xs[0]]
    return None
