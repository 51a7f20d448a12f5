"""Elementary functions on floats, scalar or of many lanes, from arithmetic alone.

Each takes and returns a `Num`. Reductions and series are classical (Muller, "Elementary
Functions", 3rd ed., chapters 5 and 11); coefficients are Taylor or Chebyshev fits made for
these intervals. What has no formula here calls the C library lane by lane (`libm`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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


def softplus(x: Num) -> Num:
    """log(1 + exp(x)), without overflow."""
    top = Num(x.b, x.b.select(x.compare("<", 0.0), constant(x.value, 0.0), x.value))
    return top + log1p(exp(-x.call("fabs")))


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
    "softplus": softplus,
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


# erfinv(x) / x for w = -log(1 - x^2) in three ranges: a polynomial of w - centre, or of
# sqrt(w) - centre further out. The shape of the formula is that of Giles ("Approximating the
# erfinv function", GPU Computing Gems 2011); the coefficients are Chebyshev interpolants of our
# own, computed with 50 digits: relative error 1.1e-7 in f32, 8e-16 in f64, before rounding.
_ERFINV32: tuple[Sequence[float], ...] = (
    (
        4.671932285482683e-10,
        -8.739010404212877e-09,
        1.5984305434812995e-08,
        4.6541740061911696e-07,
        -3.4234142276545754e-06,
        -4.959691978001501e-06,
        0.00021825773001182824,
        -0.0012527485378086567,
        -0.0041773198172450066,
        0.24664029479026794,
        1.5014092922210693,
    ),
    (
        -3.30502625729423e-05,
        9.905671322485432e-05,
        -3.380000634933822e-05,
        -0.00035677236155606806,
        0.0010880448389798403,
        -0.001994701800867915,
        0.0029490943998098373,
        -0.004293755162507296,
        0.005973256193101406,
        1.0046924352645874,
        3.0336365699768066,
    ),
)
_ERFINV64: tuple[Sequence[float], ...] = (
    (
        -2.362369698566107e-22,
        -1.6787330615256773e-19,
        1.1027771591500033e-18,
        1.1125794759379464e-17,
        -1.290702354613073e-16,
        2.166994626283574e-17,
        6.581955305929239e-15,
        -4.0554139746886e-14,
        -8.106594456438496e-14,
        2.6335724924608484e-12,
        -1.2977505202014966e-11,
        -5.4154417754696635e-11,
        1.0512202440121784e-09,
        -4.112633104297614e-09,
        -2.907038666019143e-08,
        4.2347877672780653e-07,
        -1.3654691796592068e-06,
        -1.3882523361276876e-05,
        0.0001867342080212427,
        -0.0007407025341669402,
        -0.006033670871427011,
        0.2401581824255897,
        1.6536545626831027,
    ),
    (
        -3.831039946072411e-10,
        9.071950571029922e-08,
        -2.6860975725571463e-07,
        1.832399988132858e-08,
        1.4958263152984917e-06,
        -4.013946398190292e-06,
        2.9273722115986924e-06,
        1.2475343474376931e-05,
        -4.731952918337189e-05,
        6.828484052292924e-05,
        2.4031363245440546e-05,
        -0.00035503751863069763,
        0.0009532893521118177,
        -0.0016882755561681802,
        0.0024914420976198813,
        -0.0037512085075638536,
        0.0053709145535581985,
        1.0052589676941592,
        3.0838856104922208,
    ),
    (
        1.8936684077822415e-11,
        -2.3700551286084675e-10,
        9.432597243310944e-10,
        -2.1657192295559524e-09,
        4.136993238572669e-09,
        -7.994753923205347e-09,
        1.6639081738544974e-08,
        -4.5541876723285535e-08,
        1.791002864050488e-07,
        -8.310296579682297e-07,
        3.889945060874419e-06,
        -1.716264142087815e-05,
        6.680006782604713e-05,
        -0.00018651301654343204,
        -0.00019885886860714018,
        1.010266564502272,
        4.950934853078874,
    ),
)


def erfinv(x: Num) -> Num:
    """Inverse error function."""
    b = x.b
    w = -log((-x).fma(x, 1.0))
    root = w.call("sqrt")
    if x.wide:
        near, middle, far = _ERFINV64
        tail = (root - 3.25).poly(middle).where(root.compare("<", 4.0), (root - 5.1).poly(far))
        ratio = (w - 3.125).poly(near).where(w.compare("<", 6.25), tail)
    else:
        near, far = _ERFINV32
        ratio = (w - 2.5).poly(near).where(w.compare("<", 5.0), (root - 3.2).poly(far))
    edge = _with_sign(Num(b, constant(x.value, math.inf)), x)
    return edge.where(x.call("fabs").compare("==", 1.0), ratio * x)


VECTOR["erfinv"] = erfinv
