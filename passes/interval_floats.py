"""Interval rules of elementwise float ops.

Monotonous functions are taken at the bounds, others by where they turn. Margins in ulps cover
the error of every backend, and that of the bound itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..ir.builder import Builder
from ..ir.core import Op, Value
from ..ir.types import F32
from .boxes import INTERVAL, ROUNDED, Box, Boxes, is_float
from .interval_ints import integer_rule

SERIES = 12  # ulps: functions that backends compute by series of their own
# Those with larger errors on some backend, in f32 and in f64: XLA takes sinh and cosh as
# exp(x - log 2), whose error grows with x, changes series in log1p near -0.4, and computes erfinv
# of f64 near 1 to ten digits.
LARGE = {"sinh": (40, 600), "cosh": (40, 600), "log1p": (24, 200), "atanh": (60, 400)}
LARGE |= {"erfinv": (120, 1_000_000), "tan": (48, 48), "pow": (48, 48)}

Unary = Callable[[Boxes, Op, Box], Box]


def _unary(name: str, rule: Unary) -> None:
    INTERVAL.set(name, lambda w, op: [rule(w, op, w[op.operands[0]])])


def _call(w: Boxes, name: str, *xs: Value) -> Value:
    """The op `name` on new values."""
    (out,) = w.b.op(name, xs)
    assert isinstance(out, Value)
    return out


def margin(name: str, x: Value) -> int:
    """The margin of a function, in ulps, for values of the type of x."""
    small, large = LARGE.get(name, (SERIES, SERIES))
    return small if Builder.type(x).dtype is F32 else large


def _rising(w: Boxes, op: Op, x: Box) -> Box:
    """Of the sign of the argument."""
    lo, hi = _call(w, op.name, x.lo), _call(w, op.name, x.hi)
    positive = op.operands[0] in w.nonnegative
    return w.outward(lo, hi, margin(op.name, lo), nonnegative=positive)


def _rising_above_zero(w: Boxes, op: Op, x: Box) -> Box:
    lo, hi = _call(w, op.name, x.lo), _call(w, op.name, x.hi)
    return w.outward(lo, hi, margin(op.name, lo), nonnegative=True)


for _name in ("expm1", "log1p", "asin", "atan", "sinh", "tanh", "asinh", "atanh", "erf", "erfinv"):
    _unary(_name, _rising)
for _name in ("exp", "sigmoid", "softplus"):
    _unary(_name, _rising_above_zero)


@INTERVAL.register("log")
def _log(w: Boxes, op: Op) -> Sequence[Box]:
    x = w[op.operands[0]]
    return [w.outward(w.b.log(x.lo), w.b.log(x.hi), SERIES, 4)]


@INTERVAL.register("sqrt")
def _sqrt(w: Boxes, op: Op) -> Sequence[Box]:
    x = w[op.operands[0]]
    return [w.outward(w.b.sqrt(x.lo), w.b.sqrt(x.hi), nonnegative=True)]


def _exact(w: Boxes, op: Op, x: Box) -> Box:
    return Box(_call(w, op.name, x.lo), _call(w, op.name, x.hi))


for _name in ("floor", "ceil", "round", "trunc", "sign"):
    _unary(_name, _exact)


@INTERVAL.register("down", "up")
def _outward(w: Boxes, op: Op) -> Sequence[Box]:
    lo, hi = (w.b.op(op.name, [v], **op.attrs)[0] for v in w[op.operands[0]])
    return [w.outward(lo, hi, ROUNDED)]


@INTERVAL.register("stop_gradient")
def _stop(w: Boxes, op: Op) -> Sequence[Box]:
    x = w[op.operands[0]]
    return [Box(w.b.stop_gradient(x.lo), w.b.stop_gradient(x.hi))]


@INTERVAL.register("acos", "erfc")
def _falling(w: Boxes, op: Op) -> Sequence[Box]:
    """Falling, and never negative; acos near 1 and erfc far out lose digits."""
    x = w[op.operands[0]]
    lo, hi = _call(w, op.name, x.hi), _call(w, op.name, x.lo)
    return [w.outward(lo, hi, 4 * SERIES, 16, nonnegative=True)]


@INTERVAL.register("acosh")
def _acosh(w: Boxes, op: Op) -> Sequence[Box]:
    x = w[op.operands[0]]
    return [w.outward(w.b.acosh(x.lo), w.b.acosh(x.hi), SERIES, 4, nonnegative=True)]


@INTERVAL.register("rsqrt")
def _rsqrt(w: Boxes, op: Op) -> Sequence[Box]:
    """Falling; at -0 it is -inf."""
    x = w[op.operands[0]]
    box = w.outward(w.b.rsqrt(x.hi), w.b.rsqrt(w.b.add(x.lo, w.const(0, x.lo))), 6)
    touches = w.contains(x, 0)
    return [Box(w.where(touches, w.const(-math.inf, box.lo), box.lo), box.hi)]


def _number(w: Boxes, op: Op) -> Sequence[Box]:
    """Whether a value is finite: certain where both bounds are."""
    b, x = w.b, w[op.operands[0]]
    certain = b.and_(b.is_finite(x.lo), b.is_finite(x.hi))
    return [Box(certain, w.const(True, certain))]


INTERVAL.set("is_finite", _number)


def _neg(w: Boxes, op: Op, x: Box) -> Box:
    return Box(w.b.neg(x.hi), w.b.neg(x.lo))


def _abs(w: Boxes, op: Op, x: Box) -> Box:
    return x if op.operands[0] in w.nonnegative else w.magnitudes(x)


def _with_ints(name: str, floats: Callable[[Boxes, Op], Sequence[Box]]) -> None:
    """A rule by the dtype of the first operand."""

    def rule(w: Boxes, op: Op) -> Sequence[Box]:
        return floats(w, op) if is_float(op.operands[0]) else integer_rule(w, op)

    INTERVAL.set(name, rule)


_with_ints("neg", lambda w, op: [_neg(w, op, w[op.operands[0]])])
_with_ints("abs", lambda w, op: [_abs(w, op, w[op.operands[0]])])


# Sums and products


def _add(w: Boxes, op: Op) -> Sequence[Box]:
    x, y = (w[v] for v in op.operands)
    positive = all(v in w.nonnegative for v in op.operands)
    return [w.outward(w.b.add(x.lo, y.lo), w.b.add(x.hi, y.hi), nonnegative=positive)]


def _sub(w: Boxes, op: Op) -> Sequence[Box]:
    x, y = (w[v] for v in op.operands)
    return [w.outward(w.b.sub(x.lo, y.hi), w.b.sub(x.hi, y.lo))]


def product(w: Boxes, x: Box, y: Box) -> tuple[Value, Value]:
    """The smallest and the largest product, as they round."""
    products = [w.b.mul(p, q) for p in dict.fromkeys(x) for q in dict.fromkeys(y)]
    return w.least(products), w.most(products)


def _mul(w: Boxes, op: Op) -> Sequence[Box]:
    b = w.b
    if op.operands[0] is op.operands[1]:
        least, most = w.magnitudes(w[op.operands[0]])
        return [w.outward(b.mul(least, least), b.mul(most, most), nonnegative=True)]
    first, second = op.operands
    if first in w.numbers or (first in w.nonnegative and second not in w.numbers):
        first, second = second, first
    x, y = w[first], w[second]
    if second in w.numbers:
        ends = (x.lo, x.hi) if w.numbers[second] >= 0 else (x.hi, x.lo)
        lo, hi = (b.mul(v, y.lo) for v in ends)
    elif second in w.nonnegative and first in w.nonnegative:
        lo, hi = b.mul(x.lo, y.lo), b.mul(x.hi, y.hi)
    elif second in w.nonnegative:
        lo = w.least([b.mul(x.lo, y.lo), b.mul(x.lo, y.hi)])
        hi = w.most([b.mul(x.hi, y.lo), b.mul(x.hi, y.hi)])
    else:
        lo, hi = product(w, x, y)
    positive = first in w.nonnegative and second in w.nonnegative
    return [w.outward(lo, hi, nonnegative=positive)]


def quotient(w: Boxes, x: Box, y: Box) -> Box:
    """x / y: no bound where y may be 0, nothing known where both may be."""
    b = w.b
    quotients = [b.div(p, q) for p in dict.fromkeys(x) for q in dict.fromkeys(y)]
    out = w.outward(w.least(quotients), w.most(quotients))
    zero, both = w.contains(y, 0), b.and_(w.contains(x, 0), w.contains(y, 0))
    lo = w.where(zero, w.const(-math.inf, out.lo), out.lo)
    hi = w.where(zero, w.const(math.inf, out.hi), out.hi)
    return w.unknown(both, Box(lo, hi))


def _div(w: Boxes, op: Op) -> Sequence[Box]:
    x, y = (w[v] for v in op.operands)
    number = w.numbers.get(op.operands[1])
    if number:
        ends = (x.lo, x.hi) if number > 0 else (x.hi, x.lo)
        lo, hi = (w.b.div(v, y.lo) for v in ends)
        return [w.outward(lo, hi)]
    return [quotient(w, x, y)]


INTERVAL.set("div", _div)
for _name, _rule in (("add", _add), ("sub", _sub), ("mul", _mul)):
    _with_ints(_name, _rule)


def _extreme(w: Boxes, op: Op) -> Sequence[Box]:
    x, y = (w[v] for v in op.operands)
    return [Box(_call(w, op.name, x.lo, y.lo), _call(w, op.name, x.hi, y.hi))]


INTERVAL.set("max", _extreme)
INTERVAL.set("min", _extreme)


# Remainders


def whole_quotients(w: Boxes, x: Box, y: Box) -> Box:
    """Bounds of floor(x / y)."""
    q, endless = quotient(w, x, y), _endless(w, x)
    return Box(*(w.b.add(w.b.floor(v), endless) for v in q))


def _floordiv(w: Boxes, op: Op) -> Sequence[Box]:
    x, y = (w[v] for v in op.operands)
    return [whole_quotients(w, x, y)]


def _mod(w: Boxes, op: Op) -> Sequence[Box]:
    """Between 0 and the divisor; x - q y where the divisor is known and q the same all over."""
    b = w.b
    x, y = (w[v] for v in op.operands)
    zero = w.const(0, x.lo)
    wide = Box(b.min(y.lo, zero), b.max(y.hi, zero))
    out = w.unknown(w.contains(y, 0), wide)
    if y.known:
        q = whole_quotients(w, x, y)
        lo, hi = (b.sub(v, b.mul(q.lo, y.lo)) for v in x)
        size = b.mul(w.magnitudes(x).hi, w.units(4, x.lo))
        lo, hi = w.lower(b.sub(lo, size)), w.upper(b.add(hi, size))
        same = b.eq(q.lo, q.hi)
        near = Box(b.max(lo, wide.lo), b.min(hi, wide.hi))
        out = Box(b.select(same, near.lo, out.lo), b.select(same, near.hi, out.hi))
    endless = _endless(w, x)
    return [Box(b.add(out.lo, endless), b.add(out.hi, endless))]


_with_ints("floordiv", _floordiv)
_with_ints("mod", _mod)


# Waves


def _any_whole(w: Boxes, turns: Box, shift: float) -> Value:
    """Whether a whole number plus `shift` may lie in a box; true where nothing is known."""
    b = w.b
    lo, hi = (b.sub(v, w.const(shift, v)) for v in turns)
    none = b.gt(b.ceil(w.lower(lo, 4, 4)), b.floor(w.upper(hi, 4, 4)))
    out: Value = b.not_(none)
    return out


def _turns(w: Boxes, x: Box, period: float) -> Box:
    """A box in units of a period."""
    lo, hi = (w.b.mul(v, w.const(1 / period, v)) for v in x)
    return Box(lo, hi)


def _endless(w: Boxes, x: Box) -> Value:
    """0 for a bounded box, NaN for one without a bound: where x is infinite a wave is NaN."""
    out: Value = w.b.mul(w.b.sub(x.hi, x.lo), w.const(0, x.lo))
    return out


def _wave(name: str, crest: float) -> None:
    """sin or cos, highest at `crest` turns."""

    def rule(w: Boxes, op: Op, x: Box) -> Box:
        b = w.b
        turns, endless = _turns(w, x, 2 * math.pi), _endless(w, x)
        ends = [_call(w, name, v) for v in dict.fromkeys(x)]
        one = w.const(1, x.lo)
        lo = b.max(w.lower(w.least(ends), SERIES, 4), b.neg(one))
        hi = b.min(w.upper(w.most(ends), SERIES, 4), one)
        lo = b.select(_any_whole(w, turns, crest - 0.5), b.neg(one), lo)
        hi = b.select(_any_whole(w, turns, crest), one, hi)
        return Box(b.add(lo, endless), b.add(hi, endless))

    _unary(name, rule)


_wave("sin", 0.25)
_wave("cos", 0.0)


@INTERVAL.register("tan")
def _tan(w: Boxes, op: Op) -> Sequence[Box]:
    """Rising between poles."""
    b, x = w.b, w[op.operands[0]]
    pole = _any_whole(w, _turns(w, x, math.pi), 0.5)
    box = w.outward(b.tan(x.lo), b.tan(x.hi), margin("tan", x.lo), 4)
    endless = _endless(w, x)
    lo = w.where(pole, w.const(-math.inf, box.lo), box.lo)
    hi = w.where(pole, w.const(math.inf, box.hi), box.hi)
    return [Box(b.add(lo, endless), b.add(hi, endless))]


@INTERVAL.register("cosh")
def _cosh(w: Boxes, op: Op) -> Sequence[Box]:
    least, most = w.magnitudes(w[op.operands[0]])
    lo, hi = w.b.cosh(least), w.b.cosh(most)
    return [w.outward(lo, hi, margin("cosh", lo), nonnegative=True)]


@INTERVAL.register("atan2")
def _atan2(w: Boxes, op: Op) -> Sequence[Box]:
    """Largest and smallest at corners, unless the box meets the half line where it jumps."""
    b = w.b
    y, x = (w[v] for v in op.operands)
    corners = [b.atan2(p, q) for p in dict.fromkeys(y) for q in dict.fromkeys(x)]
    box = w.outward(w.least(corners), w.most(corners), SERIES)
    jumps = b.and_(w.contains(y, 0), b.le(x.lo, w.const(0, x.lo)))
    turn = w.const(math.pi * (1 + 1e-6), x.lo)
    return [Box(w.where(jumps, b.neg(turn), box.lo), w.where(jumps, turn, box.hi))]


# Powers


def _pow(w: Boxes, op: Op) -> Sequence[Box]:
    x = w[op.operands[0]]
    power = w.numbers.get(op.operands[1])
    if power is not None and math.isfinite(power) and power == int(power):
        return [_whole_power(w, x, w[op.operands[1]].lo, int(power))]
    b, y = w.b, w[op.operands[1]]
    corners = [b.pow(p, q) for p in dict.fromkeys(x) for q in dict.fromkeys(y)]
    box = w.outward(w.least(corners), w.most(corners), margin("pow", x.lo), nonnegative=True)
    return [w.unknown(b.not_(b.ge(x.lo, w.const(0, x.lo))), box)]


def _whole_power(w: Boxes, x: Box, power: Value, n: int) -> Box:
    """x^n, any sign of x."""
    b = w.b
    if n < 0:
        one = w.const(1, x.lo)
        return quotient(w, Box(one, one), _whole_power(w, x, b.neg(power), -n))
    even = n % 2 == 0
    ends = w.magnitudes(x) if even else x
    lo, hi = (b.pow(v, power) for v in ends)
    return w.outward(lo, hi, margin("pow", lo), nonnegative=even)


INTERVAL.set("pow", _pow)


# Gamma functions

_LOWEST = 1.4616321449683623  # where lgamma is least, and its value there
_LEAST = -0.12148629053584961


@INTERVAL.register("lgamma")
def _lgamma(w: Boxes, op: Op) -> Sequence[Box]:
    """Falling to its lowest point, then rising; no bound where the box leaves x > 0."""
    b, x = w.b, w[op.operands[0]]
    ends = [b.lgamma(v) for v in dict.fromkeys(x)]
    box = w.outward(w.least(ends), w.most(ends), 8 * SERIES, 32)
    lo = w.where(w.contains(x, _LOWEST), w.lower(w.const(_LEAST, x.lo), 8, 32), box.lo)
    positive = b.gt(x.lo, w.const(0, x.lo))
    inf = w.const(math.inf, x.lo)
    return [Box(b.select(positive, lo, b.neg(inf)), b.select(positive, box.hi, inf))]


@INTERVAL.register("digamma", "trigamma")
def _digamma(w: Boxes, op: Op) -> Sequence[Box]:
    """digamma rises and trigamma falls; nothing known where the box leaves x > 0."""
    b, x = w.b, w[op.operands[0]]
    lo, hi = (_call(w, op.name, v) for v in x)
    if op.name == "trigamma":
        lo, hi = hi, lo
    box = w.outward(lo, hi, 8 * SERIES, 32, nonnegative=op.name == "trigamma")
    return [w.unknown(b.not_(b.gt(x.lo, w.const(0, x.lo))), box)]
