"""Rules of the simplifier for ops that pick elements: indices known now become slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.builder import Builder
from ..ir.core import Op, Value
from ..ir.types import BOOL
from . import rewrite_rules  # noqa: F401  (some rules here stand before rules of that file)
from .rewrite_layouts import inverse
from .rewrite_table import RULES, Found, Rule, made, rule, shape_of

if TYPE_CHECKING:
    from .simplify import Simplifier

MOST_CHECKED = 4096  # elements of a dense constant that are looked at
LARGEST = 2**31 - 1
DEEPEST = 8  # ops that a progression is followed through


@dataclass(frozen=True)
class Progression:
    """The numbers start, start + step, ... of an integer array in row-major order."""

    start: int
    step: int
    count: int

    @property
    def last(self) -> int:
        """The last number."""
        return self.start + self.step * (self.count - 1)

    @property
    def low(self) -> int:
        """The smallest number."""
        return min(self.start, self.last)

    @property
    def high(self) -> int:
        """The largest number."""
        return max(self.start, self.last)


def progression(b: Simplifier, v: Value, depth: int = 0) -> Progression | None:
    """v as an arithmetic progression, where it is one for sure."""
    type, op = Builder.type(v), b.maker(v)
    if not type.dtype.is_int or not type.size or op is None or depth > DEEPEST:
        return None
    if op.name == "const":
        return _constant(op.attrs["value"], type.size)
    if op.name == "iota":
        size = type.shape[op.attrs["axis"]]
        return Progression(0, 1, size) if size == type.size else None
    if op.name in ("reshape", "convert"):
        source = progression(b, op.operands[0], depth + 1)
        return _if_small(source)
    if op.name in ("add", "sub", "mul"):
        found = [progression(b, x, depth + 1) for x in op.operands]
        return _if_small(_combine(op.name, found[0], found[1]))
    return None


def _constant(value: Any, size: int) -> Progression | None:
    if not isinstance(value, np.ndarray):
        return Progression(int(value), 0, size)
    if size > MOST_CHECKED:
        return None
    flat = value.ravel().astype(np.int64)
    step = int(flat[1] - flat[0]) if size > 1 else 0
    if (np.diff(flat) != step).any():
        return None
    return Progression(int(flat[0]), step, size)


def _combine(name: str, x: Progression | None, y: Progression | None) -> Progression | None:
    if x is None or y is None:
        return None
    if name == "mul":
        if x.step:
            x, y = y, x
        return None if x.step else Progression(y.start * x.start, y.step * x.start, x.count)
    sign = 1 if name == "add" else -1
    return Progression(x.start + sign * y.start, x.step + sign * y.step, x.count)


def _if_small(p: Progression | None) -> Progression | None:
    """p unless it leaves the range of i32, where integers would wrap."""
    return p if p is not None and p.low >= -LARGEST and p.high <= LARGEST else None


def _before(name: str, earlier: Rule) -> None:
    """Try `earlier` before the rule that op `name` has."""
    later = RULES[name]

    def both(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
        return earlier(b, xs, attrs) or later(b, xs, attrs)

    RULES[name] = both


def _clamp(b: Simplifier, xs: Sequence[Value], larger: bool) -> Found:
    """max and min of a range and a bound that it keeps to."""
    for x, y in (xs, (xs[1], xs[0])):
        bound, p = b.splat(y), progression(b, x)
        if p is None or bound is None or p.count == 1:
            continue
        if (p.low >= bound) if larger else (p.high <= bound):
            return [x]
    return None


def _compare(b: Simplifier, xs: Sequence[Value], name: str) -> Found:
    """A comparison that the ranges of both sides decide."""
    p, q = (progression(b, x) for x in xs)
    if p is None or q is None:
        return None
    if name in ("gt", "le"):
        p, q = q, p  # p > q is q < p; p <= q is not q < p
    if p.high < q.low:
        less = True
    elif p.low >= q.high:
        less = False
    else:
        return None
    known = less if name in ("lt", "gt") else not less
    return [b.const(known, Builder.type(xs[0]).with_dtype(BOOL))]


_before("max", lambda b, xs, attrs: _clamp(b, xs, larger=True))
_before("min", lambda b, xs, attrs: _clamp(b, xs, larger=False))
_before("lt", lambda b, xs, attrs: _compare(b, xs, "lt"))
_before("le", lambda b, xs, attrs: _compare(b, xs, "le"))
_before("gt", lambda b, xs, attrs: _compare(b, xs, "gt"))
_before("ge", lambda b, xs, attrs: _compare(b, xs, "ge"))


def cut(b: Simplifier, x: Value, axis: int, start: int, limit: int, stride: int = 1) -> Value:
    """x[start:limit:stride] along one axis."""
    shape = shape_of(x)
    low, high, by = [0] * len(shape), list(shape), [1] * len(shape)
    low[axis], high[axis], by[axis] = start, limit, stride
    return b.slice(x, start=tuple(low), limit=tuple(high), stride=tuple(by))


@rule("gather")
def _gather(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    """Evenly spaced indices take a slice."""
    x, index = xs
    axis, p = attrs["axis"], progression(b, index)
    if attrs["batch"] or p is None:
        return None
    size = shape_of(x)[axis]
    if p.step and not (p.low >= 0 and p.high < size):
        return None  # clamped at an end
    if p.step == 0:
        at = min(max(p.start, 0), size - 1)
        return [_repeated(b, cut(b, x, axis, at, at + 1), axis, shape_of(index))]
    part = cut(b, x, axis, p.low, p.high + 1, abs(p.step))
    if p.step < 0:
        part = b.reverse(part, axes=(axis,))
    shape = (*shape_of(x)[:axis], *shape_of(index), *shape_of(x)[axis + 1 :])
    return [b.reshape(part, shape=shape)]


def _repeated(b: Simplifier, part: Value, axis: int, middle: tuple[int, ...]) -> Value:
    """A part of one element along `axis`, that axis replaced by `middle`, repeated there."""
    old = shape_of(part)
    small = b.reshape(part, shape=(*old[:axis], *old[axis + 1 :]))
    shape = (*old[:axis], *middle, *old[axis + 1 :])
    axes = (*range(axis), *range(axis + len(middle), len(shape)))
    return b.broadcast(small, shape=shape, axes=axes)


@rule("dynamic_slice")
def _dynamic_slice(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    """Starts that are known, or have no room to differ."""
    x, *starts = xs
    shape, sizes = shape_of(x), attrs["sizes"]
    begin = [_start(b, s, n - m) for s, n, m in zip(starts, shape, sizes)]
    if any(s is None for s in begin):
        return None
    low = tuple(s for s in begin if s is not None)
    limit = tuple(s + m for s, m in zip(low, sizes))
    return [b.slice(x, start=low, limit=limit, stride=(1,) * len(low))]


def _start(b: Simplifier, start: Value, room: int) -> int | None:
    if room == 0:
        return 0
    known = b.splat(start)
    return None if known is None else min(max(int(known), 0), room)


@rule("dynamic_update")
def _dynamic_update(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    """An update of everything."""
    return [xs[1]] if shape_of(xs[0]) == shape_of(xs[1]) else None


def _slice_of_part(b: Simplifier, joined: Op, attrs: dict[str, Any]) -> Found:
    axis, at = joined.attrs["axis"], 0
    start, limit = attrs["start"][axis], attrs["limit"][axis]
    for part in joined.operands:
        end = at + shape_of(part)[axis]
        if at <= start and limit <= end:
            low, high = list(attrs["start"]), list(attrs["limit"])
            low[axis], high[axis] = start - at, limit - at
            return [b.slice(part, start=tuple(low), limit=tuple(high), stride=attrs["stride"])]
        at = end
    return None


def _slice_of(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    """A slice of a broadcast, of a transpose (there is less to move then), of one part of a
    concatenation, or of the inside of a pad."""
    op = b.maker(xs[0])
    start, limit, stride = attrs["start"], attrs["limit"], attrs["stride"]
    shape = tuple(-(-(h - lo) // s) for lo, h, s in zip(start, limit, stride))
    if op is None or 0 in shape:
        return None
    if op.name == "broadcast":
        kept = op.attrs["axes"]
        ranges = [tuple(side[a] for a in kept) for side in (start, limit, stride)]
        small = b.slice(op.operands[0], start=ranges[0], limit=ranges[1], stride=ranges[2])
        return [b.broadcast(small, shape=shape, axes=kept)]
    if op.name == "transpose" and 2 * math.prod(shape) <= Builder.type(xs[0]).size:
        back = inverse(op.attrs["perm"])
        ranges = [tuple(side[a] for a in back) for side in (start, limit, stride)]
        small = b.slice(op.operands[0], start=ranges[0], limit=ranges[1], stride=ranges[2])
        return [b.transpose(small, perm=op.attrs["perm"])]
    if op.name == "concatenate":
        return _slice_of_part(b, op, attrs)
    if op.name == "pad" and not any(op.attrs["interior"]):
        first, inner = op.attrs["low"], shape_of(op.operands[0])
        low = tuple(s - f for s, f in zip(start, first))
        high = tuple(h - f for h, f in zip(limit, first))
        if all(lo >= 0 for lo in low) and all(h <= n for h, n in zip(high, inner)):
            return [b.slice(op.operands[0], start=low, limit=high, stride=stride)]
    return None


_before("slice", _slice_of)


def _joined(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    """Neighbouring slices of one array that together are a slice of it; nested joins."""
    axis = attrs["axis"]
    flat: list[Value] = []
    for x in xs:
        op = made(b, x, "concatenate")
        flat += op.operands if op is not None and op.attrs["axis"] == axis else [x]
    out: list[Value] = []
    for x in flat:
        merged = _merged(b, out[-1], x, axis) if out else None
        if merged is None:
            out.append(x)
        else:
            out[-1] = merged
    if len(out) == len(xs):
        return None
    return [out[0] if len(out) == 1 else b.concatenate(*out, axis=axis)]


def _merged(b: Simplifier, x: Value, y: Value, axis: int) -> Value | None:
    first, second = made(b, x, "slice"), made(b, y, "slice")
    if first is None or second is None or first.operands[0] is not second.operands[0]:
        return None
    p, q = first.attrs, second.attrs
    others = [i for i in range(len(p["start"])) if i != axis]
    same = all(p[k][i] == q[k][i] for k in ("start", "limit", "stride") for i in others)
    meets = p["stride"][axis] == q["stride"][axis] == 1 and p["limit"][axis] == q["start"][axis]
    if not same or not meets:
        return None
    limit = tuple(q["limit"][i] if i == axis else n for i, n in enumerate(p["limit"]))
    return b.slice(first.operands[0], start=p["start"], limit=limit, stride=p["stride"])


_before("concatenate", _joined)
