"""Elementary functions on floats, scalar or of many lanes, from arithmetic alone.

Each takes and returns a `Num`. Reductions and series are classical (Muller, "Elementary
Functions", 3rd ed., chapters 5 and 11); coefficients are Taylor or Chebyshev fits made for
these intervals. What has no formula here calls the C library lane by lane (`libm`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import llvmlite.ir as ll

from .lanes import INT32, INT64, Num, constant, lanes_of, vector

Function = Callable[[Num], Num]


def _pow2(x: Num, k: Any) -> Num:
    """2^k for integers k in the normal exponent range."""
    bias, shift = (1023, 52) if x.wide else (127, 23)
    bits = x.b.shl(x.b.add(k, constant(k, bias)), constant(k, shift))
    return x.from_bits(bits)


def _to_int(x: Num) -> Any:
    kind = vector(INT64 if x.wide else INT32, lanes_of(x.value))
    return x.b.fptosi(x.value, kind)


_EXP64 = [1 / math.factorial(i) for i in range(13, -1, -1)]
_EXP32 = [1 / math.factorial(i) for i in range(7, -1, -1)]
_LN2 = {True: (0.6931471803691238, 1.9082149292705877e-10), False: (0.693359375, -2.12194440e-4)}


def _exp_parts(x: Num) -> tuple[Num, Any]:
    """(exp(r), k) with x = k log 2 + r, x held to where the result is normal or overflows."""
    high, low = (709.9, -745.2) if x.wide else (89.0, -104.0)
    held = Num(x.b, x.b.select(x.compare(">", high), constant(x.value, high), x.value))
    held = Num(x.b, x.b.select(held.compare("<", low), constant(x.value, low), held.value))
    k = (held * (1 / math.log(2))).call("rint")
    hi, lo = _LN2[x.wide]
    r = k.fma(-hi, held)
    r = k.fma(-lo, r)
    return r.poly(_EXP64 if x.wide else _EXP32), _to_int(k)


def exp(x: Num) -> Num:
    """e to the power x; subnormal results too."""
    p, k = _exp_parts(x)
    half = x.b.ashr(k, constant(k, 1))
    out = p * _pow2(x, half) * _pow2(x, x.b.sub(k, half))
    return x.where(x.is_nan(), out)


def expm1(x: Num) -> Num:
    """exp(x) - 1: a series near 0, exp elsewhere."""
    n = 17 if x.wide else 9
    series = x.poly([1 / math.factorial(i) for i in range(n, 0, -1)]) * x
    small = x.call("fabs").compare("<", 0.5)
    return series.where(small, exp(x) - 1.0)


def _mantissa(x: Num) -> tuple[Num, Num]:
    """(m, e) with x = m 2^e and m in [sqrt(1/2), sqrt(2)); x positive, subnormals allowed."""
    tiny, scale, power = (2.0**-1022, 2.0**54, 54.0) if x.wide else (2.0**-126, 2.0**25, 25.0)
    sub = x.compare("<", tiny)
    scaled = (x * scale).where(sub, x)
    bits = scaled.bits()
    shift, root = (52, 0x3FE6A09E667F3BCD) if x.wide else (23, 0x3F3504F3)
    offset = x.b.sub(bits, constant(bits, root))
    k = x.b.ashr(offset, constant(bits, shift))
    m = x.from_bits(x.b.sub(bits, x.b.shl(k, constant(bits, shift))))
    e = Num(x.b, x.b.sitofp(k, x.value.type))
    return m, (e - power).where(sub, e)


def log(x: Num) -> Num:
    """Natural logarithm; -inf at 0, NaN below."""
    m, e = _mantissa(x)
    hi, lo = _LN2[x.wide]
    f = m - 1.0
    s = f / (f + 2.0)
    z = s * s
    n = 11 if x.wide else 5
    tail = z.poly([2 / (2 * i + 1) for i in range(n, 0, -1)]) * z
    hfsq = f * f * 0.5
    inner = s.fma(hfsq + tail, e * lo)
    out = e.fma(hi, f - (hfsq - inner))
    return _log_edges(x, out)


def _log_edges(x: Num, out: Num) -> Num:
    b = x.b
    out = x.where(x.compare("==", math.inf), out)
    out = Num(b, b.select(x.compare("==", 0.0), constant(x.value, -math.inf), out.value))
    bad = b.or_(x.compare("<", 0.0), x.is_nan())
    return Num(b, b.select(bad, constant(x.value, math.nan), out.value))


def log1p(x: Num) -> Num:
    """log(1 + x): log of the rounded sum, corrected by what rounding lost."""
    u = x + 1.0
    lost = x - (u - 1.0)
    out = log(u) + lost / u
    special = x.b.or_(x.compare("==", math.inf), u.compare("==", 0.0))
    out = log(u).where(special, out)
    return x.where(x.call("fabs").compare("<", 1e-20 if x.wide else 1e-10), out)


def sigmoid(x: Num) -> Num:
    """1 / (1 + exp(-x)), without overflow."""
    e = exp(-x.call("fabs"))
    top = Num(x.b, x.b.select(x.compare("<", 0.0), e.value, constant(x.value, 1.0)))
    return x.where(x.is_nan(), top / (e + 1.0))


def tanh(x: Num) -> Num:
    """Hyperbolic tangent: through expm1, with the sign of x."""
    a = x.call("fabs")
    t = expm1(a * -2.0)
    return _with_sign(-t / (t + 2.0), x)


def _with_sign(a: Num, sign: Num) -> Num:
    from .lanes import intrinsic

    return Num(a.b, intrinsic(a.b, "copysign", a.value.type, a.value, sign.value))


def sinh(x: Num) -> Num:
    """Hyperbolic sine."""
    a = x.call("fabs")
    t = expm1(a)
    small = (t + t / (t + 1.0)) * 0.5
    half = exp(a * 0.5)
    large = half * 0.5 * half
    return _with_sign(large.where(a.compare(">", 20.0), small), x)


def cosh(x: Num) -> Num:
    """Hyperbolic cosine."""
    a = x.call("fabs")
    half = exp(a * 0.5)
    large = half * 0.5 * half
    e = exp(a)
    return large.where(a.compare(">", 20.0), (e + 1.0 / e) * 0.5)


def asinh(x: Num) -> Num:
    """Inverse hyperbolic sine."""
    a = x.call("fabs")
    root = a.fma(a, 1.0).call("sqrt")
    small = log1p(a + a * a / (root + 1.0))
    return _with_sign(
        (log(a) + math.log(2)).where(a.compare(">", 1e8 if x.wide else 1e4), small), x
    )


def acosh(x: Num) -> Num:
    """Inverse hyperbolic cosine; NaN below 1."""
    t = x - 1.0
    small = log1p(t + (t * 2.0 + t * t).call("sqrt"))
    out = (log(x) + math.log(2)).where(x.compare(">", 1e8 if x.wide else 1e4), small)
    return Num(x.b, x.b.select(x.compare("<", 1.0), constant(x.value, math.nan), out.value))


def atanh(x: Num) -> Num:
    """Inverse hyperbolic tangent."""
    a = x.call("fabs")
    return _with_sign(log1p(a * 2.0 / (1.0 - a)) * 0.5, x)


_PIO2_64 = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21)
_PIO2_32 = (1.5703125, 4.837512969970703e-4, 7.549789954891882e-8)
TRIG_MOST = {True: 1e5, False: 3e4}  # beyond, the C library reduces the argument


def _quadrant(x: Num) -> tuple[Num, Any]:
    """(r, k) with x = k pi/2 + r, |r| <= pi/4, for moderate x."""
    k = (x * (2 / math.pi)).call("rint")
    r = x
    for part in _PIO2_64 if x.wide else _PIO2_32:
        r = k.fma(-part, r)
    return r, _to_int(k)


def _sin_series(r: Num) -> Num:
    z = r * r
    n = 8 if r.wide else 4
    c = [(-1) ** i / math.factorial(2 * i + 1) for i in range(n, 0, -1)]
    return (z.poly(c) * z).fma(r, r)


def _cos_series(r: Num) -> Num:
    z = r * r
    n = 9 if r.wide else 5
    c = [(-1) ** i / math.factorial(2 * i) for i in range(n, 1, -1)]
    return (z.poly(c) * z).fma(z, 1.0 - z * 0.5)


def _trig(shift: int) -> Function:
    """sin(x + shift pi/2)."""

    def run(x: Num) -> Num:
        b = x.b
        r, k = _quadrant(x)
        k = b.add(k, constant(k, shift))
        odd = b.icmp_signed("!=", b.and_(k, constant(k, 1)), constant(k, 0))
        turn = b.icmp_signed("!=", b.and_(k, constant(k, 2)), constant(k, 0))
        value = _cos_series(r).where(odd, _sin_series(r))
        return (-value).where(turn, value)

    return run


sin, cos = _trig(0), _trig(1)


def digamma(x: Num) -> Num:
    """Derivative of log gamma: the recurrence up to 10, then the asymptotic series.

    Negative x by reflection (DLMF 5.5.4).
    """
    b = x.b
    negative = x.compare("<=", 0.0)
    y = (1.0 - x).where(negative, x)
    total = y * 0.0
    for _ in range(10):
        low = y.compare("<", 10.0)
        total = (total - 1.0 / y).where(low, total)
        y = (y + 1.0).where(low, y)
    inv = 1.0 / (y * y)
    series = inv.poly([-1 / 12, 691 / 32760, -1 / 132, 1 / 240, -1 / 252, 1 / 120, -1 / 12]) * inv
    value = total + log(y) - 0.5 / y + series
    whole = x.call("floor").compare("==", x)
    frac = x - x.call("rint")
    angle = frac * math.pi
    reflected = value - math.pi * (cos(angle) / sin(angle))
    pole = b.and_(negative, whole)
    out = reflected.where(negative, value)
    out = x.where(x.compare("==", math.inf), out)
    out = Num(b, b.select(pole, constant(x.value, math.nan), out.value))
    edge = -_with_sign(Num(b, constant(x.value, math.inf)), x)
    return edge.where(x.compare("==", 0.0), out)


def trigamma(x: Num) -> Num:
    """Second derivative of log gamma: as digamma, for x > 0; reflected below (DLMF 5.15.6)."""
    negative = x.compare("<", 0.5)
    y = (1.0 - x).where(negative, x)
    total = y * 0.0
    for _ in range(10):
        low = y.compare("<", 10.0)
        total = (total + 1.0 / (y * y)).where(low, total)
        y = (y + 1.0).where(low, y)
    inv = 1.0 / (y * y)
    series = inv.poly([7 / 6, -691 / 2730, 5 / 66, -1 / 30, 1 / 42, -1 / 30, 1 / 6])
    value = total + 1.0 / y + inv * 0.5 + series * inv / y
    s = sin((x - x.call("rint")) * math.pi)
    reflected = (math.pi * math.pi) / (s * s) - value
    out = reflected.where(negative, value)
    top = x.compare("==", math.inf)
    return Num(x.b, x.b.select(top, constant(x.value, 0.0), out.value))


def rsqrt(x: Num) -> Num:
    """1 / sqrt(x)."""
    return 1.0 / x.call("sqrt")


VECTOR: dict[str, Function] = {
    "exp": exp,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "sinh": sinh,
    "cosh": cosh,
    "asinh": asinh,
    "acosh": acosh,
    "atanh": atanh,
    "sin": sin,
    "cos": cos,
    "digamma": digamma,
    "trigamma": trigamma,
    "rsqrt": rsqrt,
}
"""Functions by op name that work on any number of lanes."""

LIBM = {
    "tan": "tan",
    "asin": "asin",
    "acos": "acos",
    "atan": "atan",
    "erf": "erf",
    "erfc": "erfc",
    "lgamma": "lgamma",
    "pow": "pow",
    "atan2": "atan2",
}
"""Ops that call the C library lane by lane."""


def libm(b: ll.IRBuilder, name: str, *args: Any) -> Any:
    """A C library function of f32 or f64, applied to each lane."""
    lanes = lanes_of(args[0])
    kind = args[0].type.element if lanes else args[0].type
    full = LIBM.get(name, name) + ("" if isinstance(kind, ll.DoubleType) else "f")
    function = b.module.globals.get(full)
    if function is None:
        function = ll.Function(b.module, ll.FunctionType(kind, [kind] * len(args)), full)
        function.attributes.add("nounwind")
    if not lanes:
        return b.call(function, list(args))
    out = ll.Constant(args[0].type, ll.Undefined)
    for i in range(lanes):
        at = ll.Constant(INT32, i)
        out = b.insert_element(out, b.call(function, [b.extract_element(a, at) for a in args]), at)
    return out


def erfinv(x: Num) -> Num:
    """Inverse error function: a first guess, then Newton steps on erf or erfc.

    The guess is Winitzki's closed form; each step adds u + x u^2 with u = (erf(x) - y) /
    (2/sqrt(pi) exp(-x^2)), Halley's, from erfc where y is near 1 so that digits survive.
    """
    b = x.b
    a = x.call("fabs")
    a_const = 0.147
    ln = log1p(-(a * a))
    t = ln * 0.5 + 2 / (math.pi * a_const)
    y = ((t * t - ln / a_const).call("sqrt") - t).call("sqrt")
    near = a.compare("<", 0.5)
    for _ in range(3 if x.wide else 2):
        inside = Num(b, libm(b, "erf", y.value)) - a
        outside = (1.0 - a) - Num(b, libm(b, "erfc", y.value))
        slope = exp(-(y * y)) * (2 / math.sqrt(math.pi))
        u = inside.where(near, outside) / slope
        y = y - u / (y * u + 1.0)
    out = _with_sign(y, x)
    out = (x * (math.sqrt(math.pi) / 2)).where(a.compare("<", 1e-9 if x.wide else 1e-5), out)
    edge = _with_sign(Num(b, constant(x.value, math.inf)), x)
    out = edge.where(a.compare("==", 1.0), out)
    bad = b.or_(a.compare(">", 1.0), x.is_nan())
    return Num(b, b.select(bad, constant(x.value, math.nan), out.value))


VECTOR["erfinv"] = erfinv
