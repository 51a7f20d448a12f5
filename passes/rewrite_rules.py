"""Algebraic rules of the simplifier, one small function an op.

A rule gets (b, operands, attrs) before the op is written and returns the values that it
equals, or None. Rules are exact: they change no result, NaN, infinities and signed zeros
included (x * 0 stays; x + 0.0 with x = -0.0 gives 0.0 and stays, x + -0.0 goes).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..ir.builder import Builder
from ..ir.core import Op, Value
from ..ir.opdef import OPS

if TYPE_CHECKING:
    from .simplify import Simplifier

Found = Sequence[Value] | None
Rule = Callable[["Simplifier", Sequence[Value], dict[str, Any]], Found]
RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        for name in names:
            RULES[name] = rule
        return rule

    return add


def _made(b: Simplifier, v: Value, name: str) -> Op | None:
    op = b.maker(v)
    return op if op is not None and op.name == name else None


def _shape(v: Value) -> tuple[int, ...]:
    return Builder.type(v).shape


def sink_broadcast(b: Simplifier, name: str, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    """f(broadcast(x), broadcast(y)) as broadcast(f(x, y)): fewer elements are computed."""
    shape = _shape(xs[0])
    if not shape:
        return None
    axes: tuple[int, ...] | None = None
    for x in xs:
        op = _made(b, x, "broadcast")
        if op is not None and (axes is None or op.attrs["axes"] == axes):
            axes = op.attrs["axes"]
        elif b.splat(x) is None:
            return None
    if axes is None:
        return None
    small = tuple(shape[a] for a in axes)
    inner = []
    for x in xs:
        op = _made(b, x, "broadcast")
        if op is not None:
            inner.append(op.operands[0])
        else:
            inner.append(b.const(b.splat(x), Builder.type(x).with_shape(small)))
    (out,) = b.op(name, inner, **attrs)
    return [b.broadcast(out, shape=shape, axes=axes)]


def _elementwise(name: str, special: Rule | None) -> Rule:
    def rule(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
        if special is not None:
            found = special(b, xs, attrs)
            if found is not None:
                return found
        return sink_broadcast(b, name, xs, attrs)

    return rule


def _is(b: Simplifier, v: Value, number: float) -> bool:
    """Whether v is filled with `number`, the sign of zero included."""
    value = b.splat(v)
    if value is None or isinstance(value, bool):
        return False
    return bool(value == number) and math.copysign(1, value) == math.copysign(1, number)


def _add(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    x, y = xs
    floats = Builder.type(x).dtype.is_float
    for one, other in ((x, y), (y, x)):
        if _is(b, other, -0.0 if floats else 0):
            return [one]
    negated = _made(b, y, "neg")
    return [b.sub(x, negated.operands[0])] if negated else None


def _sub(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    x, y = xs
    if _is(b, y, 0.0):
        return [x]
    negated = _made(b, y, "neg")
    return [b.add(x, negated.operands[0])] if negated else None


def _mul(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    x, y = xs
    for one, other in ((x, y), (y, x)):
        if _is(b, other, 1):
            return [one]
        if _is(b, other, -1):
            return [b.neg(one)]
    # Constants go right and meet: (x * c) * d = x * (c d) only where that is exact.
    if b.splat(x) is not None and b.splat(y) is None:
        return [b.mul(y, x)]
    return None


def _div(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    x, y = xs
    value = b.splat(y)
    if value == 1:
        return [x]
    if (
        isinstance(value, float)
        and value
        and math.isfinite(value)
        and abs(math.frexp(value)[0]) == 0.5
    ):
        return [b.mul(x, b.const(1 / value, y))]  # a power of two: exact
    return None


def _neg(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    inner = _made(b, xs[0], "neg")
    if inner is not None:
        return [inner.operands[0]]
    return None


def _select(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    test, x, y = xs
    if x is y:
        return [x]
    known = b.splat(test)
    return None if known is None else [x if known else y]


def _convert(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    return [xs[0]] if Builder.type(xs[0]).dtype is attrs["dtype"] else None


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
    "and": _same,
    "or": _same,
    "max": _same,
    "min": _same,
}

for _name, _definition in OPS.items():
    if _definition.elementwise:
        RULES[_name] = _elementwise(_name, _SPECIAL.get(_name))


@_rule("stop_gradient")
def _stop(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    return [xs[0]] if _made(b, xs[0], "stop_gradient") else None


@_rule("reshape")
def _reshape(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    (x,) = xs
    shape = tuple(attrs["shape"])
    if _shape(x) == shape:
        return [x]
    if b.splat(x) is not None:
        return [b.const(b.splat(x), Builder.type(x).with_shape(shape))]
    inner = _made(b, x, "reshape")
    if inner is not None:
        return [b.reshape(inner.operands[0], shape=shape)]
    spread = _made(b, x, "broadcast")
    if spread is not None:
        return _reshape_broadcast(b, spread, shape)
    return None


def _reshape_broadcast(b: Simplifier, spread: Op, shape: tuple[int, ...]) -> Found:
    """A reshape that only adds or drops axes of size 1 around a broadcast."""
    old = spread.attrs["shape"]
    if [n for n in old if n != 1] != [n for n in shape if n != 1]:
        return None
    source = spread.operands[0]
    kept = [a for a, n in zip(spread.attrs["axes"], _shape(source)) if n != 1]
    wide = [i for i, n in enumerate(old) if n != 1]
    new_wide = [i for i, n in enumerate(shape) if n != 1]
    axes = tuple(new_wide[wide.index(a)] for a in kept)
    small = b.reshape(source, shape=tuple(n for n in _shape(source) if n != 1))
    return [b.broadcast(small, shape=shape, axes=axes)]


@_rule("transpose")
def _transpose(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    (x,) = xs
    perm = tuple(attrs["perm"])
    if perm == tuple(range(len(perm))):
        return [x]
    if b.splat(x) is not None:
        return [b.const(b.splat(x), Builder.type(x).with_shape(tuple(_shape(x)[p] for p in perm)))]
    inner = _made(b, x, "transpose")
    if inner is not None:
        return [b.transpose(inner.operands[0], perm=tuple(inner.attrs["perm"][p] for p in perm))]
    spread = _made(b, x, "broadcast")
    if spread is not None:
        axes = [perm.index(a) for a in spread.attrs["axes"]]
        if axes == sorted(axes):
            shape = tuple(spread.attrs["shape"][p] for p in perm)
            return [b.broadcast(spread.operands[0], shape=shape, axes=tuple(axes))]
    return None


@_rule("broadcast")
def _broadcast(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    (x,) = xs
    shape, axes = tuple(attrs["shape"]), tuple(attrs["axes"])
    if _shape(x) == shape:
        return [x]
    if b.splat(x) is not None:
        return [b.const(b.splat(x), Builder.type(x).with_shape(shape))]
    inner = _made(b, x, "broadcast")
    if inner is not None:
        composed = tuple(axes[a] for a in inner.attrs["axes"])
        return [b.broadcast(inner.operands[0], shape=shape, axes=composed)]
    return None


@_rule("slice")
def _slice(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    (x,) = xs
    start, limit, stride = attrs["start"], attrs["limit"], attrs["stride"]
    if tuple(limit) == _shape(x) and not any(start) and set(stride) <= {1}:
        return [x]
    shape = tuple(-(-(h - lo) // s) for lo, h, s in zip(start, limit, stride))
    if b.splat(x) is not None:
        return [b.const(b.splat(x), Builder.type(x).with_shape(shape))]
    inner = _made(b, x, "slice")
    if inner is None:
        return None
    first = inner.attrs
    begin = tuple(p + lo * s for p, lo, s in zip(first["start"], start, first["stride"]))
    step = tuple(s * t for s, t in zip(first["stride"], stride))
    end = tuple(lo + max(0, n - 1) * s + (n > 0) for lo, n, s in zip(begin, shape, step))
    return [b.slice(inner.operands[0], start=begin, limit=end, stride=step)]


@_rule("reverse")
def _reverse(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    return [xs[0]] if not attrs["axes"] or b.splat(xs[0]) is not None else None


@_rule("concatenate")
def _concatenate(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    axis = attrs["axis"]
    kept = [x for x in xs if _shape(x)[axis]]
    if len(kept) == 1:
        return [kept[0]]
    return [b.concatenate(*kept, axis=axis)] if kept and len(kept) < len(xs) else None


@_rule("pad")
def _pad(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    if not any((*attrs["low"], *attrs["high"], *attrs["interior"])):
        return [xs[0]]
    return None


@_rule("reduce_sum")
def _reduce_sum(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    (x,) = xs
    axes = tuple(attrs["axes"])
    if not axes:
        return [x]
    inner = _made(b, x, "reduce_sum")
    if inner is not None:
        rank = len(_shape(inner.operands[0]))
        left = [i for i in range(rank) if i not in inner.attrs["axes"]]
        joined = tuple(sorted((*inner.attrs["axes"], *(left[a] for a in axes))))
        return [b.reduce_sum(inner.operands[0], axes=joined)]
    return _sum_of_broadcast(b, x, axes)


def _sum_of_broadcast(b: Simplifier, x: Value, axes: tuple[int, ...]) -> Found:
    """Summing over axes that a broadcast made multiplies by their size."""
    spread = _made(b, x, "broadcast")
    value = b.splat(x)
    type = Builder.type(x)
    if spread is None or value is not None:
        return None
    new = [a for a in axes if a not in spread.attrs["axes"]]
    if not new:
        return None
    count = math.prod(type.shape[a] for a in new)
    kept = [i for i in range(type.rank) if i not in new]
    shape = tuple(type.shape[i] for i in kept)
    axes_in = tuple(kept.index(a) for a in spread.attrs["axes"])
    small = b.broadcast(spread.operands[0], shape=shape, axes=axes_in)
    scaled = b.mul(small, b.const(count, small))
    rest = tuple(kept.index(a) for a in axes if a not in new)
    return [b.reduce_sum(scaled, axes=rest)]


@_rule("reduce_max", "reduce_min", "reduce_prod")
def _reduce_none(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    return [xs[0]] if not attrs["axes"] else None


@_rule("dot_general")
def _dot(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    """A transposed operand: the axes it permutes are named where they come from instead."""
    operands = list(xs)
    new = dict(attrs)
    changed = False
    for i, side in enumerate(("lhs", "rhs")):
        op = _made(b, operands[i], "transpose")
        if op is None:
            continue
        perm = op.attrs["perm"]
        free = [
            perm[a]
            for a in range(len(perm))
            if a not in attrs[f"{side}_batch"] and a not in attrs[f"{side}_contract"]
        ]
        if free != sorted(free):
            continue  # the free axes must keep their order, which is the result's
        operands[i] = op.operands[0]
        for kind in ("batch", "contract"):
            new[f"{side}_{kind}"] = tuple(perm[a] for a in attrs[f"{side}_{kind}"])
        changed = True
    return [b.dot_general(*operands, **new)] if changed else None


@_rule("gather")
def _gather(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    """Counting indices take everything in order."""
    index = _made(b, xs[1], "iota")
    if index is None or attrs["batch"] or len(_shape(xs[1])) != 1:
        return None
    return [xs[0]] if _shape(xs[1])[0] == _shape(xs[0])[attrs["axis"]] else None
