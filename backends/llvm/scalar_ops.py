"""One emission rule an elementwise op: LLVM values in, LLVM value out, any number of lanes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import llvmlite.ir as ll
import numpy as np

from ...ir.opdef import RuleTable
from ...ir.threefry import PARITY, ROTATIONS
from ...ir.types import BOOL, KEY, U32, DType
from .elementary import LIBM, TRIG_MOST, VECTOR, libm
from .lanes import INT32, INT64, REGISTER, Num, constant, intrinsic, lanes_of, vector

# (builder, operand dtype, attributes, operands) -> value
Rule = Callable[..., Any]
EMIT: RuleTable[Rule] = RuleTable("llvm emission")


def _unary_float(name: str, function: Callable[[Num], Num]) -> None:
    EMIT.set(name, lambda b, t, attrs, x: function(Num(b, x)).value)


for _name, _function in VECTOR.items():
    if _name not in ("sin", "cos"):
        _unary_float(_name, _function)
for _name in LIBM:
    EMIT.set(_name, lambda b, t, attrs, *xs, name=_name: libm(b, name, *xs))


def _trig(name: str) -> Rule:
    """Our series for moderate arguments; the C library where a lane is huge."""

    def rule(b: ll.IRBuilder, t: DType, attrs: Any, x: Any) -> Any:
        value = Num(b, x)
        out = VECTOR[name](value).value
        large = b.fcmp_unordered(">", value.call("fabs").value, constant(x, TRIG_MOST[value.wide]))
        any_large = large
        if lanes_of(x):
            any_large = intrinsic(b, "vector.reduce.or", ll.IntType(1), large)
        start = b.block
        with b.if_then(any_large, likely=False):
            slow = libm(b, name, x)
            slow = b.select(large, slow, out)
            end = b.block
        phi = b.phi(x.type)
        phi.add_incoming(out, start)
        phi.add_incoming(slow, end)
        return phi

    return rule


EMIT.set("sin", _trig("sin"))
EMIT.set("cos", _trig("cos"))


def _intrinsic(name: str, llvm_name: str) -> None:
    EMIT.set(name, lambda b, t, attrs, x: intrinsic(b, llvm_name, x.type, x))


for _name, _llvm in {
    "sqrt": "sqrt",
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "round": "rint",
}.items():
    _intrinsic(_name, _llvm)


def _by_kind(name: str, floats: Rule | None, ints: Rule | None) -> None:
    """A rule for floats and one for integers."""

    def rule(b: ll.IRBuilder, t: DType, attrs: Any, *xs: Any) -> Any:
        chosen = floats if t.is_float else ints
        assert chosen is not None, (name, t)
        return chosen(b, t, *xs)

    EMIT.set(name, rule)


_by_kind("add", lambda b, t, x, y: b.fadd(x, y, flags=["contract"]), lambda b, t, x, y: b.add(x, y))
_by_kind("sub", lambda b, t, x, y: b.fsub(x, y, flags=["contract"]), lambda b, t, x, y: b.sub(x, y))


@EMIT.register("mul")
def _mul(b: ll.IRBuilder, t: DType, attrs: Any, x: Any, y: Any) -> Any:
    if not t.is_float:
        return b.mul(x, y)
    return b.fmul(x, y, flags=[] if attrs.get("rounded") else ["contract"])


_by_kind("div", lambda b, t, x, y: b.fdiv(x, y), None)
_by_kind("neg", lambda b, t, x: b.fneg(x), lambda b, t, x: b.neg(x))


def _abs_int(b: ll.IRBuilder, t: DType, x: Any) -> Any:
    if t is U32:
        return x
    return b.select(b.icmp_signed("<", x, constant(x, 0)), b.neg(x), x)


_by_kind("abs", lambda b, t, x: intrinsic(b, "fabs", x.type, x), _abs_int)


def _sign_float(b: ll.IRBuilder, t: DType, x: Any) -> Any:
    one = Num(b, intrinsic(b, "copysign", x.type, constant(x, 1.0), x))
    value = Num(b, x)
    flat = b.select(value.is_nan(), x, constant(x, 0.0))  # 0 at -0 too
    return b.select(b.or_(value.compare("==", 0.0), value.is_nan()), flat, one.value)


def _sign_int(b: ll.IRBuilder, t: DType, x: Any) -> Any:
    zero, one = constant(x, 0), constant(x, 1)
    positive = b.icmp_unsigned("!=", x, zero) if t is U32 else b.icmp_signed(">", x, zero)
    if t is U32:
        return b.select(positive, one, zero)
    negative = b.icmp_signed("<", x, zero)
    return b.select(positive, one, b.select(negative, constant(x, -1), zero))


_by_kind("sign", _sign_float, _sign_int)


def _extreme(op: str) -> tuple[Rule, Rule]:
    def floats(b: ll.IRBuilder, t: DType, x: Any, y: Any) -> Any:
        wins = b.select(b.fcmp_ordered(op, x, y), x, y)
        nan = b.fcmp_unordered("uno", x, x)
        return b.select(nan, x, wins)  # a NaN in y fails the comparison, which gives y

    def ints(b: ll.IRBuilder, t: DType, x: Any, y: Any) -> Any:
        compare = b.icmp_unsigned if t in (U32, BOOL) else b.icmp_signed  # true is -1 if signed
        return b.select(compare(op, x, y), x, y)

    return floats, ints


_by_kind("max", *_extreme(">"))
_by_kind("min", *_extreme("<"))


def _floordiv_float(b: ll.IRBuilder, t: DType, x: Any, y: Any) -> Any:
    """As NumPy: the quotient of x less its remainder, floored, nearest where rounding slipped."""
    rest = Num(b, b.frem(x, y))
    quotient = b.fdiv(b.fsub(x, rest.value), y)
    opposite = b.xor(rest.compare("<", 0.0), Num(b, y).compare("<", 0.0))
    lower = b.and_(opposite, b.fcmp_ordered("!=", rest.value, constant(x, 0.0)))
    quotient = b.select(lower, b.fsub(quotient, constant(x, 1.0)), quotient)
    floored = Num(b, intrinsic(b, "floor", x.type, quotient))
    gap = b.fsub(quotient, floored.value)
    up = b.fcmp_ordered(">", gap, constant(x, 0.5))
    out = b.select(up, b.fadd(floored.value, constant(x, 1.0)), floored.value)
    zero = Num(b, y).compare("==", 0.0)
    return b.select(zero, b.fdiv(x, y), out)


def _mod_float(b: ll.IRBuilder, t: DType, x: Any, y: Any) -> Any:
    rest = Num(b, b.frem(x, y))
    zero = rest.compare("==", 0.0)
    opposite = b.xor(rest.compare("<", 0.0), Num(b, y).compare("<", 0.0))
    moved = b.fadd(rest.value, y)
    signed = intrinsic(b, "copysign", x.type, rest.value, y)
    return b.select(zero, signed, b.select(opposite, moved, rest.value))


def _divide_ints(remainder: bool) -> Rule:
    """Floored integer division; 0 for a zero divisor, and no trap at the smallest integer."""

    def rule(b: ll.IRBuilder, t: DType, x: Any, y: Any) -> Any:
        zero, one = constant(x, 0), constant(x, 1)
        none = b.icmp_signed("==", y, zero)
        if t is U32:
            safe = b.select(none, one, y)
            out = b.urem(x, safe) if remainder else b.udiv(x, safe)
            return b.select(none, zero, out)
        minus = b.icmp_signed("==", y, constant(x, -1))
        safe = b.select(b.or_(none, minus), one, y)
        quotient, rest = b.sdiv(x, safe), b.srem(x, safe)
        wrong = b.and_(b.icmp_signed("!=", rest, zero), b.icmp_signed("<", b.xor(rest, safe), zero))
        if remainder:
            return b.select(b.or_(none, minus), zero, b.select(wrong, b.add(rest, safe), rest))
        out = b.select(wrong, b.sub(quotient, one), quotient)
        return b.select(none, zero, b.select(minus, b.neg(x), out))

    return rule


_by_kind("floordiv", _floordiv_float, _divide_ints(False))
_by_kind("mod", _mod_float, _divide_ints(True))

EMIT.set("and", lambda b, t, attrs, x, y: b.and_(x, y))
EMIT.set("or", lambda b, t, attrs, x, y: b.or_(x, y))
EMIT.set("xor", lambda b, t, attrs, x, y: b.xor(x, y))
EMIT.set("not", lambda b, t, attrs, x: b.not_(x))


def _shift(left: bool) -> Rule:
    def rule(b: ll.IRBuilder, t: DType, attrs: Any, x: Any, y: Any) -> Any:
        width = t.itemsize * 8
        inside = b.icmp_unsigned("<", y, constant(y, width))
        amount = b.select(inside, y, constant(y, 0))
        out = b.shl(x, amount) if left else b.lshr(x, amount)
        return b.select(inside, out, constant(x, 0))

    return rule


EMIT.set("shl", _shift(True))
EMIT.set("shr", _shift(False))


def _compare(name: str, op: str) -> None:
    def rule(b: ll.IRBuilder, t: DType, attrs: Any, x: Any, y: Any) -> Any:
        if t.is_float:
            return b.fcmp_unordered(op, x, y) if op == "!=" else b.fcmp_ordered(op, x, y)
        unsigned = t in (U32, BOOL, KEY)
        return (b.icmp_unsigned if unsigned else b.icmp_signed)(op, x, y)

    EMIT.set(name, rule)


for _name, _op in {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}.items():
    _compare(_name, _op)


@EMIT.register("is_finite")
def _is_finite(b: ll.IRBuilder, t: DType, attrs: Any, x: Any) -> Any:
    return Num(b, x).call("fabs").compare("<", math.inf)


def _outward(direction: float) -> Rule:
    def rule(b: ll.IRBuilder, t: DType, attrs: Any, x: Any) -> Any:
        info = np.finfo(t.numpy)
        most = constant(x, -direction * float(info.max))
        beyond = b.fcmp_ordered("<" if direction > 0 else ">", x, most)
        held = Num(b, b.select(beyond, most, x))
        step = held.call("fabs").fma(attrs["ulps"] * float(info.eps), float(info.tiny))
        return (held + step if direction > 0 else held - step).value

    return rule


EMIT.set("down", _outward(-1.0))
EMIT.set("up", _outward(1.0))


@EMIT.register("select")
def _select(b: ll.IRBuilder, t: DType, attrs: Any, c: Any, x: Any, y: Any) -> Any:
    return b.select(c, x, y)


@EMIT.register("stop_gradient")
def _same(b: ll.IRBuilder, t: DType, attrs: Any, x: Any) -> Any:
    return x


@EMIT.register("convert")
def _convert(b: ll.IRBuilder, t: DType, attrs: Any, x: Any) -> Any:
    target: DType = attrs["dtype"]
    if target is t:
        return x
    kind = vector(REGISTER[target], lanes_of(x))
    if target is BOOL:
        zero = constant(x, 0.0 if t.is_float else 0)
        return b.fcmp_unordered("!=", x, zero) if t.is_float else b.icmp_signed("!=", x, zero)
    if t is BOOL:
        return b.uitofp(x, kind) if target.is_float else b.zext(x, kind)
    if t.is_float and target.is_float:
        return b.fpext(x, kind) if target.itemsize > t.itemsize else b.fptrunc(x, kind)
    if t.is_float:
        name = "fptoui.sat" if target is U32 else "fptosi.sat"
        return intrinsic(b, name, kind, x, overload=(kind, x.type))
    if target.is_float:
        return b.uitofp(x, kind) if t is U32 else b.sitofp(x, kind)
    if target.itemsize < t.itemsize:
        return b.trunc(x, kind)
    if target.itemsize == t.itemsize:
        return x
    return b.zext(x, kind) if t is U32 else b.sext(x, kind)


@EMIT.register("bitcast")
def _bitcast(b: ll.IRBuilder, t: DType, attrs: Any, x: Any) -> Any:
    return b.bitcast(x, vector(REGISTER[attrs["dtype"]], lanes_of(x)))


def _halves(b: ll.IRBuilder, key: Any) -> tuple[Any, Any]:
    kind = vector(INT32, lanes_of(key))
    return b.trunc(key, kind), b.trunc(b.lshr(key, constant(key, 32)), kind)


def _packed(b: ll.IRBuilder, lo: Any, hi: Any) -> Any:
    kind = vector(INT64, lanes_of(lo))
    high = b.shl(b.zext(hi, kind), constant(kind, 32))
    return b.or_(b.zext(lo, kind), high)


@EMIT.register("threefry")
def _threefry(b: ll.IRBuilder, t: DType, attrs: Any, key: Any, counter: Any) -> Any:
    k0, k1 = _halves(b, key)
    x0, x1 = _halves(b, counter)
    keys = (k0, k1, b.xor(b.xor(k0, k1), constant(k0, PARITY)))
    x0, x1 = b.add(x0, keys[0]), b.add(x1, keys[1])
    for group in range(5):
        for r in ROTATIONS[group % 2]:
            x0 = b.add(x0, x1)
            turned = b.or_(b.shl(x1, constant(x1, r)), b.lshr(x1, constant(x1, 32 - r)))
            x1 = b.xor(turned, x0)
        x0 = b.add(x0, keys[(group + 1) % 3])
        x1 = b.add(b.add(x1, keys[(group + 2) % 3]), constant(x1, group + 1))
    return _packed(b, x0, x1)


EMIT.set("key_make", lambda b, t, attrs, lo, hi: _packed(b, lo, hi))
EMIT.set("key_lo", lambda b, t, attrs, key: _halves(b, key)[0])
EMIT.set("key_hi", lambda b, t, attrs, key: _halves(b, key)[1])
